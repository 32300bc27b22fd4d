"""Data sets in MNIST's IDX files."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from vae.data.base import DataError, Dataset, Split
from vae.data.published import PublishedFiles

PIXELS = 64 * 64  # of an image, at most: MNIST's has 784. Larger ones are not unpacked
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class IdxFiles(PublishedFiles):
    """MNIST and what is distributed in its four files, each packed by gzip or not.

    They must have the right length, counts and labels. Digests of .gz files are of their packed content.
    """

    counts: Mapping[str, int] = {"train": 60_000, "t10k": 10_000}
    otherwise = ", or use data=strokes"

    def read(self) -> Dataset:
        arrays = self.arrays()
        shapes = [arrays[f"{part}-images-idx3-ubyte"].shape[1:] for part in ("train", "t10k")]
        if shapes[0] != shapes[1]:
            raise DataError(f"{self.name}: images of {shapes[0]} and {shapes[1]} pixels lie together in {self.folder}")
        train, test = (
            Split(
                torch.from_numpy(arrays[f"{part}-images-idx3-ubyte"]).unsqueeze(1),
                torch.from_numpy(arrays[f"{part}-labels-idx1-ubyte"]).long(),
            )
            for part in ("train", "t10k")
        )
        return Dataset(self.name, train, test, classes=tuple(map(str, self.classes)))

    @property
    def files(self) -> Sequence[str]:
        return FILES

    def places(self) -> Sequence[Path]:
        return [self.folder / f"{file}{suffix}" for file in FILES for suffix in ("", ".gz")]

    def inside(self, file: str) -> Sequence[str]:
        return [file.removesuffix(".gz")]

    def packed(self, missing: Sequence[str]) -> Sequence[str]:
        return [f"{file}.gz" for file in missing]

    def most(self, file: str) -> int:
        """How many bytes a file can have; packing may make it a little longer."""
        part, kind = file.split("-")[:2]
        return 1000 + self.counts[part] * (PIXELS if kind == "images" else 1) * 101 // 100

    def decode(self, file: str, content: bytes) -> dict[str, np.ndarray]:
        name = file.removesuffix(".gz")
        part, kind = name.split("-")[:2]
        dims = 3 if kind == "images" else 1
        packed = io.BytesIO(content)
        stream = packed if file == name else gzip.GzipFile(fileobj=packed)
        try:
            header = stream.read(4 + 4 * dims)
            shape = self._shape(part, kind, header, dims)
            size = math.prod(shape)
            body = stream.read(size + 1)  # and not to its end, which may be far away
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"is damaged, truncated or no gzip file ({len(content):,} bytes: {error})") from None
        expected = len(header) + size
        if len(body) > size:
            raise DataError(f"has more bytes unpacked than the expected {expected:,}: it is damaged")
        if len(body) < size:
            found = len(header) + len(body)
            raise DataError(f"has {found:,} bytes unpacked, expected {expected:,}: it is truncated or damaged")
        for key, data in {file: content, name: header + body}.items():
            self.refuse_other_digest(key, data)
        array = np.frombuffer(body, np.uint8).reshape(shape)
        if kind == "labels" and array.max(initial=0) >= len(self.classes):
            raise DataError(f"has the label {array.max()}, expected 0 to {len(self.classes) - 1}")
        return {name: array.copy()}  # PyTorch wants memory that it may write to

    def _shape(self, part: str, kind: str, header: bytes, dims: int) -> tuple[int, ...]:
        """The array's shape, from the file's first bytes."""
        magic, *shape = np.frombuffer(header, ">u4").tolist() if len(header) == 4 + 4 * dims else [0]
        if magic != 0x0800 + dims:
            raise DataError(f"is no IDX file of {kind} (begins with {header[:4].hex(' ') or 'nothing'})")
        if shape[0] != self.counts[part]:
            raise DataError(f"has {shape[0]:,} {kind}, expected {self.counts[part]:,}")
        if not 1 <= math.prod(shape[1:]) <= PIXELS:
            raise DataError(f"has images of {shape[1]}×{shape[2]} pixels, expected 1 to {PIXELS:,} in each")
        return tuple(shape)
