"""Images of a folder, of an .npz or of a single file, some at a time, as a trained model takes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae.common.types import Shape
from vae.data.images import decode_all, image_files, left_out
from vae.data.inputs import as_batch
from vae.data.npz import npz_labels, npz_like, read_npz

AT_ONCE = 2**23  # bytes of images held at once
MOST = 500  # images: their names take memory, too


class Chunk(NamedTuple):
    """Some images."""

    names: Sequence[str]  # of files, from the folder on; of an array's images their numbers
    images: np.ndarray  # (n, channels, height, width), see `vae.data.inputs.to_unit`
    labels: np.ndarray | None  # (n,): folders' names or the file's own; None without either


class ImageStream:
    """All images below a folder, or of a file, in one fixed order, of the shape of a model's.

    Files are decoded as `data=images` does it and scaled to that shape; arrays must have it. What cannot be read is
    left out, and `note` says so at the end.
    """

    def __init__(self, path: Path, shape: Shape):
        if not path.exists():
            raise ValueError(f"{path}: there is no such file or folder")
        self.path = path
        self.shape = shape
        self.note = ""
        self._at_once = max(1, min(MOST, AT_ONCE // math.prod(shape)))
        self._of_array = path.suffix == ".npz"
        self._paths = [] if self._of_array else image_files(path) if path.is_dir() else [path]
        if self._of_array:
            like = npz_like(path)  # before any is unpacked: images of another shape may be huge
            self._count = len(like) and len(as_batch(like, shape, f"{path}: images"))
        else:
            self._count = len(self._paths)
        if not self._count:
            raise ValueError(f"{path}: there are no images")

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Chunk]:
        return self._from_array() if self._of_array else self._from_files()

    def _from_array(self) -> Iterator[Chunk]:
        labels = npz_labels(self.path)
        if labels is not None and labels.shape != (self._count,):
            raise ValueError(f"{self.path}: has {self._count} images, but labels of shape {labels.shape}")
        start = 0
        for part in read_npz(self.path, self._at_once):
            images = as_batch(part, self.shape, f"{self.path}: images")
            end = start + len(images)
            yield Chunk(numbered(range(start, end), self._count), images, None if labels is None else labels[start:end])
            start = end

    def _from_files(self) -> Iterator[Chunk]:
        root = self.path if self.path.is_dir() else self.path.parent
        channels, height, width = self.shape
        bad: list[str] = []
        for start in range(0, self._count, self._at_once):
            paths = self._paths[start : start + self._at_once]
            images, good = decode_all(paths, channels, (height, width))
            names = [path.relative_to(root) for path in paths]
            bad += [name.as_posix() for name, ok in zip(names, good, strict=True) if not ok]
            names = [name for name, ok in zip(names, good, strict=True) if ok]
            if names:
                folders = np.array([name.parts[0] for name in names]) if all(len(n.parts) > 1 for n in names) else None
                yield Chunk([name.as_posix() for name in names], images[good], folders)
        if len(bad) == self._count:
            what = f"none of the {self._count} image files can be read" if self._count > 1 else "no readable image"
            raise ValueError(f"{self.path}: {what}")
        self.note = left_out(bad, self._count, root) if bad else ""


def numbered(positions: Sequence[int], count: int) -> list[str]:
    """Names that sort as the numbers do."""
    return [f"{position:0{max(5, len(str(count - 1)))}d}" for position in positions]
