"""The log on the terminal: the program's own words and every warning, without tracebacks."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.types import RunMode

FILE_ONLY = {"file_only": True}  # pass as `extra`: in train.log, not on the terminal


class TerminalFilter(logging.Filter):
    """Lets through this package's messages and all warnings; in a sweep only the sweep's own messages."""

    def __init__(self, mode: RunMode | None = None):
        super().__init__("vae.runs.sweep" if mode == RunMode.MULTIRUN else "vae")

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "file_only", False):
            return False
        return record.levelno >= logging.WARNING or bool(super().filter(record))


class TerminalFormatter(logging.Formatter):
    """The message alone, with its level from warnings on. Tracebacks are for the log file."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        return message if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {message}"


@contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Append everything that is logged inside to a file."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def to_terminal() -> None:
    """Show this package's messages on stderr, for programs that Hydra does not start."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TerminalFormatter())
    package = logging.getLogger("vae")
    package.setLevel(logging.INFO)
    package.handlers = [handler]  # instead of an earlier call's


@contextmanager
def restored() -> Iterator[None]:
    """Restore logging at the end, whatever Hydra sets up inside; only Hydra's handlers show messages there."""
    root, package = logging.getLogger(), logging.getLogger("vae")
    handlers, level, own = root.handlers[:], root.level, package.handlers
    package.handlers = []  # without those of `to_terminal`, which would say all twice
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        package.handlers = own
