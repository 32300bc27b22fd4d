"""Runs that are stopped, and what two left in their folders, compared."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from vae.common import signals
from vae.common.signals import Interrupted
from vae.training import run
from vae.training.callbacks.scalars import Scalars
from vae.training.module import Stepped, VAEModule


def weights(folder: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def train_until(
    step: int,
    config: Mapping[str, Any],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    train: Callable[..., object] = run.train_run,
) -> None:
    """Train, with Ctrl+C in this step."""
    original = Scalars.on_step_end

    def interrupt(self: Scalars, trainer: Any, pl_module: VAEModule, stepped: Stepped) -> None:
        original(self, trainer, pl_module, stepped)
        if pl_module.steps_taken == step:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(Interrupted), signals.listening():
        patch.setattr(Scalars, "on_step_end", interrupt)
        train(config, folder)
    assert weights(folder)["global_step"] == step


def without_seconds(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if not name.startswith("seconds/")}


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """What is measured, without words and seconds."""
    return {name: value for name, value in without_seconds(metrics).items() if isinstance(value, int | float)}


def assert_same_training(a: Path, b: Path) -> None:
    """Weights, optimiser, schedule and history are the same to the last bit."""
    first, second = weights(a), weights(b)
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name
    for index, state in first["optimizer_states"][0]["state"].items():
        for key, value in state.items():
            assert torch.equal(value, second["optimizer_states"][0]["state"][index][key])
    trained = [content["callbacks"].get("Average", {}).get("trained", []) for content in (first, second)]
    assert all(torch.equal(*pair) for pair in zip(*trained, strict=True))
    assert first["lr_schedulers"] == second["lr_schedulers"]
    assert first["global_step"] == second["global_step"]
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in c["callbacks"]["Scalars"]["history"]]
            for c in (first, second)]  # fmt: skip
    assert rows[0] == rows[1]
