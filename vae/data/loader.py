"""Whole batches out of memory: no worker processes, no work for each image."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vae.data.base import Part
from vae.seeding import derive


class BatchLoader:
    """Yields (images in [0, 1], labels); the uint8 images stay on `device`.

    The order (`shuffle`) and the Bernoulli draws (`dynamic`) of an epoch depend on nothing but `seed` and `epoch`.
    """

    def __init__(
        self,
        part: Part,
        batch_size: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        shuffle: bool = False,
        dynamic: bool = False,
    ):
        self.images = part.images.to(device)
        self.labels = part.labels.to(device)
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.dynamic = dynamic
        self.epoch = 0  # set by the training loop; stays 0 where every pass is to be the same

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        device = self.images.device
        generator = torch.Generator(device).manual_seed(derive(self.seed, self.epoch, "batches"))
        order = torch.randperm(len(self.images), generator=generator, device=device) if self.shuffle else None
        for start in range(0, len(self.images), self.batch_size):
            chosen = slice(start, start + self.batch_size)
            index = chosen if order is None else order[chosen]
            images = self.images[index] / 255
            if self.dynamic:
                images = torch.bernoulli(images, generator=generator)
            yield images, self.labels[index]
