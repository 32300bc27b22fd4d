"""Whole batches out of memory: no worker processes, no work for each image."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import NamedTuple

import torch
from torch import Tensor

from vae.common.seeding import derive
from vae.data.base import DataSource, Split

NUMBERS_AT_ONCE = 2**24  # of images on a GPU, where kernels for each batch alone would take longer than those numbers


class Share(NamedTuple):
    """One process's part of a batch."""

    images: slice  # which of the batch's
    size: int  # of the whole batch
    weight: float  # of the part's mean: the average over all processes is then the mean over the batch


class BatchLoader:
    """Yields (images in [0, 1], labels); the uint8 images stay where they are, `to` moves them.

    An epoch's order (`shuffle`), its mirrored images (`flip`) and Bernoulli draws (`dynamic`) depend on `seed` and
    `epoch` alone.
    """

    def __init__(
        self,
        part: Split,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        dynamic: bool = False,
        flip: bool = False,
    ):
        self.images = part.images
        self.labels = part.labels
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.dynamic = dynamic
        self.flip = flip
        self.epoch = 0  # set by the training loop; stays 0 where every pass is to be the same
        self.first = 0  # the batch that the next pass begins with: not 0 where a stopped run goes on
        self._served = 0
        self._rank, self._processes = 0, 1
        self.dtype = torch.float32

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Keep the images on the device that the model is on, and serve them in its type."""
        self.images, self.labels = self.images.to(device), self.labels.to(device)
        self.dtype = dtype

    def of_process(self, rank: int, processes: int) -> BatchLoader:
        """The loader of one of several processes: it serves its share of every batch. The images are not copied."""
        loader = copy(self)
        loader._rank, loader._processes = rank, processes
        return loader

    def share(self, batch: int) -> Share:
        """This process's share of a batch."""
        size = min(self.batch_size, len(self.images) - batch * self.batch_size)
        first, last = (-(-size * rank // self._processes) for rank in (self._rank, self._rank + 1))
        # With fewer images than processes some serve one of weight 0, because all must take every step.
        images = slice(first, last) if first < last else slice(0, 1)
        return Share(images, size, weight=(last - first) * self._processes / size)

    def start_epoch(self, epoch: int) -> None:
        """Begin a whole pass, in this epoch's order."""
        self.epoch, self.first = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """The place in the pass; Lightning stores it in its checkpoints."""
        return {"epoch": self.epoch, "batch": self._served}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with the next pass where the stored one was."""
        self.epoch, self.first = state["epoch"], state["batch"]

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch, (images, labels) in enumerate(self._all_batches()):
            if batch < self.first:
                continue
            self._served = batch + 1
            if self._processes > 1:
                share = self.share(batch).images
                images, labels = images[share], labels[share]
            yield images.to(self.dtype), labels

    def _all_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All of the pass, so that what is drawn does not depend on the batch that it begins with."""
        device = self.images.device
        generator = torch.Generator(device).manual_seed(derive(self.seed, self.epoch, "batches"))
        order = torch.randperm(len(self.images), generator=generator, device=device) if self.shuffle else None
        count = self._made_at_once() * self.batch_size
        for first in range(0, len(self.images), count):
            chosen = slice(first, first + count)
            images = _taken(self.images, chosen, order)
            if self.flip:
                images = _flipped(images, generator)
            images = images.float().div_(255)  # also where doubles are the default
            if self.dynamic:
                images = torch.bernoulli(images, generator=generator)
            labels = _taken(self.labels, chosen, order)
            yield from zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True)

    def _made_at_once(self) -> int:
        """How many batches."""
        return max(1, NUMBERS_AT_ONCE // self.images[: self.batch_size].numel()) if self.images.is_cuda else 1


def _taken(rows: Tensor, chosen: slice, order: Tensor | None) -> Tensor:
    """The chosen rows, in the given order if there is one."""
    # index_select copies whole rows; an index in brackets copies number by number, in three times the time.
    return rows[chosen] if order is None else rows.index_select(0, order[chosen])


def _flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image as it is or mirrored left to right, by a fair coin."""
    coins = torch.rand(len(images), generator=generator, device=images.device, dtype=torch.float32)
    return torch.where((coins < 0.5).view(-1, 1, 1, 1), images.flip(-1), images)


def as_seen(source: DataSource, part: Split, name: str, device: torch.device) -> Split:
    """The images as an evaluation on that device sees them: `dynamic` ones as `evaluation_loader` draws them.

    A subset of these has the same draws as the whole part; drawn by itself it would have others.
    """
    if source.binarize != "dynamic":
        return part
    loader = evaluation_loader(source, part, name)
    loader.to(device)
    drawn = torch.cat([(255 * images).byte() for images, _ in loader])
    return Split(drawn.to(part.images.device), part.labels, part.factors)


def evaluation_loader(source: DataSource, part: Split, name: str) -> BatchLoader:
    """Images to evaluate, with the same Bernoulli draws in every run, so that runs of different seeds are comparable.

    Without gradients there is room for larger batches.
    """
    return BatchLoader(part, 4 * source.batch_size, derive(name), dynamic=source.binarize == "dynamic")
