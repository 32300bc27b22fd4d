"""The moving average of the weights beside its sum written out, and a run with it beside one without."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trained_runs import train_until, weights

import vae
from vae.model.checkpoints import model_weights
from vae.training import run
from vae.training.callbacks.average import Average

Compose = Callable[..., dict[str, Any]]

OPTIMAL = ["likelihood=gaussian", "likelihood.sigma=optimal"]  # has buffers


@pytest.fixture
def config(image_run: Compose) -> Compose:
    """A run of 14 steps in doubles."""
    return partial(image_run, "epochs=2", "figures=none", "trainer.precision=64-true", *OPTIMAL)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """The weights as they are trained: at the start and after every step."""
    found: list[list[Tensor]] = []

    def noted(original: Callable[..., None]) -> Callable[..., None]:
        def note(self: Average, *arguments: Any) -> None:
            original(self, *arguments)
            found.append([weight.detach().clone() for weight in self.weights])

        return note

    monkeypatch.setattr(Average, "on_train_start", noted(Average.on_train_start))
    monkeypatch.setattr(Average, "on_step_end", noted(Average.on_step_end))
    return found


def averages(seen: list[list[Tensor]], decay: float) -> list[Tensor]:
    """Σ_t (1 − d_t) Π_{s>t} d_s w_t, where w_0 has the share Π d_s."""
    decays = [0.0, *(min(decay, (1 + step) / (10 + step)) for step in range(1, len(seen)))]
    shares = [(1 - each) * math.prod(decays[step + 1 :]) for step, each in enumerate(decays)]
    assert sum(shares) == pytest.approx(1)
    column = torch.tensor(shares, dtype=torch.float64)
    return [torch.tensordot(column, torch.stack(course), 1) for course in zip(*seen, strict=True)]


def assert_holds_averages(checkpoint: dict[str, Any], folder: Path, seen: list[list[Tensor]], decay: float) -> None:
    """The model's weights are the averages, and those of the last step stand beside them."""
    names = [name for name, _ in vae.load(folder).vae.named_parameters()]
    found = [model_weights(checkpoint)[name] for name in names]
    for weight, expected, trained in zip(found, averages(seen, decay), seen[-1], strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-10, atol=1e-12)
        assert not torch.equal(weight, trained)
    assert all(torch.equal(*pair) for pair in zip(checkpoint["callbacks"]["Average"]["trained"], seen[-1], strict=True))


@pytest.mark.parametrize("decay", [0.3, 0.99], ids=["mostly constant", "warming up"])
def test_the_average_is_the_weighted_sum_of_all_steps(
    config: Compose, tmp_path: Path, seen: list[list[Tensor]], decay: float
) -> None:
    run.train_run(config(f"ema={decay}"), tmp_path)
    assert len(seen) == 15
    assert_holds_averages(weights(tmp_path), tmp_path, seen, decay)


def test_a_run_stopped_within_an_epoch_keeps_both(
    config: Compose, tmp_path: Path, seen: list[list[Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_until(9, config("ema=0.3"), tmp_path, monkeypatch)
    assert len(seen) == 10
    assert_holds_averages(weights(tmp_path), tmp_path, seen, 0.3)


def test_the_averages_are_validated_and_reported_and_change_no_step(config: Compose, tmp_path: Path) -> None:
    metrics = run.train_run(config("ema=0.9"), tmp_path / "averaged")
    run.train_run(config(), tmp_path / "plain")
    averaged, plain = weights(tmp_path / "averaged"), weights(tmp_path / "plain")
    trained, same = iter(averaged["callbacks"]["Average"]["trained"]), model_weights(plain)
    parameters = {name for name, _ in vae.load(tmp_path / "plain").vae.named_parameters()}
    for name, value in model_weights(averaged).items():
        if name in parameters:
            assert torch.equal(next(trained), same[name]) and not torch.equal(value, same[name])
        else:
            assert torch.equal(value, same[name])  # a buffer
    rows = [content["callbacks"]["Scalars"]["history"] for content in (averaged, plain)]
    for row, other in zip(*rows, strict=True):
        assert row["train/total"] == other["train/total"] and row["val/total"] != other["val/total"]
    best = min(rows[0], key=lambda row: row["val/loss"])
    assert metrics["val/total"] == pytest.approx(best["val/total"], rel=1e-5)


@pytest.mark.parametrize("report", ["best", "last"])
def test_the_closing_table_says_that_weights_are_averaged(
    config: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture, report: str
) -> None:
    with caplog.at_level("INFO", "vae"):
        run.train_run(config("ema=0.9", f"report={report}"), tmp_path)
    assert "averaged weights of epoch" in caplog.text
