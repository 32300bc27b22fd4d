"""CIFAR-10 in its official binary files."""

from __future__ import annotations

import gzip
import io
import math
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from vae.data.base import DataError, Dataset, Split
from vae.data.published import PublishedFiles

ARCHIVE = "cifar-10-binary.tar.gz"
BATCHES = "cifar-10-batches-bin"  # the folder in the archive
TRAIN, TEST = tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"
FILES = (*TRAIN, TEST)
SHAPE = (3, 32, 32)
RECORD = 1 + math.prod(SHAPE)  # bytes: the class, then the red, the green and the blue plane
BESIDE = 2**20  # bytes of the archive that are no images, at most


class Cifar10(PublishedFiles):
    """CIFAR-10 (Krizhevsky, 2009), in the order of its official files.

    These are one archive, or what is in it: six files, alone or in their folder. The archive is read where it is, and
    nothing is unpacked to the disk.
    """

    counts: Mapping[str, int] = dict.fromkeys(FILES, 10_000)
    otherwise = ", or use data=arrays with an .npz file of the images"

    def read(self) -> Dataset:
        arrays = self.arrays()
        train, test = (_split([arrays[file] for file in files]) for files in (TRAIN, [TEST]))
        return Dataset(self.name, train, test, classes=tuple(map(str, self.classes)))

    @property
    def files(self) -> Sequence[str]:
        return FILES

    def places(self) -> Sequence[Path]:
        unpacked = [folder / file for file in FILES for folder in (self.folder, self.folder / BATCHES)]
        return [*unpacked, self.folder / ARCHIVE]

    def inside(self, file: str) -> Sequence[str]:
        return FILES if file == ARCHIVE else [file]

    def packed(self, missing: Sequence[str]) -> Sequence[str]:
        return [ARCHIVE]

    def most(self, file: str) -> int:
        """How many bytes a file can have: the archive no more than what is in it."""
        return sum(self.counts[each] * RECORD for each in self.inside(file)) + (BESIDE if file == ARCHIVE else 0)

    def decode(self, file: str, content: bytes) -> dict[str, np.ndarray]:
        if file != ARCHIVE:
            return {file: self._records(file, content)}
        self.refuse_other_digest(file, content)
        found = {}
        for name, inside in self._unpacked(content).items():
            try:
                found[name] = self._records(name, inside)
            except DataError as error:
                raise DataError(f"has a {name} that {error}") from None
        return found

    def _records(self, file: str, content: bytes) -> np.ndarray:
        """The records (n, 3073) of one of the six files."""
        expected = self.counts[file] * RECORD
        if len(content) != expected:
            raise DataError(f"has {len(content):,} bytes, expected {expected:,}: it is truncated or damaged")
        self.refuse_other_digest(file, content)
        records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
        if (label := records[:, 0].max()) >= len(self.classes):
            raise DataError(f"has the label {label}, expected 0 to {len(self.classes) - 1}")
        return records

    def _unpacked(self, content: bytes) -> dict[str, bytes]:
        """The content of the six files in the archive."""
        found: dict[str, bytes] = {}
        most = self.most(ARCHIVE)
        stream = _Bounded(content, most)
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    if archive.offset > most:  # to go there takes for ever, though nothing is read on the way
                        raise DataError(f"has more than {most:,} bytes unpacked")
                    name = member.name.removeprefix(f"{BATCHES}/")
                    if name in FILES and name not in found and member.isreg():
                        found[name] = self._member(archive, member, name)
                    if len(found) == len(FILES):
                        return found
        except DataError:
            raise
        except Exception as error:  # a damaged archive may fail in any way
            raise DataError(f"is damaged, truncated or no .tar.gz file ({len(content):,} bytes: {error})") from None
        raise DataError(f"has no {', '.join(file for file in FILES if file not in found)} in it")

    def _member(self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> bytes:
        expected = self.counts[name] * RECORD
        if member.size != expected:  # before any of it is read
            raise DataError(f"has a {name} of {member.size:,} bytes, expected {expected:,}")
        file = archive.extractfile(member)
        assert file is not None
        return file.read()


class _Bounded(gzip.GzipFile):
    """What unpacks to at most so many bytes: one long header of an archive could fill the memory."""

    def __init__(self, content: bytes, most: int):
        super().__init__(fileobj=io.BytesIO(content), mode="rb")
        self._most = self._left = most

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size)
        self._left -= len(piece)
        if self._left < 0:
            raise DataError(f"has more than {self._most:,} bytes unpacked")
        return piece


def _split(batches: Sequence[np.ndarray]) -> Split:
    """The images and classes of records."""
    records = np.concatenate(batches)
    images, labels = np.ascontiguousarray(records[:, 1:]).reshape(-1, *SHAPE), records[:, 0].astype(np.int64)
    return Split(torch.from_numpy(images), torch.from_numpy(labels))
