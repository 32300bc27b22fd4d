"""The log on the terminal: the program's own words and every warning, without tracebacks."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hydra.types import RunMode

from vae.common import terminal
from vae.common.terminal import fitted, is_terminal

_own_file: ContextVar[Path | None] = ContextVar("own_file", default=None)

FILE_ONLY = {"file_only": True}  # pass as `extra`: in train.log, not on the terminal


def brief(message: str) -> dict[str, str]:
    """Pass as `extra` what to say where the terminal is too narrow for the message itself."""
    return {"brief": message}


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


class TerminalHandler(logging.StreamHandler):
    """Writes above progress bars, and breaks lines between words; without a terminal it writes them as they are."""

    def emit(self, record: logging.LogRecord) -> None:
        terminal.clear()
        with _above_bars(self.stream):
            super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        shown = fitted(text, self.stream)
        return shown if shown == text else fitted(getattr(record, "brief", text), self.stream)


def _above_bars(stream: Any) -> Any:
    """Where no bar has been made yet, tqdm need not be imported."""
    tqdm = sys.modules.get("tqdm")
    return tqdm.tqdm.external_write_mode(stream) if tqdm and is_terminal(stream) else nullcontext()


@contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Append everything that is logged inside to a file; not what another context logs to a file of its own."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.addFilter(lambda record: _own_file.get() in (None, path))
    before = _own_file.set(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        _own_file.reset(before)
        root.removeHandler(handler)
        handler.close()


def to_terminal() -> None:
    """Show this package's messages on stderr, for programs that Hydra does not start."""
    handler = TerminalHandler(sys.stderr)
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
