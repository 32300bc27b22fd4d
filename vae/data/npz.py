"""Arrays in .npz files, a part at a time: for more images than memory holds."""

from __future__ import annotations

import io
import math
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from vae.common.files import replacing
from vae.data.base import DataError, DataSource, from_home, one_line

HEADER = 2**14  # bytes of a member that hold an array's header: NumPy itself takes 10,000
WHOLE = 2**27  # bytes of an array that is read at once: the factors of dSprites have 35 MB
# An array of more than BOMB bytes must not be packed to less than one in RATIO: dSprites, which is all black or white,
# has 120, and a bomb comes near to the 1032 that are possible.
BOMB, RATIO = 2**26, 400


def write_npz(path: Path, shape: Sequence[int], images: Iterable[np.ndarray], others: Mapping[str, np.ndarray]) -> None:
    """Write `images`, the uint8 array of this shape that the parts add up to, and other arrays, atomically."""
    header = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as file:
            npy.write_array_header_1_0(file, header)
            for part in images:
                file.write(part.tobytes())
        for name, array in others.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                npy.write_array(file, array, allow_pickle=False)


def npz_like(path: Path) -> np.ndarray:
    """The shape and the type of the array `images`: an array of zeros that takes no memory."""
    with _images(path) as (_, header):
        return np.broadcast_to(np.zeros((), header.dtype), header.shape)


def read_npz(path: Path, at_once: int) -> Iterator[np.ndarray]:
    """The array `images`, `at_once` at a time."""
    with _images(path) as (member, header):
        yield from parts(member, header, at_once)


def npz_labels(path: Path) -> np.ndarray | None:
    """The array `labels`, if there is one."""
    with archive(path) as file:
        return whole(file, "labels") if "labels.npy" in file.namelist() else None


@dataclass(eq=False, kw_only=True)
class NpzSource(DataSource):
    """Base of sources that are one `.npz` file, of whose images a part is split off for testing."""

    file: str
    test_fraction: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self.path = self.root / from_home(self.file)  # an absolute one stays what it is


@contextmanager
def archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The open file. All errors but that of a missing file are a `ValueError` of one line."""
    try:
        if path.exists() and not path.is_file():
            raise DataError("is no regular file")
        with zipfile.ZipFile(path) as file:
            yield file
    except (FileNotFoundError, NotADirectoryError, MemoryError):
        raise
    except DataError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file may fail in any way
        reason = one_line(getattr(error, "strerror", None) or error)
        raise ValueError(f"{path}: no .npz file, or a damaged one ({reason})") from error


class Header(NamedTuple):
    """The header before an array's numbers."""

    length: int  # bytes, this header's own
    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype


@contextmanager
def opened(file: zipfile.ZipFile, key: str) -> Iterator[tuple[IO[bytes], Header]]:
    """The numbers of one array to be read in parts, with what they are."""
    header = _header(file, key)
    if header.by_columns or not header.shape:
        raise DataError(f"{key} must be a plain array in C order; numpy.ascontiguousarray makes one")
    with file.open(f"{key}.npy") as member:
        member.read(header.length)
        yield member, header


def parts(member: IO[bytes], header: Header, at_once: int) -> Iterator[np.ndarray]:
    """The array that was `opened`, `at_once` rows at a time. The checksum is compared with the last of them."""
    count, *row = header.shape
    for start in range(0, count, at_once):
        part = (min(at_once, count - start), *row)
        yield _numbers(member, part, header.dtype).reshape(part)


def whole(file: zipfile.ZipFile, key: str) -> np.ndarray:
    """One of the smaller arrays, which may be changed."""
    header = _header(file, key)
    size = math.prod(header.shape) * header.dtype.itemsize
    if size > WHOLE:
        raise DataError(f"{key} has {size:,} bytes, more than the {WHOLE:,} that are read of anything but images")
    with file.open(f"{key}.npy") as member:
        member.read(header.length)
        numbers = _numbers(member, header.shape, header.dtype)
    if header.dtype.kind == "U" and numbers.view(f"{header.dtype.byteorder}u4").max(initial=0) > sys.maxunicode:
        raise DataError(f"{key} has characters that do not exist")
    return numbers.reshape(header.shape, order="F" if header.by_columns else "C").copy()


def _header(file: zipfile.ZipFile, key: str) -> Header:
    """An array's header, if it is of numbers or strings, and as long as it says. Nothing else is unpacked.

    NumPy would read a pickle's header, and of an absurd shape or length as much as memory holds.
    """
    info = file.getinfo(f"{key}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{key} is packed as numpy.savez never does it")  # those others unpack without bounds
    with file.open(info) as member:
        start = io.BytesIO(member.read(HEADER))
    try:
        version = npy.read_magic(start)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_columns, dtype = read(start)
    except Exception:  # its parser may raise anything
        raise DataError(f"{key} is no NumPy array") from None
    if dtype.kind not in "biufU" or dtype.itemsize == 0:
        raise DataError(f"{key} must be a plain array of numbers or strings, and is of {dtype}")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or start.tell() + size != info.file_size:
        raise DataError(f"{key} says that it is {dtype} of {shape}, which its data are not")
    if size > BOMB and size > RATIO * info.compress_size:
        raise DataError(f"{key} has {info.compress_size:,} bytes that grow to {size:,}: as a bomb does, and no data")
    return Header(start.tell(), shape, by_columns, dtype)


def _numbers(member: IO[bytes], shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """The next numbers of an array of this shape, in one row."""
    size = math.prod(shape) * dtype.itemsize
    content = member.read(size)
    if len(content) < size:
        raise DataError("an array ends before its last row")
    return np.frombuffer(content, dtype)


@contextmanager
def _images(path: Path) -> Iterator[tuple[IO[bytes], Header]]:
    with archive(path) as file:
        names = [name.removesuffix(".npy") for name in file.namelist()]
        if "images" not in names:
            raise DataError(f"must have an array called images, but has {', '.join(names) or 'none'}")
        with opened(file, "images") as found:
            yield found
