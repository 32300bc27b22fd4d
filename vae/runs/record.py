"""A run's record: what was started where and with which versions, and how it ended, whatever happened.

One process at a time holds a run's folder, and only that one writes there.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vae.common import signals
from vae.common.files import as_json, read_json, write_json
from vae.common.logs import FILE_ONLY, to_file
from vae.settings.config import fingerprint, flatten, may_change
from vae.settings.errors import explain

log = logging.getLogger(__name__)

PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "omegaconf", "numpy", "tensorboard", "matplotlib")

STATUS = "status.json"


class RefusedError(ValueError):
    """A run does not begin, and nothing was written to its folder."""


@contextmanager
def held(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder for this process; refuse where another one is `doing` something there."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise RefusedError(f"{folder}: another process is {doing}") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def recorded(
    folder: Path, config: Mapping[str, Any], choices: Mapping[str, str] | None = None, typed: Sequence[str] = ()
) -> Iterator[None]:
    """Keep `status.json` true while the block trains in `folder`.

    Signals are only noted, so that none comes between "running" and what notes the end. A block that they are to stop
    acts on them: `with recorded(…), signals.heeded():`. `choices` are the names of the YAMLs that were chosen in each
    group, `typed` the overrides that made `config`.
    """
    with signals.listening(), held(folder, "training this run"):
        if previous := read_status(folder):
            refuse_other_configuration(folder, previous["config"], config)
        status: dict[str, Any] = {
            "state": "running",
            "started": previous.get("started", _now()),
            "resumed": [*previous.get("resumed", []), _now()] if previous else [],
            "ended": None,
            "error": None,
            "folder": folder.name,
            "config_hash": fingerprint(config),
            "choices": dict(choices or {}),
            "overrides": list(typed),
            "config": dict(config),
            "command": [Path(sys.executable).name, *sys.orig_argv[1:]],
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "git": _git_commit(),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        }
        with to_file(folder / "train.log"):  # first: where it cannot be opened, no run is said to be running
            write_json(folder / STATUS, status)
            try:
                yield
            except Exception as error:
                status |= {"state": "failed", "error": f"{type(error).__name__}: {explain(error)}"}
                log.exception("the run failed", extra=FILE_ONLY)
                raise
            except BaseException as stop:
                status |= {"state": "interrupted", "error": f"{type(stop).__name__}: {stop}"}
                raise
            else:
                status["state"] = "completed"
            finally:
                status["ended"] = _now()
                _show(folder, status)  # first: whoever finds a run that has not ended does what its end owes
                _conclude(folder / STATUS, status)


def _conclude(path: Path, status: Mapping[str, Any]) -> None:
    """Write how a run ended, even on a disk that is full."""
    try:
        write_json(path, status)
    except OSError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # Not atomic, but within the room that the file has already.
        with path.open("r+", encoding="utf-8") as file:
            file.write(as_json(status))
            file.truncate()


def _show(folder: Path, status: Mapping[str, Any]) -> None:
    """Write the run's card, which takes some hundredths of a second; without one the run is none the worse."""
    from vae.runs import card  # which reads what is recorded here

    try:
        card.write_run(folder, status)
    except Exception as error:
        log.warning("%s could not be written: %s", folder / card.CARD, explain(error), exc_info=True)


def read_status(folder: Path) -> dict[str, Any]:
    """The content of `status.json`, empty where there is none."""
    path = folder / STATUS
    status = read_json(path)
    if status is None:
        return {}
    if not (isinstance(status.get("state"), str) and isinstance(status.get("config"), dict)):
        raise ValueError(f"{path}: is no run's status: must hold state and config")
    return status


def overrides(folder: Path) -> list[str]:
    """The overrides that made the run in this folder; none where Python began it."""
    return read_status(folder).get("overrides", [])


def refuse_other_configuration(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to go on with a run as another one, or for fewer epochs."""
    before, after = flatten(old), flatten(new)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key) and not (may_change(before, key) and may_change(after, key)):
            raise RefusedError(
                f"{key}={after.get(key)}: the run in {folder} has {key}={before.get(key)}; going on may only change "
                "epochs, where the data lies, the loggers and the device"
            )
    if after.get("epochs", 0) < before.get("epochs", 0):
        raise RefusedError(f"epochs={after['epochs']}: the run in {folder} is set to {before['epochs']} already")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git_commit() -> str | None:
    """The commit of this package's checkout, marked where the tree differs from it; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
