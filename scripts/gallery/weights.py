"""The weights of an example, in as few bytes as leave its figures as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vae.common.seeding import derive
from vae.data.base import DEFAULT_ROOT
from vae.data.loader import evaluation_loader
from vae.evaluation.terms import mean_terms
from vae.model import checkpoints, restored

MOST_CHANGE = 0.01  # nats of the test total


def keep_weights(run: Path, target: Path) -> None:
    """Write a run's reported weights for `vae.load`, of 16 bits unless these change the total."""
    checkpoint = checkpoints.read(checkpoints.file_of(run))
    half = checkpoints.halved(checkpoint)
    change = total_of(half) - total_of(checkpoint)
    is_enough = abs(change) < MOST_CHANGE
    kept = half if is_enough else checkpoint
    checkpoints.write_weights(_anywhere(kept), target)
    size = target.stat().st_size / 1e6
    print(f"weights of {16 if is_enough else 32} bits, {size:.1f} MB; 16 bits change the total by {change:+.4f} nats")


def total_of(checkpoint: Mapping[str, Any]) -> float:
    """Test total of the weights in a checkpoint, in nats, with the same draws of z for all."""
    about = checkpoint["vae"]
    source, data = restored.data_of(about)
    torch.manual_seed(derive(about["config"]["seed"], "test"))
    return mean_terms(restored.model_of(checkpoint), evaluation_loader(source, data.test, "test"))["total"]


def _anywhere(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The same without the place of the data on this machine."""
    about = checkpoint["vae"]
    config = about["config"]
    data = {**config["data"], "root": DEFAULT_ROOT}
    return {**checkpoint, "vae": {**about, "config": {**config, "data": data}}}
