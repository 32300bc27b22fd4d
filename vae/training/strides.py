"""What Lightning takes for a batch: a stride of many, so that its own work for each is divided among them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from vae.data.loader import BatchLoader

LENGTH = 50  # batches: a fiftieth of Lightning's work for each is less than a hundredth of a small model's step

Served = tuple[Tensor, Tensor]  # by the loader: images (batch, channels, height, width) in [0, 1], labels (batch,)


class Stride:
    """Some batches of an epoch, each made when it is asked for, with its place in the epoch."""

    def __init__(self, batches: Iterator[Served], places: range):
        self.batches = batches
        self.places = places

    def __iter__(self) -> Iterator[tuple[int, Served]]:
        return zip(self.places, self.batches, strict=False)  # the batches go on in the next stride


class Strides:
    """An epoch of a loader in strides of `length` batches; only the first and the last may have fewer.

    The places in the epoch where strides end are always the same, so that Lightning counts as many in every epoch.
    """

    def __init__(self, loader: BatchLoader, length: int = LENGTH):
        self.loader = loader
        self.length = length

    def __len__(self) -> int:
        return -(-len(self.loader) // self.length)

    @property
    def done(self) -> int:
        """How many strides an epoch has behind it that begins where the loader does."""
        return self.loader.first // self.length

    def __iter__(self) -> Iterator[Stride]:
        batches = iter(self.loader)
        for stride in range(self.done, len(self)):
            first = max(self.loader.first, stride * self.length)
            yield Stride(batches, range(first, min((stride + 1) * self.length, len(self.loader))))

    def state_dict(self) -> dict[str, int]:
        """The loader's; Lightning stores it in its checkpoints."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on in the next epoch where the loader was, whatever the strides' length was."""
        self.loader.load_state_dict(state)
