"""Ctrl+C and SIGTERM: noted at once, acted on where it does no harm.

Imports nothing that takes time, because it comes first.
"""

from __future__ import annotations

import _thread
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
MOMENT = 0.02  # seconds


class Interrupted(BaseException):
    """Ctrl+C or SIGTERM. Not an `Exception`, so that no handler takes it for an error."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
        self.exit_status = 128 + signum

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int]]:  # it travels between processes
        return Interrupted, (self.signum,)


def interrupt(signum: int) -> NoReturn:
    """Raise `Interrupted`: the default answer to a signal."""
    raise Interrupted(signum)


# Signals that are only noted: by each context as it likes, because runs that are trained together take turns.
_patience: ContextVar[float] = ContextVar("patience", default=math.inf)


class _Inbox:
    """The signals of this process."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.answer: Callable[[int], None] = interrupt
        self.acted = False
        self.repeats = False  # the next signal is the last one again
        self.unraisable = sys.unraisablehook  # for what is no interruption

    def receive(self, signum: int, frame: FrameType | None = None) -> None:
        if not self.repeats:
            self.received.append(signum)
        self.repeats = False
        self.act()

    def act(self) -> None:
        if not self.acted and len(self.received) > _patience.get():
            self.acted = True  # later signals do not disturb the tidying up
            self.answer(self.received[0])

    def ignored(self, unraisable: Any) -> None:
        """Receive a moment later again what Python drops in a `__del__`, where the run would go on unstopped."""
        if not isinstance(unraisable.exc_value, Interrupted):
            self.unraisable(unraisable)
            return
        self.acted, self.repeats = False, True
        with suppress(RuntimeError):  # Python ends, and begins no thread any more
            threading.Timer(MOMENT, _thread.interrupt_main, [unraisable.exc_value.signum]).start()


_inbox: _Inbox | None = None  # None while nobody listens


def listen() -> None:
    """Note signals from now on, to the end of the process; `heed` begins to act on them."""
    global _inbox
    if _inbox is not None:
        return
    _inbox = _Inbox()
    _patience.set(math.inf)
    sys.unraisablehook = _inbox.ignored
    claim()


def heed() -> None:
    """Act on signals from now on, and on what has been noted."""
    _patience.set(0)
    if _inbox is not None:
        _inbox.act()


def claim() -> None:
    """Take signals back from a library that has set its own handlers; nothing where nobody listens."""
    if _inbox is not None and threading.current_thread() is threading.main_thread():
        for signum in SIGNALS:
            signal.signal(signum, _inbox.receive)


@contextmanager
def listening() -> Iterator[None]:
    """Note signals inside the block; `heeded` acts on them there, else the end of the block does.

    Where somebody listens already, handlers stay. Outside the main thread, which alone has signals, nothing happens.
    """
    global _inbox
    if _inbox is not None or threading.current_thread() is not threading.main_thread():
        with noted():
            yield
        return
    before, unraisable = {signum: signal.getsignal(signum) for signum in SIGNALS}, sys.unraisablehook
    listen()
    inbox = _inbox
    assert inbox is not None
    try:
        yield
    finally:
        sys.unraisablehook, _inbox = unraisable, None
        for signum, handler in before.items():
            signal.signal(signum, handler)
    _patience.set(0)
    inbox.act()


@contextmanager
def noted(patience: float = math.inf) -> Iterator[None]:
    """Only note up to `patience` signals inside the block, and act on them at its end.

    For imports: one that is broken off leaves half of a module, or takes the interruption for itself.
    """
    inbox = _inbox or _Inbox()
    outer = _patience.get()
    _patience.set(patience)
    try:
        yield
    finally:
        _patience.set(outer)
    inbox.act()


@contextmanager
def heeded() -> Iterator[None]:
    """Act on signals inside the block, and on those noted before: for a block within one that only notes them.

    An error behind an interruption comes out as that.
    """
    with noted(patience=0), unmasked():
        heed()
        yield


@contextmanager
def unmasked() -> Iterator[None]:
    """Let an error behind an interruption come out as that: nobody is to take it for a failure of what was done."""
    try:
        yield
    except Exception as error:
        if interrupted := behind(error):
            raise interrupted from None
        raise


def received() -> int | None:
    """The first signal so far, whether it was acted on or not."""
    return _inbox.received[0] if _inbox is not None and _inbox.received else None


def answer(by: Callable[[int], None]) -> None:
    """Call `by` with the first signal to act on, in place of raising `Interrupted`."""
    if _inbox is not None:
        _inbox.answer = by
        claim()


def behind(error: BaseException | None) -> Interrupted | None:
    """The interruption in whose handling an error was raised: a signal may come before what a `finally` puts away."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error
