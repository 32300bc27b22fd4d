"""Make a smaller model of a trained one: prune its units and channels, or distil it into another network."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import installed  # noqa: F401

from vae.common.files import in_shell, read_json
from vae.common.tables import Table
from vae.common.types import TERMS
from vae.entry import programs
from vae.entry.programs import TRAIN
from vae.settings.errors import in_one_line

if TYPE_CHECKING:
    from vae.data.base import Split
    from vae.use.trained import Trained

DISTILLATION = "vae.model.distillation.Distillation"
COSINE = "vae.training.schedulers.cosine"
IMAGES = 500  # training images, by which units are chosen
STAMP = re.compile(r"^\d\d-\d\d-\d\d-\d+_?")  # of a run's folder
EPOCHS, LR, WARMUP = 100, 2e-3, 0.02  # small networks take a higher rate, which has to end low

EXAMPLES = """
examples:
  python scripts/compress.py outputs/runs/2030-01-01/12-00-00-000000 --to 100kB
  python scripts/compress.py outputs/runs/2030-01-01/12-00-00-000000 --sparsity 0.9
  python scripts/compress.py outputs/runs/2030-01-01/12-00-00-000000 --student hidden=[64,32]

  --to        prunes to so many bytes in C with 8 bits, and trains on by the run's own objective
  --sparsity  prunes this share of the parameters, and trains on in the same way
  --student   begins anew with other keys of the backbone, and has the run as its teacher

Units and channels are kept by their effect on the bound. What comes out is a run like any other.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Compress what the command line asks for."""
    programs.run(compress, _parser().parse_args(arguments))


def compress(
    run: Path,
    to: str | None,
    sparsity: float | None,
    student: Sequence[str] | None,
    epochs: int,
    out: Path | None,
    data_root: str | None,
) -> None:
    """Train the smaller run, and print it beside its parent."""
    from vae.model import checkpoints, restored
    from vae.settings.again import overrides_for
    from vae.settings.config import is_at_mean, quoted
    from vae.use.compression import bytes_of, runs_in_c
    from vae.use.trained import Trained, load

    most = bytes_of(to) if to is not None else None
    checkpoint = checkpoints.read(file := checkpoints.file_of(run))
    about = checkpoint["vae"]
    parent = Trained(restored.model_of(checkpoint), about)
    if student and is_at_mean(parent.config):
        raise ValueError(f"{run}: must have a posterior to learn from, which an autoencoder has not; use --sparsity")
    path = _as_typed(run)
    asked = ",".join(student) if student else f"to={to}" if to is not None else f"sparsity={sparsity:g}"
    out = (out or _new_folder(checkpoints.folder_of(file).resolve().name, asked)).absolute()

    config = _of_short_training(about["config"], epochs, data_root)
    if student:
        config["objective"] = {"_target_": DISTILLATION, "beta": config["beta"], "teacher": path, "weight": 1.0}
    else:
        some = restored.data_of(about, data_root)[1].train.some(IMAGES)
        with in_one_line(f"--{asked.replace('=', ' ')}: "):
            config |= {"backbone": _narrowed(parent, about, some, most, sparsity), "parent": path}
    overrides = [*overrides_for(config), *(f"backbone.{each}" for each in student or ())]
    if status := programs.run_train_py([*overrides, f"hydra.run.dir={quoted(str(out))}"]):
        sys.exit(status)
    print(_beside(checkpoints.folder_of(file), parent, out, load(out)).text())
    print(f"export     python scripts/export.py {in_shell(out)}{' --to c --int8' * runs_in_c(parent)}")


def _narrowed(
    parent: Trained, about: Mapping[str, Any], some: Split, most: int | None, sparsity: float | None
) -> Mapping[str, Any]:
    """The backbone with as many units and channels as were asked for."""
    from vae.use.compression import bytes_in_8_bits, narrowed, parameters_of

    size, limit = (
        (bytes_in_8_bits, most) if most is not None else (parameters_of, (1 - (sparsity or 0)) * parameters_of(parent))
    )
    return narrowed(parent, about, some.images / 255, some.labels, limit, size)


def _of_short_training(config: Mapping[str, Any], epochs: int, data_root: str | None) -> dict[str, Any]:
    """The same run, but for how long it is trained and how fast, and without a film."""
    from vae.data.base import DEFAULT_ROOT

    data = {key: value for key, value in config["data"].items() if (key, value) != ("root", DEFAULT_ROOT)}
    if root := data_root or data.get("root"):
        data["root"] = str(Path(root).expanduser().absolute())  # train.py runs elsewhere
    changes = {
        "data": data,
        "optimizer": config["optimizer"] | {"lr": LR},
        "scheduler": {"_target_": COSINE, "_partial_": True, "warmup": WARMUP},
        "trainer": config["trainer"] | {"max_epochs": epochs},
        "figures": config["figures"] | ({"film": False} if "film" in config["figures"] else {}),
    }
    return {**config, **changes, "epochs": epochs, "parent": None}


def _as_typed(run: Path) -> str:
    """The run's path from where train.py runs, without a way above it."""
    absolute = run.resolve()
    return str(absolute.relative_to(TRAIN.parent) if absolute.is_relative_to(TRAIN.parent) else absolute)


def _new_folder(parent: str, asked: str) -> Path:
    """A run's folder of this moment, named after its parent without that one's moment."""
    now = datetime.now()
    name = "_".join(filter(None, (STAMP.sub("", parent), asked)))
    return Path(f"outputs/runs/{now:%Y-%m-%d}/{now:%H-%M-%S-%f}_{name}")


def _beside(folder: Path, parent: Trained, out: Path, child: Trained) -> Table:
    """Both runs' totals on the test images, and their sizes."""
    from vae.use.compression import bytes_in_8_bits, parameters_of, runs_in_c

    rows = []
    for name, where, model in (("parent", folder, parent), ("smaller", out, child)):
        metrics = read_json(where / "metrics.json") or {}
        totals = {term: metrics.get(f"test/{term}") for term in TERMS}
        size = bytes_in_8_bits(model) if runs_in_c(model) else None
        rows.append({"": name, **totals, "parameters": parameters_of(model), "bytes in 8 bits": size})
    return Table([], list(rows[0]), rows, ["nats an image of the test set; bytes of the program in C, about"])


def _sparsity(text: str) -> float:
    """A type of arguments."""
    try:
        if 0 <= (share := float(text)) < 1:
            return share
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text}: must be a number from 0 to 1, without 1 itself")


def _parser() -> argparse.ArgumentParser:
    parser = programs.described("compress.py", __doc__, EXAMPLES)
    parser.add_argument("run", type=Path, help="the folder of a run (its reported weights) or a checkpoint file")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--to", metavar="SIZE", help="bytes of the program in C with 8 bits, such as 100kB")
    how.add_argument("--sparsity", type=_sparsity, metavar="SHARE", help="of the parameters that go, such as 0.9")
    how.add_argument("--student", nargs="+", metavar="KEY=VALUE", help="keys of the backbone, such as hidden=[64,32]")
    parser.add_argument("--epochs", type=programs.positive, default=EPOCHS, help=f"of training ({EPOCHS})")
    parser.add_argument("--out", type=Path, help="the new run's folder (a new one under outputs/runs)")
    parser.add_argument("--data-root", help="where the data are, if not where they were")
    return parser


if __name__ == "__main__":
    main()
