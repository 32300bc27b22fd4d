"""Codes: z is one of K vectors at each place of an image, and its KL is −log p(codes)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vae.common.types import Shape
from vae.model.levels import Latent
from vae.model.noise import Draw
from vae.model.posteriors import Posterior
from vae.model.processes import summed

Grid = tuple[int, int]  # (height, width) of the places


class Codes(NamedTuple):
    """The codes of a batch, (batch, places, stages), and what each was chosen for."""

    chosen: Tensor  # integers below the number of codes
    sought: Tensor | None = None  # (batch, places, stages, latent_dim); None where nothing is learned from it


class Choice(NamedTuple):
    """What a batch is coded by."""

    vectors: Tensor  # (batch, places, latent_dim), through which gradients reach what they were chosen for
    codes: Codes
    penalty: Tensor | None = None  # (batch,), not nats
    parts: Mapping[str, Tensor] = {}  # of the penalty, means over the batch, by name


class Coding(Posterior):
    """Base: reads a vector or logits at each of a grid's places off the features, and codes them.

    Features are maps (channels, height, width) of the grid's size, or vectors. z are the vectors of the codes as maps
    (latent_dim, height, width), flattened. `stages` codes of a place add up to its vector.
    """

    codes: int
    stages = 1
    is_certain = True

    def __init__(self, features: int, latent_dim: int, grid: Grid, maps: Shape | None, outputs: int):
        super().__init__()
        self.latent_dim = latent_dim
        self.grid = grid
        self.maps = maps
        self.outputs = outputs  # of each place, read off the features
        self.read = nn.Linear(features, outputs * self.places) if maps is None else nn.Conv2d(maps[0], outputs, 1)

    @property
    def places(self) -> int:
        return math.prod(self.grid)

    @property
    def numbers(self) -> int:
        """How many numbers a z is."""
        return self.latent_dim * self.places

    @property
    def length(self) -> int:
        """How many codes an image has."""
        return self.places * self.stages

    @property
    def said(self) -> str:
        """What a z is, in words."""
        places = f"{self.grid[0]}×{self.grid[1]}" if self.grid[0] > 1 else f"{self.grid[1]}"
        return f"{places} codes of {self.codes:,}" + (f" in {self.stages} stages" if self.stages > 1 else "")

    def choose(self, made: Tensor, draw: Draw) -> Choice:
        """What was read off a batch (batch, places, outputs) → its codes."""
        raise NotImplementedError

    def vectors(self, index: Tensor) -> Tensor:
        """Codes (…, places, stages) → their vectors (…, places, latent_dim)."""
        raise NotImplementedError

    def nearest(self, vectors: Tensor) -> Tensor:
        """Vectors (…, places, latent_dim) → the codes (…, places, stages) of the nearest ones there are."""
        raise NotImplementedError

    def kl(self, made: Tensor, codes: Codes, prior: Distribution) -> Tensor:
        """(batch,): −log p(codes), as q is sure of them."""
        return -prior.log_prob(codes.chosen)

    def forward(self, features: Tensor, state: Tensor | None, prior: Distribution, draw: Draw) -> Latent:
        """The codes of a batch with their −log p, which has no gradient in what they were chosen for."""
        with torch.autocast(features.device.type, enabled=False):  # 16 bits confuse neighbours
            made = self.made(features)
            choice = self.choose(made, draw)
            z = self.flat(choice.vectors)
        kl = self.kl(made, choice.codes, prior)
        count = counts(choice.codes.chosen, self.codes)
        used = usage(summed(count) if self.training else count)  # one process alone measures in the end
        parts = {**choice.parts, **used, "code_bits": kl.detach().mean() / math.log(2)}
        return Latent(z, kl, None, prior, choice.penalty, choice.codes, parts)

    def q(self, features: Tensor, prior: Distribution | None) -> Chosen:
        """(batch, features) → the codes of each image."""
        with torch.autocast(features.device.type, enabled=False):
            return Chosen(self, self.choose(self.made(features), Draw(mean=True)).codes.chosen)

    def made(self, features: Tensor) -> Tensor:
        """(batch, features) → (batch, places, outputs), in the precision of the weights."""
        features = features.to(self.read.weight.dtype)
        if self.maps is None:
            return self.read(features).unflatten(1, (self.places, self.outputs))
        return self.read(features.unflatten(1, self.maps)).flatten(2).mT

    def snapped(self, z: Tensor) -> Tensor:
        """The nearest z (…, numbers) that codes make."""
        return self.z_of(self.nearest(self.places_of(z)))

    def over_z(self, p: Distribution) -> Coded:
        """A distribution over codes as one over z."""
        return Coded(self, p)

    def z_of(self, index: Tensor) -> Tensor:
        """Codes (…, places, stages) → z (…, numbers)."""
        return self.flat(self.vectors(index))

    def flat(self, vectors: Tensor) -> Tensor:
        """Vectors (…, places, latent_dim) → z (…, numbers)."""
        return vectors.mT.flatten(-2)

    def places_of(self, z: Tensor) -> Tensor:
        """z (…, numbers) → vectors (…, places, latent_dim)."""
        return z.unflatten(-1, (self.latent_dim, self.places)).mT


class Chosen(Distribution):
    """z whose codes are certain; `codes` are integers (…, height, width), or (…, height, width, stages) of several."""

    arg_constraints = {}  # noqa: RUF012 (torch's own)

    def __init__(self, coding: Coding, index: Tensor):
        self.coding, self.index = coding, index
        super().__init__(index.shape[:-2], torch.Size([coding.numbers]), validate_args=False)

    @property
    def codes(self) -> Tensor:
        return as_maps(self.index, self.coding.grid)

    @property
    def mean(self) -> Tensor:
        return self.coding.z_of(self.index)

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.mean)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.mean.expand(*sample_shape, *self.batch_shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """log 1, of the z that there is."""
        return value.new_zeros(value.shape[:-1])


class Coded(Distribution):
    """z whose codes have a distribution `p` over (places, stages). `at` gives the same at a temperature."""

    arg_constraints = {}  # noqa: RUF012 (torch's own)

    def __init__(self, coding: Coding, p: Distribution):
        self.coding, self.p = coding, p
        super().__init__(p.batch_shape, torch.Size([coding.numbers]), validate_args=False)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.coding.z_of(self.p.sample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p of the codes whose vectors are nearest to z (…, numbers)."""
        return self.p.log_prob(self.coding.nearest(self.coding.places_of(value)))

    def at(self, temperature: float) -> Coded:
        """The same with all logits divided by a temperature."""
        return Coded(self.coding, self.p.at(temperature))  # type: ignore[attr-defined]


def as_maps(index: Tensor, grid: Grid) -> Tensor:
    """Codes (…, places, stages) as (…, height, width), with the stages last where there are several."""
    maps = index.unflatten(-2, grid)
    return maps.squeeze(-1) if index.shape[-1] == 1 else maps


def from_maps(maps: Tensor, stages: int) -> Tensor:
    """The inverse of `as_maps`."""
    return (maps.unsqueeze(-1) if stages == 1 else maps).flatten(-3, -2)


def counts(index: Tensor, codes: int) -> Tensor:
    """How often each code stands in (batch, places, stages), at each stage: (stages, codes)."""
    flat = index.flatten(0, -2).mT  # (stages, batch · places)
    ones = torch.ones_like(flat, dtype=torch.get_default_dtype())
    return ones.new_zeros(len(flat), codes).scatter_add_(1, flat, ones)  # unlike bincount, without waiting for a GPU


def usage(count: Tensor) -> dict[str, Tensor]:
    """Of counts (stages, codes), means over the stages: perplexity exp H, and the share of codes in use."""
    share = count / count.sum(-1, keepdim=True).clamp(min=1)
    entropy = -torch.special.xlogy(share, share).sum(-1)
    return {"perplexity": entropy.exp().mean(), "codes_used": (count > 0).to(share).mean()}
