"""Data sets in MNIST's IDX files: read from disk, or downloaded once and verified."""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vae.data.base import DataError, Dataset, DataSource, Part
from vae.data.download import download, exclusive, reachable

log = logging.getLogger(__name__)

PIXELS = 64 * 64  # of an image, at most: MNIST's has 784. Larger ones are not unpacked
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(eq=False, kw_only=True)
class IdxFiles(DataSource):
    """MNIST and what is distributed in its four files, from `<root>/<name>/` or the first mirror that serves them.

    No file is used unless it has the right length, counts and labels and, where one is published, the right SHA-256:
    `digests` has them by file name, with .gz for that of the compressed file.
    """

    counts = {"train": 60_000, "t10k": 10_000}  # noqa: RUF012, as an annotation would make an argument of it
    otherwise = ", or use data=strokes"  # advice where the files cannot be had

    name: str
    classes: Sequence[str]
    mirrors: Sequence[str]
    digests: Mapping[str, str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name in ("", ".", "..") or not self.name.isprintable() or {"/", "\\"} & set(self.name):
            raise ValueError(f"data.name={self.name!r}: must be the name of a folder directly below data.root")
        self.folder = self.root / self.name

    def read(self) -> Dataset:
        arrays, problems = self._look()
        if problems:
            arrays = self._download(problems)
        shapes = [arrays[f"{part}-images-idx3-ubyte"].shape[1:] for part in ("train", "t10k")]
        if shapes[0] != shapes[1]:
            raise DataError(f"{self.name}: images of {shapes[0]} and {shapes[1]} pixels lie together in {self.folder}")
        train, test = (
            Part(
                torch.from_numpy(arrays[f"{part}-images-idx3-ubyte"]).unsqueeze(1),
                torch.from_numpy(arrays[f"{part}-labels-idx1-ubyte"]).long(),
            )
            for part in ("train", "t10k")
        )
        return Dataset(self.name, train, test, classes=tuple(map(str, self.classes)))

    def _look(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """The arrays of all good files on disk and, for every other file, what is wrong with it."""
        arrays: dict[str, np.ndarray] = {}
        problems: dict[str, str] = {}
        for name in FILES:
            bad = []
            for path in (self.folder / name, self.folder / f"{name}.gz"):
                try:
                    arrays[name] = self._decode(path.name, self._content(path))
                    break
                except FileNotFoundError:
                    continue
                except (DataError, OSError) as error:
                    bad.append(f"{path} {getattr(error, 'strerror', None) or error}")
            if name not in arrays:
                problems[name] = " and ".join(bad)
            elif bad:
                log.warning("%s; %s is used instead. Delete or replace the bad file.", bad[0], path.name)
        return arrays, problems

    def _download(self, problems: Mapping[str, str]) -> dict[str, np.ndarray]:
        """All arrays, after downloading the files that have a problem."""
        try:
            mirrors = reachable(self.mirrors)  # before the lock, so that processes without a network do not queue
            with exclusive(self.folder):
                arrays, problems = self._look()  # another process may have downloaded them meanwhile
                sizes = {f"{name}.gz": self._most(name) for name in problems}
                download(sizes, self.folder, mirrors, self._decode)
                return self._look()[0] if problems else arrays
        except DataError as error:
            missing = [name for name, problem in problems.items() if not problem]
            facts = [problem for problem in problems.values() if problem]
            if missing:
                facts.append(
                    f"{'no files' if len(missing) == len(FILES) else 'no ' + ', '.join(missing)} in {self.folder}"
                )
            raise DataError(
                f"{self.name}: {'; '.join(facts)}; {error}; put the right files, .gz or not, into {self.folder} or set "
                f"VAE_DATA or data.root to where {self.name}/ is{self.otherwise}"
            ) from None

    def _most(self, file: str) -> int:
        """How many bytes a file can have, packed or not: packing may make it a little longer."""
        part, kind = file.split("-")[:2]
        return 1000 + self.counts[part] * (PIXELS if kind == "images" else 1) * 101 // 100

    def _content(self, path: Path) -> bytes:
        if path.exists() and not path.is_file():
            raise DataError("is no regular file")
        most = self._most(path.name)
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise DataError(f"has more than {most:,} bytes")
        return content

    def _decode(self, file: str, content: bytes) -> np.ndarray:
        """The array in the named file's `content`, or a `DataError` that says what is wrong with it."""
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
            digest = hashlib.sha256(data).hexdigest() if key in self.digests else None
            if digest is not None and digest != self.digests[key]:
                raise DataError(f"has the SHA-256 {digest[:16]}…, expected {self.digests[key][:16]}…")
        array = np.frombuffer(body, np.uint8).reshape(shape)
        if kind == "labels" and array.max(initial=0) >= len(self.classes):
            raise DataError(f"has the label {array.max()}, expected 0 to {len(self.classes) - 1}")
        return array.copy()  # PyTorch wants memory that it may write to

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
