"""Checkpoint files: written atomically, loaded without running any code, self-describing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from vae.build import build_model, refuse_foreign_classes
from vae.data.base import Dataset
from vae.files import replacing
from vae.model import VAE

FORMAT = 1  # of what `about` returns; raise it when older files need a migration


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's files, but whole or absent: a killed process leaves the previous checkpoint, never half a new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with replacing(path) as temporary:
            torch.save(checkpoint, temporary)


def about(config: Mapping[str, Any], data: Dataset) -> dict[str, Any]:
    """What a checkpoint says of itself, in plain types only, so that `weights_only=True` can load it."""
    return {
        "format": FORMAT,
        "config": dict(config),
        "shape": list(data.shape),
        "data": data.name,
        "classes": list(data.classes),
    }


def load(path: str | Path, trust: bool = False) -> VAE:
    """The trained model of a run folder (its best checkpoint) or of a checkpoint file, ready for use on the CPU.

    Never runs code from the file. Only classes of this package are built, unless `trust` allows others.
    """
    path = Path(path)
    file = path / "checkpoints" / "best.ckpt" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{path}: must be the folder of a run or a checkpoint file, but there is no {file}")
    checkpoint = read(file)
    if not trust:
        refuse_foreign_classes(checkpoint["vae"]["config"])
    channels, height, width = checkpoint["vae"]["shape"]
    model = build_model(checkpoint["vae"]["config"], (channels, height, width), len(checkpoint["vae"]["classes"]))
    model.load_state_dict(model_weights(checkpoint))
    return model.eval()


def read(file: Path) -> dict[str, Any]:
    """The content of a checkpoint file of this program; refuses anything else in one sentence."""
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # foreign bytes can fail in any way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{file}: not a readable checkpoint ({reason})") from error
    if not isinstance(checkpoint, dict) or "vae" not in checkpoint:
        raise ValueError(f"{file}: a checkpoint of another program")
    found = checkpoint["vae"]["format"]
    if found > FORMAT:
        raise ValueError(f"{file}: written by a newer version (format {found}, this version reads up to {FORMAT})")
    return checkpoint


def model_weights(checkpoint: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of the `VAE` out of those of the LightningModule around it."""
    prefix = "vae."
    weights = checkpoint["state_dict"]
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
