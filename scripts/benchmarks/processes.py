"""Sections `startup`, `sweep`, `memory` and `company`: what processes take, from their start to their end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from benchmarks.common import Options, in_turn, median, ratio, spread, table
from vae.common.files import write_json
from vae.common.tables import Table
from vae.training.callbacks.pictures import Pictures
from vae.training.module import VAEModule

ROOT = Path(__file__).parents[2]
TRAIN = (sys.executable, str(ROOT / "train.py"))
Program = subprocess.Popen[bytes]
PEAK = (
    "import resource, subprocess, sys\n"
    "subprocess.run(sys.argv[1:], check=True, stdout=sys.stderr)\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


class Stamps(Pictures):
    """Stands where a run's pictures do and leaves in its folder when the first step began and the last one ended."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any) -> None:
        assert isinstance(pl_module, VAEModule)
        if pl_module.steps_taken == 0:
            self.first = time.time()

    def on_step_end(self, *arguments: Any) -> None:
        self.last = time.time()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        write_json(self.folder.parent / "stamps.json", {"first": self.first, "last": self.last})


class Steps(Pictures):
    """Stands where a run's pictures do and leaves in its folder a file of one byte for each step begun."""

    FILE = "steps"

    def on_train_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        self.file = (self.folder.parent / self.FILE).open("wb", buffering=0)

    def on_train_batch_start(self, *arguments: Any) -> None:
        self.file.write(b".")


def surroundings() -> dict[str, str]:
    """The environment in which a program finds this file's classes."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")])
    }


def finished(*command: str) -> str:
    """What a command prints, after it has ended well."""
    result = subprocess.run(command, env=surroundings(), capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {result.stderr.strip()}")
    return result.stdout


def wall(*command: str) -> float:
    """Seconds from a command's start to its end."""
    start = time.perf_counter()
    finished(*command)
    return time.perf_counter() - start


def startup(options: Options) -> dict[str, Table]:
    """How long one waits for an answer, for the first step and after the last one."""
    small = [*options.data, "data.limit=2000", "epochs=1", "figures=none"]
    waits: dict[str, float] = {}  # of the last run

    def run() -> float:
        folder = options.folder / f"start {time.monotonic_ns()}"
        start = time.time()
        seconds = wall(*TRAIN, *small, "figures._target_=benchmarks.processes.Stamps", f"hydra.run.dir='{folder}'")
        stamps = json.loads((folder / "stamps.json").read_text(encoding="utf-8"))
        waits.update(first=stamps["first"] - start, last=start + seconds - stamps["last"])
        return seconds

    answers = {
        "--help": lambda: wall(*TRAIN, "--help"),
        "--cfg job": lambda: wall(*TRAIN, "--cfg", "job"),
        "to the first step": lambda: run() and waits["first"],
        "from the last step to the exit": lambda: waits["last"],
        "import torch, pytorch_lightning": lambda: wall(sys.executable, "-c", "import torch, pytorch_lightning"),
    }
    imports = "import torch, pytorch_lightning"
    rounds = in_turn(answers, options.repeats)
    rows = [
        {"python train.py …": name, "÷ importing": ratio(rounds, name, imports)["ratio"], **spread(rounds, name)}
        for name in answers
    ]
    return {"startup": table(rows, "One epoch of 1,800 images, no pictures; the images' files in the system's cache.")}


def sweep(options: Options) -> dict[str, Table]:
    """What a job of a sweep takes besides its training."""

    def overhead(seeds: str) -> float:
        folder = options.folder / f"sweep {time.monotonic_ns()}"
        quiet = ["epochs=1", "figures=none", f"seed={seeds}", f"hydra.sweep.dir='{folder}'"]
        seconds = wall(*TRAIN, "-m", *options.limited, *quiet)
        metrics = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/metrics.json")]
        return seconds - sum(each["seconds/fit"] for each in metrics)

    rounds = in_turn({"one": lambda: overhead("0"), "four": lambda: overhead("0,1,2,3")}, options.repeats)
    for each in rounds:
        each["further"] = (each["four"] - each["one"]) / 3
    names = {"one": "a sweep of one", "four": "a sweep of four", "further": "each further job"}
    rows = [{"overhead of": text, **spread(rounds, name)} for name, text in names.items()]
    note = "Wall seconds of python train.py -m seed=… epochs=1 figures=none less those of training (seconds/fit)."
    return {"sweep": table(rows, note, "In: start, reading images, closing evaluation of all parts, files.")}


def memory(options: Options) -> dict[str, Table]:
    """The most memory that a default run has at once."""
    command = [*TRAIN, *options.data, "epochs=2", f"hydra.run.dir='{options.folder / 'memory'}'"]
    # By a process between: a child's peak begins with the size of the process that started it.
    kilobytes = int(finished(sys.executable, "-c", PEAK, *command))
    row = {"python train.py": " ".join(["epochs=2", *options.data[:1]]), "peak memory, GB": kilobytes * 1024 / 1e9}
    return {"memory": table([row], "Resident, pictures after both epochs included.")}


def company(options: Options) -> dict[str, Table]:
    """What a step takes beside other programs, by how OpenMP's threads wait for each other."""
    waiting: dict[str, dict[str, str]] = {
        "ours": {},
        "OpenMP's own": {"GOMP_SPINCOUNT": "300000"},
        "one thread": {"OMP_NUM_THREADS": "1"},
    }
    with ExitStack() as started:
        ways = {how: started.enter_context(_training(options, environment)) for how, environment in waiting.items()}
        others: dict[str, Program | None] = {
            "nobody": None,
            "a busy loop": started.enter_context(_paused(sys.executable, "-c", "while True: pass")),
            "another training": started.enter_context(_training(options, {}))[0],
        }
        rows: list[dict[str, Any]] = []
        for beside, other in others.items():
            steps = {how: partial(_seconds_a_step, *way, other) for how, way in ways.items()}
            rounds = in_turn(steps, 6 * options.repeats)
            row = {"beside": beside, **{f"{how}, ms": 1000 * median(rounds, how) for how in waiting}}
            rows.append(row | {"ours ÷ OpenMP's": ratio(rounds, "ours", "OpenMP's own")["ratio"]})
    for row in rows:
        row["ours ÷ alone"] = row["ours, ms"] / rows[0]["ours, ms"]
    note = "Milliseconds a step of the dense default run. Each way trains for a second in turn, the others paused."
    return {"company": table(rows, note)}


def _seconds_a_step(training: Program, steps: Path, other: Program | None) -> float:
    """Let a paused training run for a second, beside another program, and count its steps."""
    programs = [training] if other is None else [other, training]
    before = steps.stat().st_size
    for program in programs:
        program.send_signal(signal.SIGCONT)
    start = time.perf_counter()
    time.sleep(1)
    for program in programs:
        program.send_signal(signal.SIGSTOP)
    return (time.perf_counter() - start) / max(1, steps.stat().st_size - before)


@contextmanager
def _training(options: Options, environment: Mapping[str, str]) -> Iterator[tuple[Program, Path]]:
    """An endless training, paused after its first step, and the file of its steps."""
    folder = options.folder / f"training {time.monotonic_ns()}"
    quiet = [*options.limited, "epochs=100000", "figures._target_=benchmarks.processes.Steps"]
    with _paused(*TRAIN, *quiet, f"hydra.run.dir='{folder}'", environment=environment) as process:
        process.send_signal(signal.SIGCONT)
        while process.poll() is None and not (folder / Steps.FILE).exists():
            time.sleep(0.1)
        process.send_signal(signal.SIGSTOP)
        yield process, folder / Steps.FILE


@contextmanager
def _paused(*command: str, environment: Mapping[str, str] | None = None) -> Iterator[Program]:
    """A program that stands still from its start, and is ended afterwards."""
    own = surroundings() | dict(environment or {})
    with subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        process.send_signal(signal.SIGSTOP)
        try:
            yield process
        finally:
            process.kill()
