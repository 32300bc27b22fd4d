"""Arrays in .npz files, a part at a time: for more images than memory holds."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from vae.data.base import DataError
from vae.files import replacing


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


def npz_shape(path: Path) -> tuple[int, ...]:
    """The shape of the array `images`."""
    with _opened(path) as (_, shape, _):
        return shape


def read_npz(path: Path, at_once: int) -> Iterator[np.ndarray]:
    """The array `images`, so many at a time."""
    with _opened(path) as (member, shape, dtype):
        yield from parts(member, shape, dtype, at_once)


def npz_labels(path: Path) -> np.ndarray | None:
    """The array `labels`, if there is one."""
    with _in_one_line(path), np.load(path, allow_pickle=False) as arrays:
        return arrays.get("labels")


@contextmanager
def opened(archive: zipfile.ZipFile, key: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype]]:
    """The numbers of one array, which no pickle is needed for, with its shape and type."""
    with archive.open(f"{key}.npy") as member:
        try:
            version = npy.read_magic(member)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, by_columns, dtype = read(member)
        except ValueError:
            raise DataError(f"{key} is no NumPy array") from None
        if by_columns or dtype.hasobject or not shape:
            raise DataError(f"{key} must be a plain array in C order; numpy.ascontiguousarray makes one")
        yield member, shape, dtype


def parts(member: IO[bytes], shape: Sequence[int], dtype: np.dtype, at_once: int) -> Iterator[np.ndarray]:
    """The array that was `opened`, so many rows at a time."""
    for start in range(0, shape[0], at_once):
        part = (min(at_once, shape[0] - start), *shape[1:])
        size = math.prod(part) * dtype.itemsize
        content = member.read(size)
        if len(content) < size:
            raise DataError("an array ends before its last row")
        yield np.frombuffer(content, dtype).reshape(part)
    if member.read(1):  # the checksum, too, is compared only at the end
        raise DataError("an array is longer than it says")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype]]:
    with _in_one_line(path), zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if "images" not in names:
            raise DataError(f"must have an array called images, but has {', '.join(names) or 'none'}")
        with opened(archive, "images") as found:
            yield found


@contextmanager
def _in_one_line(path: Path) -> Iterator[None]:
    """What is wrong with a file, with its name."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: no .npz file, or a damaged one ({error})") from error
    except DataError as error:
        raise ValueError(f"{path}: {error}") from error
