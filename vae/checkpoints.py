"""Checkpoint files: written atomically, loaded without running any code, self-describing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from vae.build import build, build_model, is_own, refuse_foreign_classes, targets
from vae.data.base import Dataset, DataSource
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
    return model_of(read(file_of(Path(path))), trust)


def file_of(run: Path) -> Path:
    """The best checkpoint of a run's folder; a file is taken for itself."""
    file = run / "checkpoints" / "best.ckpt" if run.is_dir() else run
    if not file.is_file():
        raise ValueError(f"{run}: must be the folder of a run or a checkpoint file, but there is no {file}")
    return file


def model_of(checkpoint: Mapping[str, Any], trust: bool = False) -> VAE:
    """The trained model in the content of a checkpoint, see `load`."""
    if not trust:
        refuse_foreign_classes(checkpoint["vae"]["config"])
    channels, height, width = checkpoint["vae"]["shape"]
    model = build_model(checkpoint["vae"]["config"], (channels, height, width), len(checkpoint["vae"]["classes"]))
    model.load_state_dict(model_weights(checkpoint))
    return model.eval()


def data_of(about: Mapping[str, Any], root: str | None = None, trust: bool = False) -> tuple[DataSource, Dataset]:
    """The source that a run was configured with and its data, which must be those that it was trained on."""
    config = dict(about["config"]["data"])
    target = str(config["_target_"])
    if not trust and not (list(targets(config)) == [target] and is_own(target, DataSource)):
        raise ValueError(f"the checkpoint asks for the data source {target}; use --trust if you trust the file")
    if root is not None:
        config["root"] = root
    source: DataSource = build({"data": config}, "data")
    data = source.load()
    if (data.name, list(data.shape)) != (about["data"], about["shape"]):
        raise ValueError(
            f"the run was trained on {about['data']}, but its configuration now gives {data.name}; "
            "say with --data-root where the data are"
        )
    return source, data


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
