"""Independent random streams from one seed, so that an epoch's randomness depends on (seed, epoch) alone."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(*keys: int | str) -> int:
    """A 63-bit seed from all keys, the same on every platform: nearby keys give unrelated streams."""
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def apart(*keys: int | str) -> Iterator[None]:
    """Draw inside from the keys alone; the caller's random numbers go on as before."""
    with torch.random.fork_rng():
        # Not torch.manual_seed: it formats the whole call stack, which takes a thirtieth of a second.
        for generator in (torch.default_generator, *torch.cuda.default_generators):
            generator.manual_seed(derive(*keys))
        yield
