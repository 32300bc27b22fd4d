"""Images that are decoded once, and kept as bytes until one of their files changes."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vae.common.seeding import derive
from vae.data import npz
from vae.data.base import DEFAULT_ROOT
from vae.data.cache import cached

VERSION = 1  # of how files are decoded: raise it with every change, so that nothing older is read
FEW = 500  # images, which are decoded sooner than anybody waits, are not kept
BLOCK = 2**24  # bytes read at once

Decoded = tuple[np.ndarray, np.ndarray]  # images, uint8 (n, channels, height, width); whether each could be read (n,)


def kept(root: Path, paths: Sequence[Path], options: tuple[object, ...], make: Callable[[], Decoded]) -> Decoded:
    """What `make` decodes of these files below `root`, or what it did for the same files before.

    `options` is all else that it depends on. Of one folder with the same options the last files alone are kept.
    """
    if len(paths) <= FEW:
        return make()
    name = f"{derive('decoded', str(root.absolute()), repr(options)):016x}.npz"
    digest = _digest(root, paths, options)
    return cached(
        Path(os.environ.get("VAE_DATA", DEFAULT_ROOT), "decoded", name),
        lambda path: _read(path, digest),
        make,
        lambda path, made: np.savez(path, digest=np.array([digest]), good=made[1], images=made[0]),
    )


def _digest(root: Path, paths: Sequence[Path], options: tuple[object, ...]) -> str:
    """Of the options, and of each file's name, size and time of its last change."""
    digest = hashlib.sha256(repr((VERSION, options)).encode())
    for path in paths:
        try:
            stat = path.stat()
            about = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:  # such as a link to nothing
            about = "unreadable"
        digest.update(os.fsencode(path.relative_to(root)) + f"\0{about}\n".encode())
    return digest.hexdigest()


def _read(path: Path, digest: str) -> Decoded:
    with npz.archive(path) as file:
        if npz.whole(file, "digest").tolist() != [digest]:
            raise FileNotFoundError(path)  # it is of other files: no damage, and replaced without a word
        good = npz.whole(file, "good")
        with npz.opened(file, "images") as (member, header):
            images, start = np.empty(header.shape, header.dtype), 0
            for part in npz.parts(member, header, max(1, BLOCK // math.prod(header.shape[1:]))):
                images[start : start + len(part)] = part
                start += len(part)
    return images, good
