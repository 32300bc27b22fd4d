"""Images with the true factors that made them, in one `.npz` file such as that of dSprites."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vae.data import npz
from vae.data.base import DataError, Dataset, Split, split_off_test

DSPRITES = ("color", "shape", "scale", "orientation", "posX", "posY")  # which its file has in a pickle only
LARGEST = np.finfo(np.float32).max
BLOCK = 2**24  # bytes of images that are unpacked at once


@dataclass(eq=False, kw_only=True)
class FactorFile(npz.NpzSource):
    """The arrays of one `.npz` file; nothing else in it is read, and no pickle ever.

    - `imgs` or `images`: uint8 (n, height, width) or (n, height, width, 1 or 3); if none is above 1, 1 is white
    - `latents_values` or `factors`: numbers (n, factors); those that do not vary are left out
    - `factor_names`, if there: strings (factors,)
    - `labels` or `classes`, if there: integers or strings (n,)

    The choice of test images, and of those within a limit, is random and depends on their number alone.
    """

    def read(self) -> Dataset:
        try:
            with npz.archive(self.path) as file:
                factors, names = _factors(file)
                labels, classes = _labels(file, len(factors))
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(
                f"factors: there is no file {self.path}; set data.file to an .npz file of images and factors. The "
                f"default is that of dSprites, which DeepMind's dsprites-dataset on GitHub has"
            ) from None
        except ValueError as error:
            raise DataError(f"factors: {error}") from None
        # At random, because the first images may be of one kind: dSprites begins with a quarter of a million squares.
        parts = split_off_test("factors", len(factors), self.test_fraction, self.limit)
        try:
            with npz.archive(self.path) as file:
                images = scaled(*images_of(file, _one_of(file, "imgs", "images"), len(factors), parts))
        except ValueError as error:
            raise DataError(f"factors: {error}") from None
        train, test = (Split(image, labels[i], factors[i]) for image, i in zip(images, parts, strict=True))
        return Dataset("factors", train, test, classes=classes, factor_names=names)


def _factors(archive: zipfile.ZipFile) -> tuple[Tensor, tuple[str, ...]]:
    """The factors that vary, float32 (n, factors), and their names."""
    key = _one_of(archive, "latents_values", "factors")
    factors = npz.whole(archive, key)
    if factors.ndim != 2 or factors.dtype.kind not in "biuf" or not (abs(factors) <= LARGEST).all():
        raise DataError(f"{key} is {_kind(factors)}; it must be finite numbers (images, factors)")
    names = [f"factor {i + 1}" for i in range(factors.shape[1])]
    if "factor_names.npy" in archive.namelist():
        found = npz.whole(archive, "factor_names")
        if found.shape != (len(names),) or found.dtype.kind != "U":
            raise DataError(f"factor_names is {_kind(found)}; it must be {len(names)} strings")
        names = found.tolist()
    elif key == "latents_values" and len(names) == len(DSPRITES):
        names = list(DSPRITES)
    varies = (factors != factors[:1]).any(0)
    if not varies.any():
        raise DataError(f"no factor in {key} varies")
    kept = torch.from_numpy(factors[:, varies].astype(np.float32))
    return kept, tuple(name for name, ok in zip(names, varies, strict=True) if ok)


def _labels(archive: zipfile.ZipFile, count: int) -> tuple[Tensor, tuple[str, ...]]:
    """The number of each image's class, int64 (n,), and the names of the classes, if there are any."""
    if not {"labels.npy", "classes.npy"} & set(archive.namelist()):
        return torch.zeros(count, dtype=torch.int64), ()
    key = _one_of(archive, "labels", "classes")
    labels = npz.whole(archive, key)
    refuse_other_labels(key, labels, count)
    classes, index = np.unique(labels, return_inverse=True)
    return torch.from_numpy(index.astype(np.int64)), tuple(map(str, classes))


def refuse_other_labels(key: str, labels: np.ndarray, count: int) -> None:
    """All but an integer or a string for each image."""
    if labels.shape != (count,) or labels.dtype.kind not in "biuU":
        raise DataError(f"{key} is {_kind(labels)}; it must be an integer or a string for each of {count:,} images")


def images_of(archive: zipfile.ZipFile, key: str, count: int, parts: Sequence[Tensor]) -> tuple[list[np.ndarray], int]:
    """The images, uint8 (·, channels, height, width), of each part, given by their indices, and the brightest value.

    In one pass, so that no more is in memory than these images: all those of dSprites take 3 GB.
    """
    slots = [np.full(count, -1) for _ in parts]  # the place in its part of each image of the file, −1 for none
    for slot, index in zip(slots, parts, strict=True):
        slot[index] = np.arange(len(index))
    found: list[np.ndarray] = []
    start, brightest = 0, 0
    for block in _blocks(archive, key, count):
        if not found:
            found = [np.empty((len(index), *block.shape[1:]), np.uint8) for index in parts]
        for images, slot in zip(found, slots, strict=True):
            own = slot[start : start + len(block)]
            wanted = own >= 0
            images[own[wanted]] = block[wanted]
        start += len(block)
        brightest = max(brightest, int(block.max()))
    return found, brightest


def scaled(found: Sequence[np.ndarray], brightest: int) -> list[Tensor]:
    """Images from 0 to 255; if no value is above 1, 1 is white."""
    if brightest <= 1:
        for images in found:
            images *= 255
    return [torch.from_numpy(images) for images in found]


def _blocks(archive: zipfile.ZipFile, key: str, count: int) -> Iterator[np.ndarray]:
    """The images in the file's order, uint8 (·, channels, height, width), some at a time."""
    with npz.opened(archive, key) as (member, header):
        shape = header.shape
        if header.dtype != np.uint8:
            raise DataError(f"{key} is {header.dtype}; it must be uint8, from 0 to 255 or of 0 and 1 alone")
        if not (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))) or min(shape) < 1:
            raise DataError(f"{key} is of {shape}; it must be (n, height, width) or (n, height, width, 1 or 3)")
        if shape[0] != count:
            raise DataError(f"{key} has {shape[0]:,} images, but there are factors of {count:,}")
        height, width, *channels = shape[1:]
        step = max(1, BLOCK // math.prod(shape[1:]))
        hidden = None if count > step else True  # None: shown only in a terminal
        for part in tqdm(npz.parts(member, header, step), "reading images", -(-count // step), disable=hidden):
            yield part.reshape(-1, height, width, *(channels or [1])).transpose(0, 3, 1, 2)


def _one_of(archive: zipfile.ZipFile, *keys: str) -> str:
    """The first of these keys that the file has."""
    has = [name.removesuffix(".npy") for name in archive.namelist()]
    for key in keys:
        if key in has:
            return key
    raise DataError(f"has no {' or '.join(keys)}, only {', '.join(has) or 'nothing'}")


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} of {array.shape}"
