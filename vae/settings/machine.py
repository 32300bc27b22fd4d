"""What a configuration needs of the machine: its files, devices and packages. Imports no torch."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vae.settings.classes import ranges_of
from vae.settings.config import plain
from vae.settings.errors import in_one_line, require_packages
from vae.settings.rules import require

VisibleGPUs = Callable[[], list[str]]
Node = Mapping[str, Any]

PACKAGES = {"MLFlowLogger": "mlflow", "WandbLogger": "wandb"}  # that loggers need, and the extras of these names
CELEBA = "img_align_celeba"  # the folder of its images, and the names of the list that says which part each is in
PARTITIONS = ("list_eval_partition.txt", "list_eval_partition.csv")
_FILES = {"vae.data.factors.FactorFile": "images and factors", "vae.data.arrays.ArrayFile": "images"}


def check_machine(cfg: DictConfig, gpus: VisibleGPUs) -> None:
    """Refuse a checked configuration that cannot be trained on this machine: a file, device or package is missing."""
    config = plain(cfg)
    if ranges_of("data", config["data"]) is not None:
        _check_files(config["data"])
    for key, path in (("parent", config["parent"]), ("objective.teacher", config["objective"].get("teacher"))):
        if path is not None:
            found = _expanded(key, path).exists()
            require(found, key, path, "the folder of a run or a checkpoint file, but there is no such file")
    if ranges_of("trainer", config["trainer"]) is not None:
        _check_devices(config["trainer"], gpus)
    for name, node in config["logger"].items():
        if package := PACKAGES.get(node["_target_"].rpartition(".")[2]):
            with in_one_line(f"logger.{name}: "):
                require_packages(package, package)


def _check_files(node: Node) -> None:
    root = node["root"]
    folder = _expanded("data.root", root)
    require(folder.is_dir() or not folder.exists(), "data.root", root, "a folder, but it is a file")
    if node["_target_"] == "vae.data.images.ImageFolder":
        found = folder.is_dir() and any(folder.iterdir())
        require(found, "data.root", root, "a folder of images, but there is no such folder or it is empty")
    if node["_target_"] == "vae.data.celeba.CelebA":
        celeba_at(folder)
    what = _FILES.get(node["_target_"])
    if what is not None:
        path = folder / _expanded("data.file", node["file"])
        allowed = f"an .npz file of {what}, but there is no file {path}"
        require(path.is_file(), "data.file", node["file"], allowed)


def celeba_at(root: Path) -> tuple[Path, Path]:
    """CelebA's folder of images, in `<root>/celeba/` or in `root` itself, and the list of parts beside it."""
    for folder in (root / "celeba", root):
        listed = [folder / name for name in PARTITIONS if (folder / name).is_file()]
        if listed and (folder / CELEBA).is_dir():
            return folder / CELEBA, listed[0]
    raise ValueError(
        f"data.root={root}: must be a folder in which celeba/{CELEBA}/ and celeba/{PARTITIONS[0]} are; "
        f"mmlab.ie.cuhk.edu.hk/projects/CelebA.html has them, as Img/{CELEBA}.zip and Eval/{PARTITIONS[0]}"
    )


def _expanded(key: str, path: str) -> Path:
    """The path without ~, as the data sources make it; refuse one that cannot be looked at."""
    try:
        found = Path(path).expanduser()
        found.exists()
    except (OSError, RuntimeError) as error:  # too long a name, or an unknown user
        why = error.strerror if isinstance(error, OSError) else "there is no such user"
        raise ValueError(f"{key}={path}: must be a path that can be looked at ({why})") from None
    return found


def _check_devices(node: Node, gpus: VisibleGPUs) -> None:
    accelerator, devices, precision = node["accelerator"], node["devices"], node["precision"]
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return  # no other GPU than Apple's, which PyTorch knows best
    require(accelerator != "mps", "trainer.accelerator", accelerator, "auto or cpu: Apple's GPUs are not here")
    if accelerator == "auto" and devices in (1, "auto") and "16" not in precision:
        return  # right on every machine; to look for GPUs would take a while
    count = 0 if accelerator == "cpu" else len(gpus())
    if not count:
        asks_for_none = accelerator in ("auto", "cpu")
        require(asks_for_none, "trainer.accelerator", accelerator, "auto or cpu, as there is no GPU")
        is_count = not isinstance(devices, list)
        require(is_count, "trainer.devices", devices, "a number of processes on a CPU, which has no indices")
        allowed = "32-true or 64-true on a CPU, where 16 bits are slow"
        require("16" not in precision, "trainer.precision", precision, allowed)
    elif isinstance(devices, list):
        require(max(devices) < count, "trainer.devices", devices, f"indices from 0 to {count - 1}")
    elif devices != "auto":
        require(devices <= count, "trainer.devices", devices, f"at most {count}, the GPUs that there are")
