"""Files that can be made again: read where they are, else made by one program while others wait, and kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from vae.common.files import replacing
from vae.data.base import one_line

log = logging.getLogger(__name__)

T = TypeVar("T")

WAIT = 600.0  # seconds for another program that makes or downloads the same


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold a lock file, or raise an `OSError`. It stays there empty, because removing a lock file is a race."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock, timeout=WAIT):
        yield


def cached(path: Path, read: Callable[[Path], T], make: Callable[[], T], write: Callable[[Path, T], object]) -> T:
    """The content that `read` finds at `path`; else `make` makes it and `write` keeps it there.

    A damaged file is made again. Where nothing can be kept, a warning says so, and no more than time is lost.
    """
    with suppress(Exception):  # without the lock: a folder that may only be read serves as well
        return read(path.expanduser())
    with ExitStack() as stack:
        try:
            path = path.expanduser()
            stack.enter_context(held(path.with_suffix(".lock")))
        except (OSError, RuntimeError) as error:  # the latter where nobody knows the home folder, or nothing has locks
            _not_kept(path, error)
        else:
            return _made_once(path, read, make, write)
    return make()


def _made_once(path: Path, read: Callable[[Path], T], make: Callable[[], T], write: Callable[[Path, T], object]) -> T:
    """The work of `cached` under the lock."""
    try:
        return read(path)  # another program may have made it meanwhile
    except (FileNotFoundError, NotADirectoryError):
        pass
    except Exception as error:  # a damaged file fails in many ways, and all have the same cure
        log.warning("%s cannot be read and is made again: %s", path, one_line(error))
    made = make()
    try:
        with replacing(path) as temporary:
            write(temporary, made)
    except (OSError, ValueError) as error:
        _not_kept(path, error)
    return made


def _not_kept(path: Path, error: Exception) -> None:
    log.warning("%s cannot be kept, so it is made anew each time: %s", path, one_line(error))
