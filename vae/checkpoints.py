"""Checkpoint files: written atomically, loaded without running any code, self-describing."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from vae.build import build, build_model, is_own, refuse_foreign_classes, targets
from vae.data.base import Dataset, DataSource
from vae.errors import require_packages
from vae.files import replacing
from vae.model import VAE

FORMAT = 2  # of what `about` returns; raise it, with a step in MIGRATIONS, when the program needs what older files lack

PREFIX = "vae."  # of the model's weights among those of the LightningModule
SAFETENSORS = ".safetensors"

About = dict[str, Any]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's files, but whole or absent: a killed process leaves the previous checkpoint, never half a new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with replacing(path) as temporary:
            torch.save(checkpoint, temporary)


MIGRATIONS: dict[int, Callable[[About], About]] = {}  # from each older format that was released to the next one


def about(config: Mapping[str, Any], data: Dataset) -> About:
    """What a checkpoint says of itself, in plain types only, so that `weights_only=True` can load it."""
    return {
        "format": FORMAT,
        "config": dict(config),
        "shape": list(data.shape),
        "data": data.name,
        "classes": list(data.classes),
    }


def file_of(run: Path) -> Path:
    """The reported checkpoint of a run's folder, the best one or, of a run with report=last, the last one.

    A file is taken for itself.
    """
    file = run / "checkpoints" / "best.ckpt" if run.is_dir() else run
    if run.is_dir() and not file.is_file() and file.with_name("last.ckpt").is_file():
        file = file.with_name("last.ckpt")
    if not file.is_file():
        raise ValueError(f"{run}: must be the folder of a run or a checkpoint file, but there is no {file}")
    return file


def folder_of(file: Path) -> Path:
    """The run's folder, for a checkpoint of a run; else the one that the file is in."""
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent


def model_of(checkpoint: Mapping[str, Any], trust: bool = False) -> VAE:
    """The trained model in the content of a checkpoint, on the CPU; for `trust` see `vae.load`."""
    if not trust:
        refuse_foreign_classes(checkpoint["vae"]["config"])
    channels, height, width = checkpoint["vae"]["shape"]
    model = build_model(checkpoint["vae"]["config"], (channels, height, width), len(checkpoint["vae"]["classes"]))
    try:
        model.load_state_dict(model_weights(checkpoint))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the checkpoint's weights are not those of its configuration ({reason:.200})") from error
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
    if list(data.classes) != about["classes"]:
        trained, now = (", ".join(classes[:12]) or "none" for classes in (about["classes"], data.classes))
        raise ValueError(
            f"the run was trained on classes {trained}, but its data now have {now}; "
            "say with --data-root where the data are"
        )
    return source, data


def read(file: Path) -> dict[str, Any]:
    """The content of a checkpoint file of this program, brought to this format; refuses anything else in one line."""
    if file.suffix == SAFETENSORS:
        require_packages("export", "safetensors")
    try:
        checkpoint = _from_safetensors(file) if file.suffix == SAFETENSORS else _from_torch(file)
    except Exception as error:  # foreign bytes can fail in any way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if isinstance(error, pickle.UnpicklingError):  # of which torch says how to run it
            reason = "it holds more than weights and plain values, and is not run"
        raise ValueError(f"{file}: not a readable checkpoint ({reason})") from error
    if not _is_ours(checkpoint):
        raise ValueError(f"{file}: a checkpoint of another program")
    found = checkpoint["vae"]["format"]
    if found > FORMAT:
        raise ValueError(f"{file}: written by a newer version (format {found}, this version reads up to {FORMAT})")
    for older in range(found, FORMAT):
        if older not in MIGRATIONS:
            raise ValueError(f"{file}: written by a version before the first release (format {found})")
        checkpoint["vae"] = MIGRATIONS[older](checkpoint["vae"]) | {"format": older + 1}
    return checkpoint


def _from_torch(file: Path) -> Any:
    with zipfile.ZipFile(file) as parts:
        damaged = parts.testzip()  # torch itself would take changed bytes for weights
    if damaged is not None:
        raise ValueError(f"{damaged} is damaged")
    return torch.load(file, map_location="cpu", weights_only=True)


def _from_safetensors(file: Path) -> Any:
    from safetensors import safe_open

    with safe_open(file, "pt") as content:
        told = content.metadata() or {}
        weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (it is no dict)
    if "checkpoint" not in told:
        return None
    if told["sha256"] != _digest(weights):
        raise ValueError("its weights are damaged")
    return json.loads(told["checkpoint"]) | {"state_dict": {f"{PREFIX}{name}": each for name, each in weights.items()}}


def write_weights(checkpoint: Mapping[str, Any], file: Path, told: Mapping[str, str] | None = None) -> None:
    """What `vae.load` needs of a checkpoint, without the optimiser's state; as safetensors where `file` is called so.

    Their metadata are what is `told` and, as JSON, what else is in such a checkpoint.
    """
    kept = {key: checkpoint[key] for key in ("vae", "epoch", "global_step")}
    weights = model_weights(checkpoint)
    with replacing(file) as temporary:
        if file.suffix == SAFETENSORS:
            from safetensors.torch import save_file

            metadata = {**(told or {}), "checkpoint": json.dumps(kept), "sha256": _digest(weights)}
            save_file({name: each.contiguous() for name, each in weights.items()}, temporary, metadata)
        else:
            state = {f"{PREFIX}{name}": each for name, each in weights.items()}
            torch.save(kept | {"state_dict": state}, temporary)


def _digest(weights: Mapping[str, torch.Tensor]) -> str:
    """Of names and values, because safetensors would take changed bytes for weights."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _is_ours(content: Any) -> bool:
    """Whether it has what checkpoints of every format have."""
    if not isinstance(content, dict) or not isinstance(content.get("vae"), dict):
        return False
    about = content["vae"]
    parts = {"backbone", "prior", "posterior", "likelihood"}
    return (
        content.keys() >= {"state_dict"}
        and about.keys() >= {"format", "config", "shape", "data", "classes"}
        and type(about["format"]) is int
        and about["format"] >= 1
        and isinstance(about["config"], dict)
        and about["config"].keys() >= parts
    )


def model_weights(checkpoint: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of the `VAE` out of those of the LightningModule around it."""
    weights = checkpoint["state_dict"]
    return {name.removeprefix(PREFIX): weight for name, weight in weights.items() if name.startswith(PREFIX)}
