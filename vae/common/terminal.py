"""What a person at a terminal sees: a first word at once, lines that break between words, progress bars."""

from __future__ import annotations

import multiprocessing
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO, Union

if TYPE_CHECKING:
    from tqdm import tqdm

LABEL = re.compile(r"\s*(?:\S+ {2,})?")  # what a broken line's other pieces are indented by
PATIENCE = 2.0  # seconds
COMMAND = re.compile(r"(?<!\S)(?:python|vae-train|tensorboard|pip)(?!\S)")  # to paste into a shell; ends the line


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person reads what is written there."""
    return stream is not None and not stream.closed and stream.isatty()


_passing = ""  # what stands in the terminal's last line until there is more to say


def meanwhile(text: str) -> None:
    """Say what is being done, until there is something else to say; nothing without a terminal."""
    global _passing
    clear()
    if has_bars():
        _passing = text[: shutil.get_terminal_size().columns - 1]
        print(_passing, end="", flush=True)


def say_that_torch_is_imported() -> None:
    """Say it where it still has to be."""
    if "torch" not in sys.modules:
        meanwhile("importing PyTorch, which takes a few seconds")


def clear() -> None:
    """Take away what `meanwhile` said."""
    global _passing
    if _passing:
        print(f"\r{' ' * len(_passing)}\r", end="", flush=True)
        _passing = ""


def fitted(text: str, stream: TextIO | None) -> str:
    """Text whose lines break between words where they are too long for the terminal; elsewhere it stays as it is."""
    if not is_terminal(stream):
        return text
    width = shutil.get_terminal_size().columns
    return "\n".join(line if len(line) <= width else _broken(line, width) for line in text.split("\n"))


def _broken(line: str, width: int) -> str:
    label = LABEL.match(line)
    assert label is not None
    room = width - 2 if COMMAND.search(line) else width
    indent = max(0, min(label.end(), room - max(map(len, line.split()))))
    pieces = textwrap.wrap(line, room, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
    begun = next((i for i, piece in enumerate(pieces) if COMMAND.search(piece)), len(pieces))
    return "\n".join([*pieces[:begun], " \\\n".join(pieces[begun:])]).rstrip("\n")


def has_bars() -> bool:
    """Whether bars are shown: on a terminal, but not by one of several processes that share it."""
    return is_terminal(sys.stdout) and multiprocessing.parent_process() is None and not _without_bars.get()


_without_bars: ContextVar[bool] = ContextVar("without_bars", default=False)


@contextmanager
def without_bars() -> Iterator[None]:
    """Show none inside, where somebody else shows one for all."""
    before = _without_bars.set(True)
    try:
        yield
    finally:
        _without_bars.reset(before)


def bar(what: str, total: int, **options: Any) -> Bar:
    """A progress bar, which vanishes in the end."""
    if not has_bars():
        return NoBar()
    from tqdm import tqdm

    usual: dict[str, Any] = {"bar_format": "{desc} {bar:24} {n_fmt}/{total_fmt}", "dynamic_ncols": True, "leave": False}
    return tqdm(desc=what, total=total, file=sys.stdout, **usual | options)


def bar_of_long(what: str, total: int) -> Bar:
    """A bar that appears once its work has taken longer than a person likes to wait without a sign."""
    return bar(what, total, delay=PATIENCE)


class NoBar:
    """What is there without a terminal; tqdm, though hidden, would hold a semaphore that a process leaves behind."""

    def __enter__(self) -> NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set_description_str(self, desc: str) -> None:
        """Nothing is shown."""

    def update(self, n: float = 1) -> None:
        """Nothing is counted."""


Bar = Union["tqdm", NoBar]
NO_BAR = NoBar()
