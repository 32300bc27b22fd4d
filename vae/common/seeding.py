"""Independent random streams from one seed, so that an epoch's randomness depends on nothing but (seed, epoch)."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(*keys: int | str) -> int:
    """A 63-bit seed that depends on all keys: nearby keys give unrelated streams, on every platform the same."""
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def apart(*keys: int | str) -> Iterator[None]:
    """Inside, random numbers depend on nothing but the keys; outside, they go on as if nothing had been."""
    with torch.random.fork_rng():
        # Not torch.manual_seed, which takes note of the whole call stack, in a thirtieth of a second.
        for generator in (torch.default_generator, *torch.cuda.default_generators):
            generator.manual_seed(derive(*keys))
        yield
