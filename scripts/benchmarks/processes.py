"""Sections `startup`, `memory`, `company` and `turns`: what processes take, from their start to their end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl

from benchmarks.common import Options, in_turn, median, ratio, spread, table
from benchmarks.hand import STEPS
from benchmarks.training import CASES
from vae.common.files import write_json
from vae.common.tables import Table
from vae.training.callbacks.pictures import Pictures
from vae.training.module import VAEModule

ROOT = Path(__file__).parents[2]
FITTED = "fitted"  # a file
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
    """Stands where a run's pictures do; leaves in its folder a file of a byte for each step, and one at the end."""

    def on_train_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        self.file = (self.folder.parent / STEPS).open("wb", buffering=0)

    def on_step_end(self, *arguments: Any) -> None:
        self.file.write(b".")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        (self.folder.parent / FITTED).touch()


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
        ways = {how: started.enter_context(_endless(options, environment)) for how, environment in waiting.items()}
        others: dict[str, Program | None] = {
            "nobody": None,
            "a busy loop": started.enter_context(_paused(sys.executable, "-c", "while True: pass")),
            "another training": started.enter_context(_endless(options)).program,
        }
        rows: list[dict[str, Any]] = []
        for beside, other in others.items():
            rounds = [seconds_a_step(ways, 1.0, 1, other) for _ in range(6 * options.repeats)]
            row = {"beside": beside, **{f"{how}, ms": 1000 * median(rounds, how) for how in waiting}}
            rows.append(row | {"ours ÷ OpenMP's": ratio(rounds, "ours", "OpenMP's own")["ratio"]})
    for row in rows:
        row["ours ÷ alone"] = row["ours, ms"] / rows[0]["ours, ms"]
    note = "Milliseconds a step of the dense default run. Each way trains for a second in turn, the others paused."
    return {"company": table(rows, note)}


def turns(options: Options) -> dict[str, Table]:
    """The runner beside the hand-written loop, two programs that take turns of a second and a half."""
    rows = []
    for case, overrides in CASES.items():
        with ExitStack() as started:
            ways = {
                "runner": started.enter_context(_endless(options, {}, *overrides)),
                "hand": started.enter_context(_hand(options, "epochs=100000", *overrides)),
            }
            rounds = [seconds_a_step(ways, 1.5, 10) for _ in range(options.repeats + 1)]
        rows.append({"model": case, **ratio(rounds[1:], "runner", "hand")})
    note = "The runner's steps ÷ the loop's, over rounds of 15 s each. Of both validation is in; of the runner also"
    epochs = table(rows, note, "TensorBoard, checkpoints and progress. Seconds are those of a step.")
    return {"epochs": epochs, "whole run": _whole_run(options)}


def _whole_run(options: Options) -> Table:
    """The default run with its pictures, to its end, beside as many epochs of the hand-written loop."""
    epochs = f"epochs={options.epochs}"
    with ExitStack() as started:
        runner = started.enter_context(_training(options, {}, *options.data, epochs))
        ways = {"runner": runner, "hand": started.enter_context(_hand(options, epochs))}
        spent = dict.fromkeys([*ways, "training"], 0.0)
        while running := {name: way for name, way in ways.items() if way.program.poll() is None}:
            for name, way in running.items():
                seconds, _ = way.turn(1.5)
                spent[name] += seconds
                if name == "runner" and not (way.folder / FITTED).exists():
                    spent["training"] += seconds
    ends = {"training": "training, pictures", "runner": "and the closing evaluation, to the exit"}
    rows = [
        {"run": text, "ratio": spent[name] / spent["hand"], "seconds": spent[name], "hand-written": spent["hand"]}
        for name, text in ends.items()
    ]
    return table(rows, f"{epochs}, dense, batch 128, from the first step on.")


class Way(NamedTuple):
    """A program that trains, paused but for its turns, and the folder in which it counts its steps."""

    program: Program
    folder: Path

    def turn(self, seconds: float, other: Program | None = None) -> tuple[float, int]:
        """Let it run, beside another program: for how long it did, and the steps that it took."""
        programs = [self.program] if other is None else [other, self.program]
        steps = self.folder / STEPS
        before = steps.stat().st_size
        for program in programs:
            program.send_signal(signal.SIGCONT)
        start = time.perf_counter()
        with suppress(subprocess.TimeoutExpired):
            self.program.wait(seconds)
        for program in programs:
            program.send_signal(signal.SIGSTOP)
        return time.perf_counter() - start, steps.stat().st_size - before


def seconds_a_step(
    ways: Mapping[str, Way], seconds: float, turns: int, other: Program | None = None
) -> dict[str, float]:
    """Of each way, over some turns that they take one after another."""
    spent, steps = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0)
    for _ in range(turns):
        for name, way in ways.items():
            each, taken = way.turn(seconds, other)
            spent[name] += each
            steps[name] += taken
    return {name: spent[name] / max(1, steps[name]) for name in ways}


def _endless(
    options: Options, environment: Mapping[str, str] | None = None, *overrides: str
) -> AbstractContextManager[Way]:
    """A training without pictures that does not end by itself."""
    return _training(options, environment, *images_for(options, overrides), "figures=none", "epochs=100000", *overrides)


def images_for(options: Options, overrides: Sequence[str]) -> list[str]:
    """Not all where convolutions take long."""
    return options.limited if "backbone=conv" in overrides else list(options.data)


@contextmanager
def _training(options: Options, environment: Mapping[str, str] | None, *overrides: str) -> Iterator[Way]:
    folder = options.folder / f"training {time.monotonic_ns()}"
    command = (*TRAIN, *overrides, "figures._target_=benchmarks.processes.Steps", f"hydra.run.dir='{folder}'")
    with _started(folder, environment or {}, *command) as way:
        yield way


@contextmanager
def _hand(options: Options, *overrides: str) -> Iterator[Way]:
    folder = options.folder / f"hand {time.monotonic_ns()}"
    folder.mkdir()
    command = (sys.executable, "-m", "benchmarks.hand", str(folder), *images_for(options, overrides), *overrides)
    with _started(folder, {}, *command) as way:
        yield way


@contextmanager
def _started(folder: Path, environment: Mapping[str, str], *command: str) -> Iterator[Way]:
    """Paused after its first step."""
    with _paused(*command, environment=environment) as program:
        program.send_signal(signal.SIGCONT)
        while not (folder / STEPS).exists():
            if program.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} ended with {program.returncode} before its first step")
            time.sleep(0.1)
        program.send_signal(signal.SIGSTOP)
        yield Way(program, folder)


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
