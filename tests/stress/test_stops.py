"""Runs and sweeps that are stopped at any moment and gone on with end like undisturbed ones."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from moments import Moment
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae.common import files, signals
from vae.common.files import read_json
from vae.runs import record, sweep
from vae.settings.config import quoted

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PICTURES = "figures.only=[manifold,clusters,losses]"
RECORDING = (record, sweep, files, signals)  # what says how a run is
MEASURES = ["evaluate=full", "evaluate.metrics=[reconstruction,structure]"]


@dataclass(frozen=True)
class Stop:
    """How a process is stopped: by signals after so many seconds each, or by one at its nth rename or `Moment`."""

    signals: list[signal.Signals]
    after: list[float] = field(default_factory=list)
    rename: int | None = None
    moment: int | None = None


def enter(arguments: list[str], folder: Path, said: Path, stop: Stop) -> None:
    """One command in a process of its own, which has imported everything already."""
    signals.listen()  # as train.py does at once
    os.chdir(folder)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    if stop.rename is not None:
        count, replace = 0, os.replace

        def counting(*names: Any, **how: Any) -> None:
            nonlocal count
            if count == 2 * stop.rename:
                os.kill(os.getpid(), stop.signals[0])
            replace(*names, **how)
            if count == 2 * stop.rename + 1:
                os.kill(os.getpid(), stop.signals[0])
            count += 2

        os.replace = counting
    sys.argv = ["train.py", *arguments]
    sys.path.insert(0, str(ROOT))
    with nullcontext() if stop.moment is None else Moment(stop.moment, *RECORDING, signum=stop.signals[0]):
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


class Commands:
    """Runs `train.py` in processes that fork from one that has imported everything."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.pid: int | None = None  # of the last command
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["vae.entry.cli", "vae.training.run", "vae.study.measures"])

    def __call__(self, arguments: list[str], stop: Stop | None = None) -> tuple[int, str]:
        """The exit status, and what was said."""
        said = self.folder / "said.txt"
        said.unlink(missing_ok=True)
        stop = stop or Stop([])
        process = self.context.Process(target=enter, args=(arguments, self.folder, said, stop))
        process.start()
        self.pid = process.pid
        while not said.exists():  # before that it is no program of ours
            time.sleep(0.001)
        for signum, seconds in zip(stop.signals, stop.after, strict=False):
            process.join(seconds)
            if process.is_alive():
                assert process.pid is not None
                os.kill(process.pid, signum)
        process.join(300)
        assert process.exitcode is not None, "it hangs"
        return process.exitcode, said.read_text() if said.exists() else ""


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


@pytest.fixture
def small(image_folder: Path) -> list[str]:
    return ["data=images", f"data.root={image_folder}", "data.channels=1", "data.batch_size=8", "epochs=3"]


def left(folder: Path) -> dict[str, object]:
    """All that a run or a sweep has left, but for times, and how often it was begun."""
    found: dict[str, object] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.name.startswith("events.out"):
            found.setdefault(f"{path.parent.relative_to(folder)}: tags", tags(path.parent))
        elif path.name == "status.json":
            found[name] = json.loads(path.read_text())["state"]
        elif path.suffix == ".json" and path.name != "sweep.json":
            content = json.loads(path.read_text())
            found[name] = {key: value for key, value in content.items() if not key.startswith("seconds/")}
        elif path.suffix in (".png", ".tsv") or name.endswith("overrides.yaml"):
            found[name] = path.read_bytes()
        else:
            found[name] = None
    return found


def tags(folder: Path) -> dict[str, object]:
    """What TensorBoard shows of a run: the names of all, and how it ended."""
    events = EventAccumulator(str(folder), size_guidance={"images": 1})
    events.Reload()
    ended = events.SummaryMetadata("_hparams_/session_end_info").plugin_data.content
    return {kind: sorted(names) if isinstance(names, list) else names for kind, names in events.Tags().items()} | {
        "ended": ended
    }


def moments(chance: random.Random, seconds: float, renames: int, recording: int) -> Stop:
    """A moment to stop at, in a command that takes so long, renames so many files and has so many of `RECORDING`."""
    kind = chance.random()
    if kind < 0.4:
        return Stop([chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])], rename=chance.randrange(renames))
    if kind > 0.8:
        return Stop([chance.choice([signal.SIGTERM, signal.SIGINT])], moment=chance.randrange(recording))
    first = chance.uniform(0, seconds)
    how = chance.choice(["kill", "term", "twice", "once"])
    if how == "twice":
        return Stop([signal.SIGINT, signal.SIGINT], [first, chance.uniform(0, 0.3)])
    signum = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "once": signal.SIGINT}[how]
    return Stop([signum], [first])


def stopped_and_gone_on_with(
    commands: Commands, first: list[str], again: list[str], folder: Path, stops: list[Stop]
) -> None:
    """Every stop ends in one line or none, and what is gone on with without a stop is complete."""
    command = first
    for stop in [*stops, None]:
        status, said = commands(command, stop)
        told = f"{stop}: status {status}\n{said}"
        assert "Traceback" not in said and "Error" not in said.replace("Interrupted", ""), told
        if stop is None:
            assert status == 0, told
        elif status != 0:
            # Every signal that was not the last word ends in 128 + its number; nothing else may go wrong.
            assert status in (-signal.SIGKILL, 130, 143), told
        if status in (130, 143):
            statuses = [read_json(path) for path in folder.rglob("status.json")]
            # One that was killed before seems to run until it is gone on with.
            assert not any(each["state"] == "running" and each["pid"] == commands.pid for each in statuses), told
        begun = (folder / "multirun.yaml").exists() or (folder / "status.json").exists()
        command = again if begun else first


def test_a_run_stopped_anywhere_ends_like_an_undisturbed_one(rounds, commands: Commands, small, tmp_path: Path) -> None:
    command = [*small, PICTURES, *MEASURES]
    commands([*command, "hydra.run.dir=warm"])
    start = time.monotonic()
    assert commands([*command, "hydra.run.dir=whole"])[0] == 0
    seconds = time.monotonic() - start
    whole = left(tmp_path / "whole")
    for number, chance in enumerate(rounds(share=0.2, least=12)):
        folder = tmp_path / rf"{number} $x {{}} \${{y}} it's"
        stops = [moments(chance, seconds, renames=30, recording=2600) for _ in range(chance.choice([1, 1, 2]))]
        first = [*command, f"hydra.run.dir={quoted(folder.name)}"]
        stopped_and_gone_on_with(commands, first, [f"resume={folder.name}"], folder, stops)
        assert left(folder) == whole, f"case {number}: {stops}"


def test_a_sweep_stopped_anywhere_ends_like_an_undisturbed_one(rounds, commands, small, tmp_path: Path) -> None:
    command = ["-m", *small, "epochs=2", "figures=none", "beta=1,4"]
    start = time.monotonic()
    assert commands([*command, "hydra.sweep.dir=whole"])[0] == 0
    seconds = time.monotonic() - start
    whole = left(tmp_path / "whole")
    for number, chance in enumerate(rounds(share=0.15, least=8)):
        folder = tmp_path / f"parts{number}"
        stops = [moments(chance, seconds, renames=25, recording=5000) for _ in range(chance.choice([1, 2]))]
        first = [*command, f"hydra.sweep.dir={folder.name}"]
        stopped_and_gone_on_with(commands, first, [f"resume={folder.name}"], folder, stops)
        assert left(folder) == whole, f"case {number}: {stops}"


def test_a_signal_while_modules_are_imported_stops_the_program(rounds, small, tmp_path: Path) -> None:
    """In fresh processes, which spend seconds in imports."""
    for chance in rounds(share=0.1, least=4):
        signum = chance.choice([signal.SIGINT, signal.SIGTERM])
        seconds = chance.uniform(0.1, 5)
        command = [sys.executable, str(ROOT / "train.py"), *small, "epochs=2000", "figures=none", "hydra.run.dir=run"]
        with subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            time.sleep(seconds)
            process.send_signal(signum)
            try:
                said = process.communicate(timeout=300)[0]  # importing alone takes 30 s on a busy machine
            finally:
                process.kill()
        told = f"{signum.name} after {seconds:.2f} s: status {process.returncode}\n{said}"
        assert process.returncode == 128 + signum, told
        assert "Traceback" not in said and "recursion" not in said, told
