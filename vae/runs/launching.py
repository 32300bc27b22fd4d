"""Sweeps on several processes, beside Hydra's launchers: a GPU for each job, and a common end.

Imports no torch.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from vae.common import signals
from vae.runs.record import read_status

MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES calls them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return list(takewhile(lambda name: name not in ("", "-1"), map(str.strip, given.split(","))))
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return []


def free_memory() -> int | None:
    """Bytes of the machine's memory, or of what a container may use of it, that are free; None where nobody says."""
    found = []
    with suppress(OSError, ValueError):
        lines = MEMINFO.read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    with suppress(OSError, ValueError):
        most, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(most - used)
    return min(found, default=None)


def config_of_job(context: HydraContext, config: DictConfig, overrides: Sequence[str], number: int) -> DictConfig:
    """A sweep's job, as Hydra's own launchers compose and number it."""
    job: DictConfig = context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(job):
        job.hydra.job.id = f"{job.hydra.job.name}_{number}"
        job.hydra.job.num = number
    return job


def jobs_at_once() -> int:
    """One for each GPU; without any, joblib's word for one a core."""
    return len(visible_gpus()) or -1


class OneGPUEach(Callback):
    """Hydra callback: job k sees GPU k mod n of the n that the main process may use."""

    def __init__(self) -> None:
        self.gpus = visible_gpus()  # in the main process; a copy of this object goes with each job

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        # A process that trains several jobs keeps its first GPU: CUDA reads the variable only once.
        if self.gpus and os.environ.get("CUDA_VISIBLE_DEVICES") not in self.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpus[config.hydra.job.num % len(self.gpus)]


class EndTogether(Callback):
    """Hydra callback: stops the jobs in child processes with the main process, each saved and recorded."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder, start = Path(config.hydra.sweep.dir), time.time()

        def stop(signum: int) -> None:
            stop_jobs(folder, start, signum)
            signals.interrupt(signum)

        signals.answer(stop)
        # It would warn of what the jobs' processes had not given back when joblib ended them; the system takes it.
        os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        in_child = multiprocessing.parent_process() is not None  # joblib trains a single job in the main process
        if in_child and not any(thread.name == _FOLLOWER for thread in threading.enumerate()):
            threading.Thread(target=_follow, args=(os.getppid(),), name=_FOLLOWER, daemon=True).start()


_FOLLOWER = "follows the main process"


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)  # ends the job, which handles the signal; afterwards nobody does
    while signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)


def stop_jobs(folder: Path, start: float, signum: int) -> None:
    """Stop the jobs that other processes have begun in a sweep's folder since `start`, and wait for their end."""
    # A terminal sends Ctrl+C to all its processes, and a second signal would stop a job without saving.
    patience = 5.0 if signum == signal.SIGINT else 0.0
    until, stopped = time.monotonic() + patience, set[int]()
    while running := _running(folder, start):
        if time.monotonic() >= until:
            for pid in running - stopped:
                os.kill(pid, signal.SIGTERM)
            stopped |= running
        time.sleep(0.1)


def _running(folder: Path, start: float) -> set[int]:
    """Other processes that train, by the jobs' status; an old status may name a process that is another's now."""
    statuses = [read_status(path.parent) for path in folder.glob("*/status.json") if path.stat().st_mtime >= start]
    pids = {status["pid"] for status in statuses if status["state"] == "running"} - {os.getpid()}
    return {pid for pid in pids if _is_there(pid)}


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
