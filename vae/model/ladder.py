"""Levels below the top one: priors that read what the levels above have made, and posteriors beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vae.model.distributions import DiagonalNormal
from vae.model.posteriors import Posterior
from vae.model.priors import Prior

LARGEST = 5.0  # |log σ| of a prior, and of what a posterior changes it by: a hierarchy without bounds diverges


class Above(Prior):
    """p(z | state) = N(μ, diag σ²), both read off what the levels above have made; N(0, I) when training begins."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network  # (…, size of the state) → (…, 2 numbers)

    def forward(self, state: Tensor | None = None) -> DiagonalNormal:
        """(…, size) → the prior with batch shape (…,) and event shape (numbers,)."""
        assert state is not None
        mean, log_scale = self.network(state).chunk(2, -1)
        return DiagonalNormal(mean, _bounded(log_scale).exp())


class Beside(Posterior):
    """q(z | x, state) = N(μ + σ Δμ, diag (σ Δσ)²), a change of the prior N(μ, diag σ²) (Vahdat and Kautz, 2020).

    When training begins it is the prior, so that the KL starts from zero.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network  # (…, features + size of the state) → (…, 2 numbers)

    def q_given(self, features: Tensor, prior: Distribution, state: Tensor | None) -> DiagonalNormal:
        """(batch, features), and a state (…, batch, size) → q with batch shape (…, batch)."""
        assert state is not None and isinstance(prior, DiagonalNormal)
        known = torch.cat([features.expand(*state.shape[:-1], -1), state], -1)
        shift, log_ratio = self.network(known).chunk(2, -1)
        return DiagonalNormal(prior.loc + prior.scale * shift, prior.scale * _bounded(log_ratio).exp())


class OverMaps(nn.Module):
    """A network of maps, for a state or features of vectors that hold such maps: (…, numbers) → (…, numbers)."""

    def __init__(self, shape: Sequence[int] | None, *layers: nn.Module):
        super().__init__()
        self.shape = shape  # (channels, height, width) that the network reads; None: it reads vectors
        self.layers = nn.Sequential(*layers)

    def forward(self, values: Tensor) -> Tensor:
        leading = values.shape[:-1]
        made = self.layers(values.reshape(math.prod(leading), *(self.shape or values.shape[-1:])))
        return made.reshape(*leading, math.prod(made.shape[1:]))


class Joined(nn.Module):
    """state + W z of maps that hold both, (batch, channels of z + of the state, height, width)."""

    def __init__(self, latents: int, channels: int):
        super().__init__()
        self.latents = latents
        self.read = nn.Conv2d(latents, channels, 1)

    def forward(self, both: Tensor) -> Tensor:
        return both[:, self.latents :] + self.read(both[:, : self.latents])


def zeros(layer: nn.Module) -> nn.Module:
    """The layer, whose output is zero when training begins."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
    return layer


def _bounded(log_scale: Tensor) -> Tensor:
    """Like the identity around zero, and between ±`LARGEST` everywhere."""
    return LARGEST * torch.tanh(log_scale / LARGEST)
