"""A run's `status.json`: what was started where and with which versions, and how it ended, whatever happened."""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import OmegaConf

from vae.config import fingerprint, flatten
from vae.files import write_json
from vae.logs import FILE_ONLY

log = logging.getLogger(__name__)

PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "omegaconf", "numpy", "tensorboard", "matplotlib")

# What may differ when a run is gone on with: how long, where its data lies and on which device, not what is trained.
FREE_ON_RESUME = ("epochs", "data.root", "trainer.")


SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Ctrl+C or SIGTERM. Not an `Exception`, so that nothing on the way up takes it for an error."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.exit_status = 128 + signum


@contextmanager
def recorded(folder: Path, config: Mapping[str, Any], choices: Mapping[str, str] | None = None) -> Iterator[None]:
    """Keep `status.json` true while the block trains in `folder`; signals raise `Interrupted` inside it.

    `choices` are the names of the YAMLs that were chosen in each group.
    """
    from filelock import FileLock, Timeout

    previous = read_status(folder)
    lock = FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{folder}: another process is training this run") from None
    try:
        status: dict[str, Any] = {
            "state": "running",
            "started": previous.get("started", _now()),
            "resumed": [*previous.get("resumed", []), _now()] if previous else [],
            "ended": None,
            "error": None,
            "config_hash": fingerprint(config),
            "choices": dict(choices or {}),
            "config": dict(config),
            "command": [Path(sys.executable).name, *sys.orig_argv[1:]],
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "git": _git_commit(),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        }
        write_json(folder / "status.json", status)
        try:
            with _signals_raise():
                yield
        except Exception as error:
            status |= {"state": "failed", "error": f"{type(error).__name__}: {error}"}
            log.exception("the run failed", extra=FILE_ONLY)
            raise
        except BaseException as stop:
            status |= {"state": "interrupted", "error": f"{type(stop).__name__}: {stop}"}
            raise
        else:
            status["state"] = "completed"
        finally:
            write_json(folder / "status.json", status | {"ended": _now()})
    finally:
        lock.release()


def read_status(folder: Path) -> dict[str, Any]:
    """The content of `status.json`, empty where there is none."""
    try:
        return json.loads((folder / "status.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def overrides(folder: Path) -> list[str]:
    """What was typed to make the run in this folder; nothing where Hydra did not start it."""
    file = folder / ".hydra" / "overrides.yaml"
    return [str(text) for text in OmegaConf.load(file)] if file.exists() else []


def refuse_other_configuration(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """A run is gone on with only as what it is; see `FREE_ON_RESUME` for what may change."""
    before, after = flatten(old), flatten(new)
    for key in sorted(before.keys() | after.keys()):
        if not key.startswith(FREE_ON_RESUME) and before.get(key) != after.get(key):
            raise ValueError(
                f"{key}={after.get(key)}: the run in {folder} has {key}={before.get(key)}; "
                f"going on may only change {', '.join(name.rstrip('.') for name in FREE_ON_RESUME)}"
            )


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Ctrl+C and SIGTERM raise `Interrupted`, once: a second signal does not disturb the tidying up."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(signum)

    before = {signum: signal.signal(signum, interrupt) for signum in SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git_commit() -> str | None:
    """The commit of this package's checkout, marked where the tree differs from it; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
