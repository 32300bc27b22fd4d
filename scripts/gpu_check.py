"""Check the program on this machine's GPU, and measure it beside hand-written loops: some minutes, no network."""

from __future__ import annotations

import csv
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import installed  # noqa: F401
import torch
from benchmarks import common
from benchmarks.loops import HandGraph, HandLoop
from benchmarks.processes import ROOT, TRAIN, finished
from benchmarks.training import CASES, race

from vae.entry.programs import described
from vae.model.build import build
from vae.settings.compose import composed
from vae.settings.config import plain
from vae.training.lanes import Lanes
from vae.training.run import train_run

TOGETHER = 64  # runs

EXAMPLES = """
examples:
  python scripts/gpu_check.py                  tests and times
  python scripts/gpu_check.py times --epochs 3
  python scripts/gpu_check.py times --device cpu --images 2000 --epochs 2   what it does, without a GPU
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tests that need a GPU, then measure."""
    parser = described("gpu_check.py", __doc__, EXAMPLES)
    parser.add_argument("part", nargs="?", choices=["tests", "times"], help="one of the two; both if left out")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="(cuda)")
    parser.add_argument("--epochs", type=int, help="of each model, the first unmeasured (6), and of the whole run (30)")
    parser.add_argument("--images", type=int, help="of the data (all)")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: device=cuda: torch finds no GPU here; --device cpu shows what is measured")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    card = torch.cuda.get_device_name() if options.device == "cuda" else "no GPU"
    print(f"{card} · torch {torch.__version__} · python {sys.version.split()[0]}", flush=True)
    failed = options.part != "times" and not tests()
    if options.part != "tests":
        times(options.device, options.epochs, options.images)
    sys.exit(1 if failed else 0)


def tests() -> bool:
    """Whether the tests that need a GPU pass, whose output is shown."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-n", "0", "-p", "no:cacheprovider", "-rf", "tests"]
    return subprocess.run(command, cwd=ROOT).returncode == 0


def times(device: str, epochs: int | None, images: int | None) -> None:
    """Print tables: an epoch of each model beside others, and the default run as its user starts it."""
    with tempfile.TemporaryDirectory(prefix="gpu_check") as scratch:
        folder = Path(scratch)
        data = [*common.images(folder), *([f"data.limit={images}"] if images else [])]
        data.append(f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}")
        rows = []
        for case in CASES:
            print(f"measuring {case} …", file=sys.stderr, flush=True)
            rows.append(beside_others(data, case, device, epochs or 6, folder))
        notes = (
            "All take turns by epochs, the first left out. The runner's has validation, TensorBoard and checkpoints;",
            "the loops have images on the device, fused Adam and validation, and write nothing.",
        )
        print(f"\n{common.table(rows, *notes).text()}", flush=True)
        count = TOGETHER if device == "cuda" else 4
        print(f"measuring {count} runs together …", file=sys.stderr, flush=True)
        print(f"\n{common.table(together(data, count, epochs or 6, folder)).text()}", flush=True)
        length = [f"epochs={epochs}"] if epochs else []
        runs = [whole_run([*data, *length], folder, *more) for more in (["figures=none"], [])]
        print(f"\n{common.table(runs).text()}")


def beside_others(data: Sequence[str], case: str, device: str, epochs: int, folder: Path) -> dict[str, Any]:
    """Seconds of the runner's epochs, and ratios to those of the hand-written loops."""
    config = plain(composed(*data, *CASES[case], f"epochs={epochs}", "figures=none"))
    dataset = build(config, "data").load()
    others = {"hand-written loop": HandLoop(config, dataset, device).epoch}
    if device == "cuda":
        others["its CUDA graph"] = HandGraph(config, dataset).epoch
    _, *rounds = race(folder, config, others)
    row: dict[str, Any] = {"an epoch of": case, "seconds": common.median(rounds, "runner")}
    for name in others:
        found = common.ratio(rounds, "runner", name)
        row |= {name: found["other's"], "÷ " + name: found["ratio"]}
    return row


def together(data: Sequence[str], count: int, epochs: int, folder: Path) -> list[dict[str, Any]]:
    """Seconds of an epoch of one run, and of several that are trained together."""
    rows: list[dict[str, Any]] = []
    for runs in (1, count):
        configs = [plain(composed(*data, f"epochs={epochs}", f"seed={seed}", "figures=none")) for seed in range(runs)]
        folders = [folder / f"{seed} of {runs}" for seed in range(runs)]
        work = [partial(train_run, *each) for each in zip(configs, folders, strict=True)]
        for outcome in Lanes().train(work) if runs > 1 else [each() for each in work]:
            if isinstance(outcome, BaseException):
                raise outcome
        with (folders[0] / "history.csv").open() as file:
            _, *seconds = [float(row["seconds"]) for row in csv.DictReader(file)]  # the first one warms up
        rows.append({"runs": runs, "an epoch of all, s": statistics.median(seconds)})
    for row in rows:
        row["÷ one run"] = row["an epoch of all, s"] / rows[0]["an epoch of all, s"]
    return rows


def whole_run(data: Sequence[str], folder: Path, *more: str) -> dict[str, Any]:
    """The default run by its command."""
    run = folder / f"run {time.monotonic_ns()}"
    start = time.perf_counter()
    finished(*TRAIN, *data, *more, f"hydra.run.dir='{run}'")
    wall = time.perf_counter() - start
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    names = {"training, s": "seconds/fit", "epochs": "epochs", "test/total": "test/total"}
    return {
        "python train.py": " ".join([*data[:1], *more]),
        "whole, s": wall,
        **{name: metrics[key] for name, key in names.items()},
    }


if __name__ == "__main__":
    main()
