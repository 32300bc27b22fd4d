"""Where the random numbers of a forward pass come from: handed in, as keys are in JAX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily

from vae.model.distributions import DiagonalNormal, FullNormal, from_noise


class Noise(Protocol):
    """Draws of this size, like a tensor in type and device; the dimension `images` counts the images of the batch."""

    def normal(self, size: Sequence[int], like: Tensor, images: int) -> Tensor:
        """Of N(0, 1)."""

    def uniform(self, size: Sequence[int], like: Tensor, images: int) -> Tensor:
        """Of [0, 1)."""


class Fresh(NamedTuple):
    """The next numbers of a generator, by default of torch's own ones."""

    generator: torch.Generator | None = None

    def normal(self, size: Sequence[int], like: Tensor, images: int) -> Tensor:
        return like.new_empty(size).normal_(generator=self.generator)

    def uniform(self, size: Sequence[int], like: Tensor, images: int) -> Tensor:
        return like.new_empty(size).uniform_(generator=self.generator)


FRESH = Fresh()


class SharedNoise(NamedTuple):
    """A share of what is drawn for a whole batch of `size` images.

    Processes with random streams in the same state draw together what one process would, and stay in one state.
    """

    images: slice
    size: int
    noise: Noise = FRESH

    def normal(self, size: Sequence[int], like: Tensor, images: int) -> Tensor:
        return self._of(self.noise.normal(self._whole(size, images), like, images), images)

    def uniform(self, size: Sequence[int], like: Tensor, images: int) -> Tensor:
        return self._of(self.noise.uniform(self._whole(size, images), like, images), images)

    def _whole(self, size: Sequence[int], images: int) -> list[int]:
        whole = list(size)
        whole[images] = self.size
        return whole

    def _of(self, whole: Tensor, images: int) -> Tensor:
        return whole.narrow(images, self.images.start, self.images.stop - self.images.start)


class Draw(NamedTuple):
    """How z is drawn."""

    noise: Noise = FRESH
    samples: int | None = None  # of z for each image, in a first dimension of their own; None: one, without
    mean: bool = False  # the posterior's mean in place of a sample

    def of(self, q: Distribution) -> Tensor:
        """z of posteriors with batch shape (batch,), differentiable in their parameters."""
        return q.mean if self.mean else sampled(q, self.noise, () if self.samples is None else (self.samples,))


def sampled(p: Distribution, noise: Noise, shape: Sequence[int] = ()) -> Tensor:
    """`p.rsample(shape)` by noise; its last dimension before the event counts images."""
    base = getattr(p, "base", None)  # of zuko's flows
    if not isinstance(p, DiagonalNormal | FullNormal | MixtureSameFamily) and base is None:
        return p.rsample(torch.Size(shape))  # a class from elsewhere draws in its own way
    size = [*shape, *p.batch_shape, *p.event_shape]
    like = (base or p).mean
    choice = noise.uniform(size[:-1], like, -1) if isinstance(p, MixtureSameFamily) else None
    return from_noise(p, noise.normal(size, like, -1 - len(p.event_shape)), choice)
