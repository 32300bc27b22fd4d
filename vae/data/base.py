"""The base of all data sources: reading, splitting and limiting. Images are uint8 until a batch is served."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vae.common.seeding import derive


class DataError(RuntimeError):
    """A data set cannot be had: missing, corrupt, or not downloadable. The message says what to do, in one line."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


DEFAULT_ROOT = "~/.cache/vae"  # where data lie unless VAE_DATA or data.root says otherwise


class Split(NamedTuple):
    """The images of one part of a data set, or some of them, with what is known about each."""

    images: Tensor  # uint8 (n, channels, height, width)
    labels: Tensor  # int64 (n,); all zero where the data has no classes
    factors: Tensor | None = None  # float32 (n, factors): the true generative factors, where they are known

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Tensor | slice) -> Split:
        """The chosen images with their labels and factors."""
        factors = None if self.factors is None else self.factors[index]
        return Split(self.images[index], self.labels[index], factors)

    def some(self, count: int) -> Split:
        """At most `count` images, evenly chosen: in MNIST's test set the first ones are easier than the last."""
        return self.take(slice(None, None, -(-len(self) // count)))


@dataclass(frozen=True)
class Dataset:
    """A whole data set in memory. `DataSource.load` splits `val` off `train`, unless the source has its own."""

    name: str  # of the data really read
    train: Split
    test: Split
    val: Split | None = None
    classes: tuple[str, ...] = ()  # empty where the data has no classes
    factor_names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


@dataclass(eq=False)
class DataSource:
    """Base of all data sources: a subclass says how to `read`, this class splits, limits and binarises."""

    root: Path  # or its name
    batch_size: int = 128
    val_fraction: float = 0.1
    binarize: str = "none"  # or threshold or dynamic
    limit: int | None = None  # at most this many training (validation included) and this many test images
    flip: bool = False  # each training image, anew in every epoch, is mirrored left to right with probability ½

    def __post_init__(self) -> None:
        self.root = from_home(self.root)

    def read(self) -> Dataset:
        """Every training and test image of the source, unsplit. Raises `DataError` where they cannot be had."""
        raise NotImplementedError

    def load(self) -> Dataset:
        """The data set as it is trained on: limited, thresholded where asked, with a part for validation.

        The split does not depend on the run's seed, so that runs with different seeds are validated on the same images.
        """
        data = self.read()
        train, test = self._as_asked(data.train), self._as_asked(data.test)
        if data.val is not None:
            return replace(data, train=train, val=self._as_asked(data.val), test=test)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(derive(len(train))))
        n_val = round(self.val_fraction * len(train))
        if not 0 < n_val < len(train):
            raise ValueError(
                f"data.val_fraction={self.val_fraction}: leaves {len(train) - n_val} training and {n_val} validation "
                f"images of {len(train)}; both must be at least 1"
            )
        val_index, train_index = order[:n_val].sort().values, order[n_val:].sort().values
        return replace(data, train=train.take(train_index), val=train.take(val_index), test=test)

    def _as_asked(self, part: Split) -> Split:
        """The part limited and, where asked, thresholded."""
        part = part.take(slice(self.limit))
        if self.binarize != "threshold":
            return part
        # Not `_replace`, which takes `len(part)` for the number of fields.
        return Split((part.images >= 128).byte() * 255, part.labels, part.factors)


def from_home(path: str | Path) -> Path:
    """The path with the home folder in the place of `~`."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # neither HOME nor the system's list of users says
        raise ValueError(
            f"{path}: this user has no known home folder; set VAE_DATA or data.root to a folder for the data"
        ) from None


def one_line(text: object) -> str:
    """The text with unprintable characters escaped: some files' names and servers' answers have them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def split_off_test(name: str, count: int, test_fraction: float, limit: int | None) -> tuple[Tensor, Tensor]:
    """The indices of the training and of the test images, at most `limit` of each, in random order.

    They depend on the source's name and the number of its images alone.
    """
    n_test = round(test_fraction * count)
    if not 0 < n_test < count:
        raise ValueError(
            f"data.test_fraction={test_fraction}: leaves {count - n_test} training and {n_test} test "
            f"images of {count}; both must be at least 1"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(derive(name, count)))
    return order[n_test:][:limit], order[:n_test][:limit]


def at_most(name: str, count: int, limit: int | None) -> Tensor:
    """The indices of all images in their order; or of `limit` at random, because the first may be of one class.

    They depend on the source's name and the number of its images alone.
    """
    if limit is None or limit >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive(name, count)))[:limit]
