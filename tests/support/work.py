"""The work of processes in tests, which is little: what happens around it is looked at."""

import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from vae.common.signals import Interrupted

log = logging.getLogger(__name__)


def leave_traces(folder: Path, what: Any, rank: int, count: int) -> None:
    (folder / f"{rank} of {count}").write_text(f"{what} {os.environ['LOCAL_RANK']} {os.environ['MASTER_PORT']}")


def talk(rank: int, count: int) -> None:
    log.info("from %d", rank, extra={"file_only": True})
    try:
        raise KeyError("nothing")
    except KeyError:
        log.exception("something %s", threading.Lock())  # cannot be pickled


def fail_in_turn(first: int, rank: int, count: int) -> None:
    if rank != first:
        time.sleep(0.5)
        raise ConnectionError("somebody is missing")
    raise ValueError("data.root=x: must be there")


class Peculiar(Exception):
    def __init__(self, one: str, two: str):
        super().__init__(f"{one} and {two}")


def fail_peculiarly(rank: int, count: int) -> None:
    raise Peculiar("this", "that")


def vanish(rank: int, count: int) -> None:
    if rank:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def wait_for_a_signal(folder: Path, rank: int, count: int) -> None:
    def stop(signum: int, frame: Any) -> None:
        (folder / f"stopped {rank}").touch()
        raise Interrupted(signum)

    signal.signal(signal.SIGTERM, stop)
    (folder / f"ready {rank}").touch()
    time.sleep(60)


def hang(folder: Path, rank: int, count: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / f"ready {rank}").write_text(str(os.getpid()))
    time.sleep(60)
