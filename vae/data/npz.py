"""Arrays in .npz files, a part at a time: for more images than memory holds."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

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
    with _opened(path) as (file, shape, dtype):
        for start in range(0, shape[0], at_once):
            part = (min(at_once, shape[0] - start), *shape[1:])
            size = int(np.prod(part)) * dtype.itemsize
            content = file.read(size)
            if len(content) < size:
                raise ValueError(f"{path}: ends before its last image")
            yield np.frombuffer(content, dtype).reshape(part)


def npz_labels(path: Path) -> np.ndarray | None:
    """The array `labels`, if there is one."""
    with _in_one_line(path), np.load(path, allow_pickle=False) as arrays:
        return arrays.get("labels")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype]]:
    """The numbers of the array `images`, with its shape and type."""
    with _in_one_line(path), zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if "images" not in names:
            raise ValueError(f"{path}: must have an array called images, but has {', '.join(names) or 'none'}")
        with archive.open("images.npy") as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, by_columns, dtype = read(file)
            if by_columns or dtype.hasobject or not shape:
                raise ValueError(f"{path}: images must be a plain array in C order")
            yield file, shape, dtype


@contextmanager
def _in_one_line(path: Path) -> Iterator[None]:
    """What the modules that read archives raise, as a `ValueError`."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: no .npz file, or a damaged one ({error})") from error
