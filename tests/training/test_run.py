"""Whole runs in this process, on 60 tiny images: what a run leaves behind, and that it can be repeated and resumed."""

import csv
import json
import logging
import math
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence
from trained_runs import assert_same_training, train_until, weights, without_seconds

import vae
from vae.common.seeding import derive
from vae.common.signals import Interrupted
from vae.data.base import Split
from vae.data.loader import BatchLoader, evaluation_loader
from vae.evaluation.terms import mean_terms
from vae.model.checkpoints import model_weights
from vae.training import assembly, run
from vae.training.callbacks.pictures import Pictures

Compose = Callable[..., dict[str, Any]]


@pytest.fixture
def config(image_run: Compose) -> Compose:
    """The plain configuration of a run that takes a second, with further overrides."""
    return partial(image_run, "epochs=3", "trainer.log_every_n_steps=2", "figures=none")


def test_what_a_run_leaves_behind(config: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        metrics = run.train_run(config(), tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    terms = {f"{part}/{name}" for part in ("train", "val", "test") for name in ("total", "recon", "kl")}
    assert terms | {"data", "epochs", "best_epoch", "parameters", "device", "seconds/fit"} <= metrics.keys()
    assert metrics["data"] == "images"
    assert metrics["epochs"] == 3
    for part in ("train", "val", "test"):
        assert metrics[f"{part}/total"] == pytest.approx(metrics[f"{part}/recon"] + metrics[f"{part}/kl"])

    names = sorted(path.name for path in tmp_path.iterdir())
    kept = [name for name in names if not name.startswith("events.out.tfevents.")]
    assert kept == ["checkpoints", "history.csv", "metrics.json"]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]

    with (tmp_path / "history.csv").open() as file:
        written = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert written == weights(tmp_path)["callbacks"]["Scalars"]["history"]

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    losses = {f"{part}/{name}" for part in ("train", "val") for name in ("loss", "recon", "kl", "total")}
    assert tags == losses | {f"test/{name}" for name in ("loss", "recon", "kl", "total")} | {
        "train/lr",
        "train/seconds",
    }
    assert [event.step for event in events.Scalars("val/total")] == [7, 14, 21]  # 49 training images in 7 batches
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4, 6, 7, 9, 11, 13, 14, 16, 18, 20, 21]

    assert "images: 49 training, 5 validation, 6 test images of 1×10×12" in caplog.text
    assert "tensorboard --logdir" in caplog.text
    assert f"{metrics['test/total']:.2f}" in caplog.text


def test_reported_figures_are_those_of_the_best_weights_on_whole_parts(config: Compose, tmp_path: Path) -> None:
    settings = config("data.val_fraction=0.3")
    metrics = run.train_run(settings, tmp_path)
    history = weights(tmp_path)["callbacks"]["Scalars"]["history"]
    best = min(history, key=lambda row: row["val/total"])
    assert metrics["best_epoch"] == best["epoch"]
    assert metrics["val/total"] == pytest.approx(best["val/total"], rel=1e-5)  # the noise of validation is fixed

    model = vae.load(tmp_path).vae
    test: Split = run.build(settings, "data").load().test
    torch.manual_seed(1)
    images = (test.images / 255).repeat(200, 1, 1, 1)  # the mean over many draws of z, where the run has one
    independent = mean_terms(model, [(images, test.labels.repeat(200))])
    assert metrics["test/kl"] == pytest.approx(independent["kl"], rel=1e-4)
    assert metrics["test/recon"] == pytest.approx(independent["recon"], rel=0.01)


@pytest.mark.parametrize(
    ("overrides", "last_is_best"),
    [([], True), (["optimizer.lr=0.01", "epochs=12"], False)],
    ids=["better to the end", "overfitted"],
)
def test_best_and_last_hold_the_epochs_that_they_say(
    config: Compose, tmp_path: Path, overrides: list[str], last_is_best: bool
) -> None:
    metrics = run.train_run(config(*overrides), tmp_path)
    best, last = (weights(tmp_path, name)["callbacks"]["Scalars"]["history"] for name in ("best", "last"))
    assert len(last) == metrics["epochs"] and best == last[: metrics["best_epoch"]]
    assert (len(best) == len(last)) == last_is_best


def test_same_seed_same_numbers_and_another_seed_others(config: Compose, tmp_path: Path) -> None:
    first = run.train_run(config(), tmp_path / "a")
    torch.rand(7)  # whatever was drawn before must not matter
    second = run.train_run(config(), tmp_path / "b")
    third = run.train_run(config("seed=1"), tmp_path / "c")
    assert without_seconds(first) == without_seconds(second)
    assert_same_training(tmp_path / "a", tmp_path / "b")
    assert first["test/total"] != third["test/total"]


@pytest.mark.parametrize("overrides", [[], ["backbone=conv"], ["prior=correlated", "trainer.gradient_clip_val=20"]])
def test_a_run_takes_the_steps_of_a_plain_loop(config: Compose, tmp_path: Path, overrides: list[str]) -> None:
    # Validation takes two batches. In doubles, because Adam makes whole steps of rounding errors.
    settings = config("epochs=2", "data.val_fraction=0.7", "trainer.precision=64-true", *overrides)
    run.train_run(settings, tmp_path)

    source = run.build(settings, "data")
    data = source.load()
    torch.manual_seed(0)
    model = assembly.build_model(settings, data.shape, len(data.classes))
    model.start_at(data.train.images / 255, data.train.labels)
    model.double()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    posterior: Any = model.posterior
    prior = MultivariateNormal(torch.zeros(2).double(), model.prior().covariance_matrix)

    def terms(images: Tensor) -> tuple[Tensor, Tensor]:
        """recon and kl of each image."""
        features = model.backbone.encoder(images)
        q = Independent(Normal(posterior.mean(features), (posterior.log_var(features) / 2).exp()), 1)
        z = q.mean + q.stddev * torch.randn_like(q.mean)
        p = model.backbone.decoder(z).sigmoid()
        recon = -(images * p.log() + (1 - images) * (1 - p).log()).sum((1, 2, 3))
        return recon, kl_divergence(MultivariateNormal(q.mean, torch.diag_embed(q.variance)), prior)

    for epoch, row in enumerate(weights(tmp_path)["callbacks"]["Scalars"]["history"]):
        loader = BatchLoader(data.train, 8, seed=0, shuffle=True)
        loader.start_epoch(epoch)
        torch.manual_seed(derive(0, epoch, "train"))
        train = []
        for images, _ in loader:
            train.append(terms(images.double()))
            optimizer.zero_grad()
            sum(train[-1]).mean().backward()
            if clip := settings["trainer"]["gradient_clip_val"]:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
        torch.manual_seed(derive(0, "val"))
        with torch.no_grad():
            val = [terms(images.double()) for images, _ in evaluation_loader(source, data.val, "val")]
        for part, batches in (("train", train), ("val", val)):
            recon, kl = (torch.cat(values).mean().item() for values in zip(*batches, strict=True))
            found = [row[f"{part}/{name}"] for name in ("recon", "kl", "total")]
            assert found == pytest.approx([recon, kl, recon + kl], rel=1e-6)
    for name, value in model_weights(weights(tmp_path)).items():
        assert torch.allclose(value, model.state_dict()[name], atol=1e-8), name


def test_training_begins_around_the_mean_training_image(config: Compose, tmp_path: Path) -> None:
    settings = config("optimizer.lr=1e-9", "epochs=1")  # as good as untrained
    run.train_run(settings, tmp_path)
    mean = run.build(settings, "data").load().train.images.double().mean(0) / 255
    decoded = vae.load(tmp_path).sample(200).mean(0)
    assert torch.corrcoef(torch.stack([decoded.flatten(), mean.flatten()]))[0, 1] > 0.8


def test_a_run_with_codes_tells_how_they_are_used(
    config: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = ["figures=default", "figures.only=[usage,clusters]"]
    with caplog.at_level(logging.INFO):
        metrics = run.train_run(config("posterior=codebook", "posterior.codes=4", *pictures), tmp_path)
    assert metrics["test/kl"] == pytest.approx(16 * math.log(4)) and "test/total_error" not in metrics
    assert metrics["test/code_bits"] == pytest.approx(32)
    assert "in use on test images, perplexity" in caplog.text and "no nats: commitment" in caplog.text
    assert "standard error" not in caplog.text
    assert [path.name for path in (tmp_path / "figures").rglob("*.png")] == ["usage.png"]
    assert not (tmp_path / "projector").exists()  # of a few dimensions alone
    written = EventAccumulator(str(tmp_path))
    written.Reload()
    for name in ("commitment", "perplexity", "codes_used", "codes_revived", "code_bits"):
        assert len(written.Scalars(f"val/{name}")) == 3
    with (tmp_path / "history.csv").open() as file:
        last = [*csv.DictReader(file)][-1]
    assert float(last["val/code_bits"]) == pytest.approx(32)


VARIANTS = [
    ["data.binarize=dynamic", "data.flip=true", "scheduler=cosine"],
    ["prior=correlated", "posterior=tied", "optimizer=adamw", "scheduler=one_cycle"],
    ["backbone=conv", "likelihood=gaussian", "likelihood.sigma=learned"],
    ["ema=0.9", "likelihood=gaussian", "likelihood.sigma=optimal"],
]
MORE = [  # with weights, buffers, noise and steps of their own
    ["prior=vamp", "prior.components=5", "posterior=full", "objective.annealing=linear", "objective.warmup=2"],
    ["prior=flow", "prior.layers=1", "objective.annealing=cyclical", "objective.cycles=2"],
    ["prior=mixture", "prior.components=3", "objective=dreg", "likelihood=gaussian", "likelihood.sigma=optimal"],
    ["prior=learned", "posterior=tied", "objective=tc", "likelihood=continuous_bernoulli"],
    ["objective=mmd", "prior=correlated", "conditional=true"],
    ["prior=vamp", "prior.components=5", "backbone=conv", "conditional=true"],
    ["objective=dip", "objective.kind=2", "posterior=full"],
    ["objective=autoencoder"],
    ["objective=rae", "prior.components=3"],
    ["objective=factor", "objective.critic.hidden=[16]", "ema=0.5"],
    ["objective=wae_gan", "objective.critic.hidden=[16]", "objective.critic.updates=2", "scheduler=cosine"],
    ["objective=vae_gan", "objective.critic.channels=[4,6]", "backbone=conv", "conditional=true"],
    ["backbone=resnet", "backbone.channels=[8,16]", "backbone.attention=[5]", "ema=0.5"],
    ["backbone=resnet", "backbone.channels=[8,16]", "backbone.below=[[5,2],[10,1]]", "conditional=true"],
    ["backbone.below=[6]", "objective.annealing=linear", "objective.warmup=2", "objective.balance=true"],
    ["posterior=codebook", "posterior.codes=30", "posterior.decay=0.8", "posterior.revive=0.5", "backbone=conv"],
    ["posterior=residual_codebook", "prior=autoregressive", "posterior.decay=null", "conditional=true", "ema=0.9"],
    ["posterior=gumbel", "posterior.codes=5", "posterior.places=3"],
]
INTERRUPTED = [
    *((overrides, step) for overrides in VARIANTS for step in (1, 7, 21)),  # within an epoch, at its end, at the end
    *(pytest.param(overrides, 9, marks=pytest.mark.slow) for overrides in MORE),
]


@pytest.mark.parametrize(
    ("overrides", "step"), INTERRUPTED, ids=lambda each: each if isinstance(each, int) else each[0]
)
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], step: int
) -> None:
    settings = config(*overrides)
    whole = run.train_run(settings, tmp_path / "whole")

    train_until(step, settings, tmp_path / "parts", monkeypatch)
    resumed = run.train_run(settings, tmp_path / "parts")
    assert without_seconds(resumed) == without_seconds(whole)
    assert_same_training(tmp_path / "whole", tmp_path / "parts")


def test_what_the_end_owes_is_done_by_whoever_finds_it_missing(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when training is over and the closing pictures are not yet there."""
    settings = config("figures=default", "figures.only=[manifold,losses]")

    def killed(self: Pictures, *arguments: Any) -> None:
        raise Interrupted(signal.SIGKILL)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Pictures, "close", killed)
        run.train_run(settings, tmp_path / "parts")
    assert not (tmp_path / "parts" / "figures" / "curves").exists()
    resumed, whole = (run.train_run(settings, tmp_path / name) for name in ("parts", "whole"))
    assert without_seconds(resumed) == without_seconds(whole)
    pictures = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").glob("figures/*/*.png")]
    assert len(pictures) == 2
    for path in [*pictures, Path("projector/codes.tsv"), Path("projector_config.pbtxt")]:
        assert (tmp_path / "parts" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()
    for name in ("parts", "whole"):
        events = EventAccumulator(str(tmp_path / name))
        events.Reload()
        assert b"\x08\x01" in events.SummaryMetadata("_hparams_/session_end_info").plugin_data.content  # success


def test_a_resumed_run_works_on_as_many_threads_as_it_began_with(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their number decides how sums are rounded."""
    before = torch.get_num_threads()
    run.train_run(config("epochs=1"), tmp_path)
    torch.set_num_threads(before + 1)
    seen = []
    monkeypatch.setattr(Pictures, "close", lambda *arguments: seen.append(torch.get_num_threads()))
    try:
        run.train_run(config("epochs=2"), tmp_path)
        seen.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert seen == [before, before + 1]


def test_a_run_does_not_go_on_with_other_images(config: Compose, tmp_path: Path) -> None:
    run.train_run(config("epochs=1"), tmp_path / "run")
    for name in ("c", "d"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(30):
            Image.new("L", (12, 10), i).save(tmp_path / "images" / name / f"{i}.png")
    with pytest.raises(ValueError, match=r"^the run in .* was trained on images, images of \[1, 10, 12\], but "):
        run.train_run(config("epochs=2", f"data.root={tmp_path / 'images'}"), tmp_path / "run")


def test_a_completed_run_can_be_trained_further(config: Compose, tmp_path: Path) -> None:
    run.train_run(config("epochs=2"), tmp_path / "a")
    further = run.train_run(config("epochs=4"), tmp_path / "a")
    at_once = run.train_run(config("epochs=4"), tmp_path / "b")
    assert without_seconds(further) == without_seconds(at_once)
    assert_same_training(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("likelihood", ["discretized_logistic", "logistic_mixture"])
def test_bits_of_levels_are_reported_beside_nats(config: Compose, tmp_path: Path, likelihood: str) -> None:
    found = run.train_run(config("epochs=2", f"likelihood={likelihood}"), tmp_path)
    pixels = math.prod(weights(tmp_path, "best")["vae"]["shape"])
    for part in ("train", "val", "test"):
        assert found[f"{part}/bits_per_dim"] == pytest.approx(found[f"{part}/total"] / (pixels * math.log(2)))
    assert json.loads((tmp_path / "metrics.json").read_text())["test/bits_per_dim"] == found["test/bits_per_dim"]
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    for part in ("train", "val"):
        bits, nats = (events.Scalars(f"{part}/{name}")[-1] for name in ("bits_per_dim", "total"))
        assert bits.step == nats.step and bits.value == pytest.approx(nats.value / (pixels * math.log(2)))
    assert events.Scalars("test/bits_per_dim")[-1].value == pytest.approx(found["test/bits_per_dim"])
    assert "val/kl,val/bits_per_dim\n" in (tmp_path / "history.csv").read_text()
    again = run.train_run(config("epochs=2"), tmp_path / "grey")
    assert not [name for name in again if "bits" in name]


def test_a_run_is_evaluated_at_its_end(config: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "vae")
    few = ["evaluate=full", "evaluate.metrics=[likelihood,reconstruction,disentanglement]", "evaluate.samples=5"]
    run.train_run(config("epochs=2", *few), tmp_path)
    found = json.loads((tmp_path / "evaluation.json").read_text())
    best = weights(tmp_path, "best")
    assert {"test/nll", "test/psnr"} <= found.keys()
    assert (found.pop("step"), found.pop("epoch")) == (best["global_step"], best["epoch"] + 1)
    assert "left out: disentanglement (the data has no known factors)" in caplog.text and "psnr" in caplog.text
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert {name: events.Scalars(name)[-1].value for name in found} == pytest.approx(found, rel=1e-5)
    run.train_run(config("epochs=3"), tmp_path)  # of other weights than were evaluated
    assert not (tmp_path / "evaluation.json").exists()


def test_the_course_of_training_is_logged_every_epoch(config: Compose, tmp_path: Path) -> None:
    run.train_run(config("scheduler=cosine", "objective.annealing=linear", "objective.warmup=2"), tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = {tag: events.Scalars(f"train/{tag}") for tag in ("lr", "weight", "seconds")}
    assert all([event.step for event in written] == [7, 14, 21] for written in found.values())
    values = {tag: [event.value for event in written] for tag, written in found.items()}
    assert values["weight"] == [0.5, 1, 1]
    assert values["lr"] == pytest.approx(
        [1e-3 * (1 + math.cos(math.pi * part / 3)) / 2 for part in (1, 2, 3)], abs=1e-8
    )
    history = weights(tmp_path)["callbacks"]["Scalars"]["history"]
    assert values["seconds"] == pytest.approx([row["seconds"] for row in history])


def test_resuming_hides_what_was_logged_after_the_checkpoint(config: Compose, tmp_path: Path) -> None:
    run.train_run(config("epochs=2"), tmp_path)
    run.train_run(config("epochs=4"), tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    steps = [event.step for event in events.Scalars("train/total")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 28


def test_a_loss_that_is_not_finite_ends_the_run_at_once(config: Compose, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"no longer finite at step \d+ \(epoch 1\): loss=.*optimizer\.lr"):
        run.train_run(config("optimizer.lr=1e30"), tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    assert not (tmp_path / "metrics.json").exists()


def test_weights_that_the_last_step_spoils_end_the_run(config: Compose, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"no longer finite at step 1 \(epoch 1\): val/loss="):
        run.train_run(config("optimizer.lr=1e30", "data.batch_size=1000", "epochs=1"), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_a_conditional_model_needs_labels(config: Compose, image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for path in image_folder.rglob("*.png"):
        shutil.copy(path, tmp_path / "flat")
    with pytest.raises(ValueError, match=r"^conditional=true: needs data with labels, but these images have no cl"):
        run.train_run(config(f"data.root={tmp_path / 'flat'}", "conditional=true"), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("backbone", ["dense", "conv"])
def test_a_conditional_run_uses_the_true_labels(config: Compose, tmp_path: Path, backbone: str) -> None:
    settings = config("conditional=true", f"backbone={backbone}", "epochs=4", "optimizer.lr=0.01")
    metrics = run.train_run(settings, tmp_path)
    model, test = vae.load(tmp_path).vae, run.build(settings, "data").load().test
    images = (test.images / 255).repeat(500, 1, 1, 1)
    labels = test.labels.repeat(500)
    found = mean_terms(model, [(images, labels)])
    assert metrics["test/kl"] == pytest.approx(found["kl"], rel=1e-4)
    assert mean_terms(model, [(images, 1 - labels)])["kl"] != pytest.approx(found["kl"], rel=1e-4)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["objective=tc", "beta=6"], {"batch_mi", "batch_tc", "batch_dwkl"}),
        (["objective=mmd"], {"mmd"}),
        (["objective=dip"], {"dip"}),
    ],
)
def test_the_parts_of_an_objective_are_logged(
    config: Compose, tmp_path: Path, overrides: list[str], parts: set[str]
) -> None:
    run.train_run(config(*overrides), tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = {f"{part}/{name}" for part in ("train", "val") for name in parts}
    assert tags <= set(events.Tags()["scalars"])
    rows = weights(tmp_path)["callbacks"]["Scalars"]["history"]
    assert tags <= rows[0].keys()
    for row in rows if "batch_tc" in parts else ():
        weighted = row["train/recon"] + row["train/batch_mi"] + 6 * row["train/batch_tc"] + row["train/batch_dwkl"]
        assert row["train/loss"] == pytest.approx(weighted, rel=1e-5)


def test_sixteen_bits_on_a_cpu_are_refused(config: Compose, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^trainer\.precision=bf16-mixed: must be 32-true or 64-true on a CPU"):
        run.train_run(config("trainer.precision=bf16-mixed", "trainer.accelerator=cpu"), tmp_path)


def test_double_precision_and_clipping_train(config: Compose, tmp_path: Path) -> None:
    metrics = run.train_run(config("trainer.precision=64-true", "trainer.gradient_clip_val=0.5", "epochs=1"), tmp_path)
    assert metrics["test/total"] > 0


def test_double_precision_has_its_pictures_and_measures(
    image_run: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = ("evaluate=full", "evaluate.images=20", "evaluate.samples=20", "epochs=1", "conditional=true")
    run.train_run(image_run("trainer.precision=64-true", *few), tmp_path)
    assert not [line for line in caplog.messages if "failed" in line]
    assert (tmp_path / "figures" / "images" / "reconstructions.png").is_file()
