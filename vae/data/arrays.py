"""Images and their classes in one `.npz` file, in the ways in which people have them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vae.data import npz
from vae.data.base import DataError, Dataset, Split, at_most, one_line, split_off_test
from vae.data.factors import images_of, refuse_other_labels, scaled

MOST = 1000  # classes; what has more values is something else


@dataclass(eq=False, kw_only=True)
class ArrayFile(npz.NpzSource):
    """The arrays of one `.npz` file; nothing else in it is read, and no pickle ever.

    - `x_train` and `x_test`, a split that is kept, or `images`, of which `test_fraction` is split off: uint8
      (n, height, width) or (n, height, width, 1 or 3); if no value is above 1, 1 is white
    - `y_train` and `y_test`, or `labels`, if there: integers or strings, (n,) or (n, 1)
    - `classes`, if there: strings, the names of the labels 0, 1, …

    What is chosen at random, test images and those within a limit, depends on the number of images alone.
    """

    def read(self) -> Dataset:
        try:
            with npz.archive(self.path) as file:
                return self._read(file)
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(f"arrays: there is no file {self.path}; set data.file to an .npz file of images") from None
        except ValueError as error:
            raise DataError(f"arrays: {error}") from None

    def _read(self, file: zipfile.ZipFile) -> Dataset:
        has = [name.removesuffix(".npy") for name in file.namelist()]
        if {"x_train", "x_test"} <= {*has}:
            keys, label_keys = ["x_train", "x_test"], ["y_train", "y_test"]
        elif "images" in has:
            keys, label_keys = ["images"], ["labels"]
        else:
            raise DataError(f"has no x_train with x_test and no images, only {one_line(', '.join(has)) or 'nothing'}")
        counts = [_count(file, key) for key in keys]
        if len(keys) == 2:
            chosen = [[at_most("arrays", count, self.limit)] for count in counts]
        else:
            chosen = [[*split_off_test("arrays", counts[0], self.test_fraction, self.limit)]]
        labels, classes = _labels(file, label_keys, counts)
        read = [images_of(file, *each) for each in zip(keys, counts, chosen, strict=True)]
        images = scaled([array for arrays, _ in read for array in arrays], max(brightest for _, brightest in read))
        of_parts = [label[index] for label, indices in zip(labels, chosen, strict=True) for index in indices]
        train, test = (Split(image, label) for image, label in zip(images, of_parts, strict=True))
        if train.images.shape[1:] != test.images.shape[1:]:
            sizes = " and ".join(f"{c}×{h}×{w}" for c, h, w in (part.images.shape[1:] for part in (train, test)))
            raise DataError(f"x_train and x_test are of {sizes} (channels, height, width); they must be of one size")
        return Dataset("arrays", train, test, classes=classes)


def _count(file: zipfile.ZipFile, key: str) -> int:
    with npz.opened(file, key) as (_, header):
        return header.shape[0]


def _labels(file: zipfile.ZipFile, keys: Sequence[str], counts: Sequence[int]) -> tuple[list[Tensor], tuple[str, ...]]:
    """The number of each image's class, int64 (n,) for each key, and the names of the classes, if there are any."""
    missing = [key for key in keys if f"{key}.npy" not in file.namelist()]
    if len(missing) == len(keys):
        return [torch.zeros(count, dtype=torch.int64) for count in counts], ()
    if missing:
        raise DataError(f"has no {missing[0]}, but labels for the other images")
    found = []
    for key, count in zip(keys, counts, strict=True):
        labels = npz.whole(file, key)
        found.append(labels[:, 0] if labels.shape == (count, 1) else labels)
        refuse_other_labels(key, found[-1], count)
    if len({labels.dtype.kind == "U" for labels in found}) > 1:
        raise DataError(f"{' and '.join(keys)} must both be integers or both be strings")
    together = np.concatenate(found)
    if together.dtype.kind not in "biuU":  # NumPy makes floats of int64 beside uint64
        raise DataError(f"{' and '.join(keys)} are integers of types that have no common one")
    values, index = np.unique(together, return_inverse=True)
    if len(values) > MOST:
        raise DataError(f"{' and '.join(keys)} have {len(values):,} different values; classes are at most {MOST:,}")
    classes = [one_line(value) for value in values]
    if "classes.npy" in file.namelist():
        classes = _names(file, values)
        index = together.astype(np.int64)
    return list(torch.from_numpy(index.astype(np.int64)).split(list(counts))), tuple(classes)


def _names(file: zipfile.ZipFile, values: np.ndarray) -> list[str]:
    """The names of all classes, of which labels are the numbers."""
    names = npz.whole(file, "classes")
    if names.ndim != 1 or names.dtype.kind != "U" or not 0 < len(names) <= MOST or len({*names}) < len(names):
        raise DataError(f"classes is {names.dtype} of {names.shape}; it must be 1 to {MOST:,} different strings")
    if values.dtype.kind == "U" or values.min() < 0 or values.max() >= len(names):
        raise DataError(f"labels must be integers from 0 to {len(names) - 1}, of which classes has the names")
    return [one_line(name) for name in names]
