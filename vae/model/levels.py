"""Levels of latents: what a level makes of an image, and how it passes its z on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vae.model.noise import Draw
from vae.model.part import Part
from vae.model.priors import Prior


class Latent(NamedTuple):
    """One level's z of a batch, and what it costs; with k samples of shape (k, batch)."""

    z: Tensor  # (batch, latent_dim)
    kl: Tensor  # (batch,), nats: by formula, or log q − log p at z
    q: Distribution  # of z given the image
    p: Distribution  # of z given the levels above

    @property
    def log_weight(self) -> Tensor:
        """log p(z) − log q(z|x), (batch,): −KL at these z."""
        return self.p.log_prob(self.z) - self.q.log_prob(self.z)


class Encoding(Part):
    """Base of what makes latents of features."""

    def forward(self, features: Tensor, state: Tensor | None, prior: Distribution, draw: Draw) -> Latent:
        """Features (batch, features), what the levels above have made, and this level's prior → its latents."""
        raise NotImplementedError


class Level(nn.Module):
    """A group of latents with a prior and an encoding of its own."""

    def __init__(self, prior: Prior, encoding: Encoding):
        super().__init__()
        self.prior = prior
        self.encoding = encoding

    def merge(self, state: Tensor | None, z: Tensor) -> Tensor:
        """What the levels below and the decoder read: z beside that of the levels above."""
        return z if state is None else torch.cat([state, z], -1)
