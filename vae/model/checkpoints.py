"""Checkpoint files: written atomically, loaded without running any code, self-describing."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import reprlib
import warnings
import zipfile
from collections.abc import Callable, Mapping
from itertools import islice
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from vae.common.files import replacing
from vae.common.types import WEIGHTS
from vae.data.base import Dataset
from vae.model.build import (
    stored_bytes,
)
from vae.model.contents import is_count, refuse_unfolding, refuse_wrong_content
from vae.settings.errors import explain, in_one_line, require_packages

FORMAT = 1  # of what `about` returns; raise it, with a step in MIGRATIONS, when the program needs what older files lack

# Far more than any run writes, and little enough to be refused before it takes memory or minutes.
MOST_RECORDS = 2**16  # of the archive that a file is: a tensor each
MOST_PLAIN = 2**24  # bytes of what is no tensor
MOST_OPERATIONS = 2**21  # that make it: the losses of 50,000 epochs
BULKY = "besides weights it holds more than a checkpoint does"

PREFIX = "vae."  # of the model's weights among those of the LightningModule
SAFETENSORS = ".safetensors"

About = dict[str, Any]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's files, but whole or absent: a killed process leaves the previous checkpoint, never half a new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with replacing(path) as temporary:
            save(_alone(checkpoint), temporary)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Never runs code from the file, whatever Lightning asks for: its releases before 2.6 ask for everything."""
        return torch.load(path, map_location=map_location, weights_only=True)


def _alone(content: Any) -> Any:
    """The content with copies of tensors that are parts of others, which torch would write whole."""
    if isinstance(content, torch.Tensor):
        return content if content.nbytes == content.untyped_storage().nbytes() else content.clone()
    if isinstance(content, dict):
        return {key: _alone(value) for key, value in content.items()}
    return type(content)(map(_alone, content)) if type(content) in (list, tuple) else content


def save(content: Mapping[str, Any], path: Path) -> None:
    """Write a file of torch's; where the disk is full, say so."""
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # torch goes on to end the file that could not be written, and complains of that alone.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


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

    Without these it is what was kept of one as `weights.ckpt`. A file is taken for itself.
    """
    file = run / "checkpoints" / "best.ckpt" if run.is_dir() else run
    if run.is_dir() and not file.is_file():
        others = (file.with_name("last.ckpt"), run / WEIGHTS)
        file = next((other for other in others if other.is_file()), file)
    if not file.is_file():
        raise ValueError(f"{run}: must be the folder of a run or a checkpoint file, but there is no {file}")
    return file


def folder_of(file: Path) -> Path:
    """The run's folder, for a checkpoint of a run; else the one that the file is in."""
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent


def read(file: Path) -> dict[str, Any]:
    """The content of a checkpoint file of this program, brought to this format; refuses anything else in one line."""
    if file.suffix == SAFETENSORS:
        require_packages("export", "safetensors")
    try:
        checkpoint = _from_safetensors(file) if file.suffix == SAFETENSORS else _from_torch(file)
    except Exception as error:  # foreign bytes can fail in any way
        reason = explain(error)
        if isinstance(error, pickle.UnpicklingError):  # torch's own words say how to run the file
            reason = "it holds more than weights and plain values, and is not run"
        raise ValueError(f"{file}: not a readable checkpoint ({reason})") from error
    if not (isinstance(checkpoint, dict) and isinstance(checkpoint.get("vae"), dict) and "format" in checkpoint["vae"]):
        raise ValueError(f"{file}: a checkpoint of another program")
    with in_one_line(f"{file}: "):
        checkpoint["vae"] = _of_this_format(checkpoint["vae"])
        refuse_wrong_content(checkpoint)
        if stored_bytes(checkpoint["state_dict"]) > file.stat().st_size:
            raise ValueError("its weights are more than the file holds")
    return checkpoint


def _from_torch(file: Path) -> Any:
    with file.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as content:
        # Counted first, because zipfile would make an object of each.
        if _count(b"PK\x01\x02", content, MOST_RECORDS) > MOST_RECORDS:
            raise ValueError(f"more than {MOST_RECORDS:,} records")
    with zipfile.ZipFile(file) as parts:
        records = parts.infolist()
        if any(record.file_size != record.compress_size or record.compress_type for record in records):
            raise ValueError("its records are packed, which torch does not do")
        if sum(record.file_size for record in records) > file.stat().st_size:
            raise ValueError("its records overlap")
        damaged = parts.testzip()  # torch itself would take changed bytes for weights
        if damaged is not None:
            raise ValueError(f"{damaged} is damaged")
        for record in records:
            is_small = record.file_size <= MOST_PLAIN
            if record.filename.endswith(".pkl") and not (is_small and _is_quickly_read(parts.read(record))):
                raise ValueError(BULKY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about kinds of tensors that are refused
        return torch.load(file, map_location="cpu", weights_only=True)


def _count(pattern: bytes, content: bytes | mmap, most: int) -> int:
    """How often it is there, or one more than `most`."""
    return sum(1 for _ in islice(re.finditer(pattern, content, re.DOTALL), most + 1))


def _is_quickly_read(pickled: bytes) -> bool:
    """Whether a pickle has so few operations that torch, which needs microseconds for each, makes no list of millions.

    Letters of texts are counted as if each was an operation.
    """
    return _count(rb"G.{8}|[Jjr].{4}|M..|[Khq].|.", pickled, MOST_OPERATIONS) <= MOST_OPERATIONS


def _from_safetensors(file: Path) -> Any:
    from safetensors import safe_open

    with safe_open(file, "pt") as content:
        told = content.metadata() or {}
        if "checkpoint" not in told:
            return None
        if len(told["checkpoint"]) > MOST_PLAIN:
            raise ValueError(BULKY)
        weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (it is no dict)
    if told.get("sha256") != _digest(weights):
        raise ValueError("its weights are damaged")
    told = json.loads(told["checkpoint"])
    return told | {"state_dict": {f"{PREFIX}{name}": each for name, each in weights.items()}}


def _of_this_format(about: About) -> About:
    """What a checkpoint says of itself, as this version would say it."""
    refuse_unfolding("vae", about)
    found = about["format"]
    if not is_count(found, 1):
        raise ValueError(f"vae.format={reprlib.repr(found)}: must be an integer of at least 1")
    if found > FORMAT:
        raise ValueError(f"written by a newer version (format {found}, this version reads up to {FORMAT})")
    for older in range(found, FORMAT):
        about = MIGRATIONS[older](about) | {"format": older + 1}
    return about


def write_weights(checkpoint: Mapping[str, Any], file: Path, told: Mapping[str, str] | None = None) -> None:
    """What `vae.load` needs of a checkpoint, without the optimiser's state; as safetensors where `file` is called so.

    Their metadata are `told` and, as JSON, the rest of such a checkpoint.
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
            save(kept | {"state_dict": state}, temporary)


def halved(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The same with weights of 16 bits; a model that is loaded from it computes with 32."""
    weights = checkpoint["state_dict"]
    half = {name: each.half() if each.is_floating_point() else each for name, each in weights.items()}
    return {**checkpoint, "state_dict": half}


def _digest(weights: Mapping[str, torch.Tensor]) -> str:
    """Of names and values, because safetensors would take changed bytes for weights."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def model_weights(checkpoint: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of the `VAE` out of those of the LightningModule around it."""
    weights = checkpoint["state_dict"]
    return {name.removeprefix(PREFIX): weight for name, weight in weights.items() if name.startswith(PREFIX)}
