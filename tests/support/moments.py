"""Every moment of a piece of the program: before each of its lines, and when a function returns."""

from __future__ import annotations

import contextlib
import inspect
import signal
import sys
from types import FrameType, ModuleType
from typing import Any


class Moment:
    """A signal at the nth moment of these modules inside the block.

    Those of `contextlib` count where one of the modules uses it: a signal may come between what a context manager does
    and the block. `where` says which line it was, and is empty where there are not so many.
    """

    def __init__(self, number: int, *modules: ModuleType, signum: int = signal.SIGTERM):
        self.left, self.signum, self.where = number, signum, ""
        self.own = {str(module.__file__) for module in modules}

    def __enter__(self) -> Moment:
        sys.settrace(self._called)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        user: FrameType | None = frame
        while user and user.f_code.co_filename == contextlib.__file__:
            user = user.f_back
        return self._passed if user and user.f_code.co_filename in self.own else None

    def _passed(self, frame: FrameType, event: str, argument: Any) -> Any:
        # At a yield Python acts on no signal before it is back in the caller.
        self.left -= event == "line" or (event == "return" and not frame.f_code.co_flags & inspect.CO_GENERATOR)
        if self.left == 0:
            sys.settrace(None)
            self.where = f"{frame.f_code.co_filename}, line {frame.f_lineno}, in {frame.f_code.co_name}"
            signal.raise_signal(self.signum)
        return self._passed
