import json
import sys
from contextlib import ExitStack
from types import SimpleNamespace

import benchmark
import pytest
import torch
from benchmarks import common, hand, loops, processes, training

from vae.data.base import Dataset, Split
from vae.model.build import build, build_model
from vae.model.objectives import Batch


@pytest.fixture
def data():
    """30 random images of MNIST's shape, of which 10 are for validation."""
    part = Split(torch.randint(256, (30, 1, 28, 28), dtype=torch.uint8), torch.arange(30) % 10)
    return Dataset("random", part.take(slice(20)), part, part.take(slice(20, None)), tuple("0123456789"))


def hand_written(model, config, data):
    """The hand-written loop with the model's weights."""
    hand = loops.HandLoop(config, data)
    mean, log_var = model.posterior.mean, model.posterior.log_var
    heads = [torch.cat([mean.weight, log_var.weight]), torch.cat([mean.bias, log_var.bias])]
    weights = [*model.backbone.encoder.parameters(), *heads, *model.backbone.decoder.parameters()]
    with torch.no_grad():
        for own, weight in zip(hand.weights, weights, strict=True):
            own.copy_(weight)
    return hand


@pytest.mark.parametrize("case", training.CASES)
def test_the_hand_written_loop_trains_the_same_model(case, compose, data):
    config = compose("data=mnist", *training.CASES[case])
    model, x = build_model(config, data.shape, 10), data.train.images / 255
    hand = hand_written(model, config, data)
    torch.manual_seed(5)
    (loss, _), terms = build(config, "objective")(model, Batch(x), 0)
    torch.manual_seed(5)
    recon, kl = hand.terms(x)
    assert recon.item() == pytest.approx(terms.recon.mean().item(), rel=1e-5)
    assert kl.item() == pytest.approx(terms.kl.mean().item(), rel=1e-4)
    loss.backward()
    (recon + kl).backward()
    norms = [
        torch.stack([weight.grad.norm() for weight in weights]).norm() for weights in (model.parameters(), hand.weights)
    ]
    assert norms[0].item() == pytest.approx(norms[1].item(), rel=1e-4)


@pytest.mark.parametrize("case", training.CASES)
def test_the_products_are_those_of_the_layers(case, compose, data):
    hand = loops.HandLoop(compose("data=mnist", *training.CASES[case]), data)
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        recon, kl = hand.terms(hand.train)
        forward = counter.get_total_flops()
        (recon + kl).backward()
    products = loops.forward_products(hand, hand.train)
    both = [*products, *(each for product in products for each in loops.backward_products(product))]
    both.remove(loops.backward_products(products[0])[0])  # images have no gradient
    assert sum(2 * m * k * n for m, k, n in products) == forward
    assert sum(2 * m * k * n for m, k, n in both) == counter.get_total_flops()


def test_an_epoch_of_each_sees_all_images(compose, data, monkeypatch, tmp_path):
    config = compose("data=mnist", "data.batch_size=6")
    hand = loops.HandLoop(config, data)
    before, sizes, terms = [weight.clone() for weight in hand.weights], [], hand.terms
    monkeypatch.setattr(hand, "terms", lambda x: sizes.append(len(x)) or terms(x))
    assert hand.epoch() > 0 and sizes == [6, 6, 6, 2, 10]
    assert all(not torch.equal(weight, old) for weight, old in zip(hand.weights, before, strict=True))
    sizes.clear()
    assert loops.UsualLightning(hand, tmp_path).epoch() > 0 and sizes == [6, 6, 6, 2, 10]
    assert loops.Products(hand).epoch() > 0


def test_contenders_take_turns():
    calls, seconds = [], iter(range(100))
    contenders = {name: lambda name=name: calls.append(name) or next(seconds) for name in "ab"}
    rounds = common.in_turn(contenders, 3)
    assert calls == list("abababab") and rounds == [{"a": 2, "b": 3}, {"a": 4, "b": 5}, {"a": 6, "b": 7}]
    found = common.ratio(rounds, "b", "a")
    assert found == {"ratio": 5 / 4, "lowest": 7 / 6, "highest": 3 / 2, "seconds": 5, "other's": 4}


def test_a_run_takes_turns_with_the_others(compose, image_folder, tmp_path):
    config = compose("data=images", f"data.root={image_folder}", "epochs=3", "figures=none")
    rounds = training.race(tmp_path, config, {"other": lambda: 7.0})
    assert len(rounds) == 3
    assert all(each["other"] == 7.0 and 0 < each["pictures"] < each["runner"] < 7 for each in rounds)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_is_that_of_the_large_end(power):
    sizes = [2, 8, 32, 128, 512]
    assert training.exponent(sizes, [3 * size**power for size in sizes]) == pytest.approx(power)
    assert training.exponent(sizes, [9.0, 9.0, *(3 * size**power for size in sizes[2:])]) == pytest.approx(power)


def test_random_images_stand_in_for_mnist(compose, tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_DATA", str(tmp_path / "nothing"))
    overrides = common.images(tmp_path)
    found = build(compose(*overrides), "data").read()
    assert found.train.images.shape == (60_000, 1, 28, 28) and found.test.images.shape == (10_000, 1, 28, 28)
    assert found.train.images.float().mean().item() == pytest.approx(127.5, abs=0.1)


def test_a_section_is_printed_and_kept_beside_the_others(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(common, "images", lambda folder: ["data=mnist"])
    rows = [{"what": "a", "ratio": 1.25, "seconds": 3.0}, {"what": "longer", "ratio": 10.5, "seconds": 0.25}]
    monkeypatch.setitem(benchmark.SECTIONS, "data", lambda options: {"shown": common.table(rows, "A note.")})
    out = tmp_path / "found.json"
    out.write_text('{"growth": 1}')
    benchmark.main(["data", "--out", str(out)])
    printed = capsys.readouterr().out.splitlines()
    start = printed.index("data: shown")
    assert printed[start + 2 : start + 7] == [
        "what    ratio  seconds",
        "──────────────────────",
        "a        1.25     3.00",
        "longer  10.50     0.25",
        "──────────────────────",
    ]
    found = json.loads(out.read_text())
    assert found["growth"] == 1 and found["data"]["shown"] == {"rows": rows, "notes": ["A note."]}
    assert found["data"]["machine"].keys() >= {"cpu", "cores", "threads", "torch", "date"}


def test_refuses_what_is_no_section():
    with pytest.raises(SystemExit, match=r"^error: section=trian: must be one of train, turns, data, .*, deep, all$"):
        benchmark.main(["trian"])


def test_a_command_that_fails_says_why():
    assert processes.finished(sys.executable, "-c", "print(3)") == "3\n"
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        processes.wall(sys.executable, "-c", "1 / 0")


COUNT = """
import sys, time
with open(sys.argv[1], "wb", buffering=0) as file:
    while True:
        file.write(b".")
        time.sleep(float(sys.argv[2]))
"""


@pytest.mark.slow
def test_programs_work_in_their_turns_alone(tmp_path):
    with ExitStack() as started:
        ways = {}
        for name, pause in (("quick", "0.01"), ("slow", "0.1")):
            (tmp_path / name).mkdir()
            command = (sys.executable, "-c", COUNT, str(tmp_path / name / processes.STEPS), pause)
            ways[name] = started.enter_context(processes._started(tmp_path / name, {}, *command))
        before = ways["slow"].turn(0.0)
        seconds, steps = ways["quick"].turn(0.5)
        assert seconds >= 0.5 and steps > 5
        assert ways["slow"].turn(0.0)[1] <= 1 and before[1] <= 1  # none while the other had its turn
        found = processes.seconds_a_step(ways, 0.5, 2)
        assert found["quick"] < found["slow"]


def test_a_program_that_ends_before_its_first_step_says_so(tmp_path):
    ending = processes._started(tmp_path, {}, sys.executable, "-c", "raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="ended with 3 before its first step"), ending:
        pass


def test_the_hand_written_loop_counts_its_steps(tmp_path, monkeypatch, data):
    monkeypatch.setattr(hand, "build", lambda config, group: SimpleNamespace(load=lambda: data))
    hand.main(str(tmp_path), "epochs=2", "data.batch_size=8")
    assert (tmp_path / hand.STEPS).read_bytes() == b"......"  # of 20 images, twice
