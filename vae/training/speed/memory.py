"""How this process holds on to its memory."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h has them


def keep_freed_memory() -> None:
    """Let glibc keep what one training step frees for the next, which asks for as much again.

    Else it goes back to the system and returns page by page: an epoch of the conv backbone over 6,000 images took
    3.45 s and takes 2.70 s. `tests/training/speed/test_memory.py` counts the pages.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_TRIM_THRESHOLD, 1 << 30)
        mallopt(_MMAP_THRESHOLD, 1 << 25)  # larger blocks, which would leave large gaps, still come and go one by one
