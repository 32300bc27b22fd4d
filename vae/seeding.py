"""Independent random streams from one seed, so that an epoch's randomness depends on nothing but (seed, epoch)."""

import hashlib


def derive(*keys: int | str) -> int:
    """A 63-bit seed that depends on all keys: nearby keys give unrelated streams, on every platform the same."""
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
