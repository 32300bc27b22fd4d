"""Runs that are trained together, beside the same runs by themselves."""

import csv
import logging
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import OF_A_STEP, overrides
from trained_runs import numbers, train_until, weights

from vae.common import signals
from vae.common.signals import Interrupted
from vae.settings.alike import in_groups, why_alone
from vae.training import lanes
from vae.training.callbacks.scalars import Scalars
from vae.training.lanes import Lanes
from vae.training.module import Stepped, VAEModule
from vae.training.run import train_run
from vae.training.together import Together

Compose = Callable[..., dict[str, Any]]

NOISY = 1e-6  # of the few random images, whose gradients Adam makes large where they are nothing but rounding
SMALL = ("trainer.precision=64-true", "data.limit=120", "figures=none", "evaluate=none")


@pytest.fixture
def config(image_run: Compose) -> Compose:
    return partial(image_run, "epochs=2", "trainer.log_every_n_steps=2", "figures=none", "trainer.precision=64-true")


def train(configs: Sequence[dict[str, Any]], folder: Path, at_once: int | None = None) -> list[Any]:
    """Together; what comes out of each, which is left in folders of their numbers."""
    return Lanes(at_once).train([partial(train_run, each, made(folder / str(i))) for i, each in enumerate(configs)])


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def assert_as_alone(
    configs: Sequence[dict[str, Any]], folder: Path, found: Sequence[Any], tolerance: float = 1e-9
) -> None:
    for i, (each, metrics) in enumerate(zip(configs, found, strict=True)):
        assert isinstance(metrics, dict), metrics
        expected = train_run(each, made(folder / f"{i} alone"))
        assert numbers(metrics) == pytest.approx(numbers(expected), rel=tolerance, abs=tolerance)
        own, other = (weights(folder / name) for name in (str(i), f"{i} alone"))
        for name, value in own["state_dict"].items():
            assert torch.allclose(value, other["state_dict"][name], rtol=1e-6, atol=10 * tolerance), name
        assert own["callbacks"].keys() == other["callbacks"].keys()


def varied(compose: Compose, words: Sequence[str]) -> list[dict[str, Any]]:
    """Three runs of different seeds and rates, and where there is one of different β."""
    configs = [compose(*words, f"seed={seed}") for seed in range(3)]
    for i, each in enumerate(configs):
        each["optimizer"]["lr"] *= 1 + i / 2
        if "beta" in each["objective"]:
            each["beta"] = each["objective"]["beta"] = 1.0 + i
    return configs


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_A_STEP)
def test_runs_come_out_together_as_alone(name: str, compose: Compose, tmp_path: Path) -> None:
    configs = varied(compose, overrides(name, *SMALL))
    if why_alone(configs[0]):
        pytest.skip(why_alone(configs[0]))
    assert in_groups(configs) == ([[0, 1, 2]], [])
    assert_as_alone(configs, tmp_path, train(configs, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["dense", "conv"])
def test_eight_runs_of_single_precision_are_close_after_an_epoch(
    backbone: str, compose: Compose, tmp_path: Path
) -> None:
    images = 6000 if backbone == "dense" else 3000
    small = (f"backbone={backbone}", "data=strokes", f"data.limit={images}", "epochs=1", "figures=none")
    words = (*small, "optimizer.lr=2e-4")  # at five times that rounding grows to tenths of a nat, as by other threads
    configs = [compose(*words, f"seed={seed}", f"beta={beta}") for seed in range(2) for beta in (0.5, 1, 2, 4)]
    for i, metrics in enumerate(train(configs, tmp_path)):
        alone = train_run(configs[i], made(tmp_path / f"{i} alone"))
        assert metrics["test/total"] == pytest.approx(alone["test/total"], abs=0.02)


@pytest.mark.slow
def test_runs_of_other_lengths_and_schedules_go_together(config: Compose, tmp_path: Path) -> None:
    annealed = ("objective.annealing=linear", "objective.warmup=2")
    covariance = "prior.covariance=[[2.0,-0.7],[-0.7,1.5]]"
    configs = [
        config("prior=correlated", "epochs=3", "scheduler=cosine", *annealed),
        config("prior=correlated", "epochs=1", "ema=0.9", "seed=3", covariance),
        config("prior=correlated", "epochs=2", "optimizer=adamw", "report=last"),
    ]
    assert in_groups(configs) == ([[0, 1, 2]], [])
    assert_as_alone(configs, tmp_path, train(configs, tmp_path), NOISY)


def test_a_run_that_is_no_longer_finite_fails_alone(config: Compose, tmp_path: Path) -> None:
    configs = [config("optimizer.lr=1e30"), config("seed=1"), config("seed=2")]
    failed, *others = train(configs, tmp_path)
    assert isinstance(failed, Exception) and "no longer finite" in str(failed)
    for i, metrics in enumerate(others, start=1):
        assert numbers(metrics) == pytest.approx(
            numbers(train_run(configs[i], made(tmp_path / f"{i} alone"))), rel=1e-9
        )


@pytest.mark.slow
def test_a_run_that_has_begun_elsewhere_finds_its_place(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [config("seed=1", "ema=0.5"), config("seed=2"), config("seed=3")]
    train_until(3, configs[0], made(tmp_path / "0"), monkeypatch)
    assert_as_alone(configs, tmp_path, train(configs, tmp_path), NOISY)


def test_a_signal_stops_all_after_the_step_and_they_go_on(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [config("seed=1"), config("seed=2"), config("seed=3")]
    original = Scalars.on_step_end

    def interrupt(self: Scalars, trainer: Any, pl_module: VAEModule, stepped: Stepped) -> None:
        original(self, trainer, pl_module, stepped)
        if pl_module.steps_taken == 4 and signals.received() is None:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(Interrupted), signals.listening():
        patch.setattr(Scalars, "on_step_end", interrupt)
        train(configs, tmp_path)
    assert [weights(tmp_path / str(i))["global_step"] for i in range(3)] == [4, 4, 4]
    assert_as_alone(configs, tmp_path, train(configs, tmp_path), NOISY)


@pytest.mark.slow
def test_an_error_that_all_have_is_each_ones_own(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where steps cannot be taken together, or one of them cannot be taken at all, the others are taken alone."""

    def refuse(*_: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(Together, "__call__", refuse)
    configs = [config("seed=1"), config("seed=2")]
    assert_as_alone(configs, tmp_path, train(configs, tmp_path), NOISY)
    assert caplog.messages.count("taken one by one, because together they fail: no such kernel") == 1


@pytest.mark.slow
def test_without_the_one_that_was_to_blame_the_others_are_together_again(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    call = Together.__call__

    def refuse(self: Together, *step: Any) -> Any:
        if len(self.members) == 3:
            raise RuntimeError("its covariance is no longer finite")
        taken.append(len(self.members))
        return call(self, *step)

    monkeypatch.setattr(Together, "__call__", refuse)
    failed, *others = train([config("optimizer.lr=1e30"), config("seed=1"), config("seed=2")], tmp_path)
    assert isinstance(failed, Exception) and all(isinstance(each, dict) for each in others)
    assert len(taken) > 10 and {*taken} == {2}


def test_what_a_run_logs_is_in_its_own_file(config: Compose, tmp_path: Path) -> None:
    from vae.runs.record import recorded

    def job(settings: dict[str, Any], folder: Path) -> None:
        with recorded(folder, settings):
            train_run(settings, folder)

    configs = [config("seed=1"), config("seed=2")]
    logging.getLogger("vae").setLevel(logging.INFO)
    Lanes().train([partial(job, each, made(tmp_path / str(i))) for i, each in enumerate(configs)])
    for i in range(2):
        text = (tmp_path / str(i) / "train.log").read_text()
        assert text.count("epoch 1/2") == text.count("epoch 2/2") == 1
        with (tmp_path / str(i) / "history.csv").open() as file:
            last = list(csv.DictReader(file))[-1]
        assert f"{float(last['val/total']):.2f}" in text


@pytest.mark.slow
def test_as_many_are_trained_at_a_time_as_there_is_room_for(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    counts = []
    hold = lanes.Meetings.hold
    monkeypatch.setattr(lanes.Meetings, "hold", lambda self: (counts.append(len(self.lanes)), hold(self)))
    configs = [config("epochs=1", f"seed={seed}") for seed in range(3)]
    found = train(configs, tmp_path / "asked", at_once=2)
    assert counts == [2, 1]
    with caplog.at_level(logging.INFO):
        monkeypatch.setattr(lanes, "free_memory", lambda: 200_000_000)
        assert [numbers(each) for each in train(configs, tmp_path / "little")] == [numbers(each) for each in found]
    assert len(counts) > 3 and f"{counts[2]} of 3 at a time" in caplog.messages
    assert len(train([], tmp_path)) == 0
