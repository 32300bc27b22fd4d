"""Levels of latents: what a level makes of an image, and how it passes its z on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vae.model.noise import Draw
from vae.model.part import Part
from vae.model.priors import Prior

if TYPE_CHECKING:
    from vae.model.codes import Codes


class Latent(NamedTuple):
    """One level's z of a batch, and what it costs; with k samples of shape (k, batch)."""

    z: Tensor  # (batch, numbers): of a map, all its channels' places
    kl: Tensor  # (batch,), nats: by formula, or log q − log p at z, or −log p of codes
    q: Distribution | None  # of z given the image; None of codes
    p: Distribution  # of z, or of codes, given the levels above
    penalty: Tensor | None = None  # (batch,), no nats: what the loss has besides
    codes: Codes | None = None
    parts: Mapping[str, Tensor] = {}  # means over the batch that are worth logging, by name

    @property
    def log_weight(self) -> Tensor:
        """log p(z) − log q(z|x), (batch,): −KL at these z."""
        return -self.kl if self.q is None else self.p.log_prob(self.z) - self.q.log_prob(self.z)


class Encoding(Part):
    """Base of what makes latents of features."""

    is_certain = False  # z is a function of the image

    def forward(self, features: Tensor, state: Tensor | None, prior: Distribution, draw: Draw) -> Latent:
        """Features (batch, features), what the levels above have made, and this level's prior → its latents."""
        raise NotImplementedError

    def penalties(self) -> list[tuple[str, str, str, str, str]]:
        """What it adds to the loss, in words as the ledger's entries have them."""
        return []

    def over_z(self, p: Distribution) -> Distribution:
        """The prior as a distribution over z, where it is one over codes."""
        return p


class Level(nn.Module):
    """A group of latents with a prior and an encoding of its own.

    Its z are `numbers` numbers. `onward` is what the backbone makes of them, and of the state, for the level below.
    """

    def __init__(self, prior: Prior, encoding: Encoding, numbers: int, onward: nn.Module | None = None):
        super().__init__()
        self.prior = prior
        self.encoding = encoding
        self.numbers = numbers
        self.onward = onward

    def p(self, state: Tensor | None) -> Distribution:
        """p(z), given what the levels above have made."""
        return self.encoding.over_z(self.prior(state))

    def merge(self, state: Tensor | None, z: Tensor) -> Tensor:
        """What the levels below and the decoder read of z (…, numbers) and what those above have made (…, size)."""
        if state is not None:
            shape = torch.broadcast_shapes(z.shape[:-1], state.shape[:-1])
            z = torch.cat([z.expand(*shape, -1), state.expand(*shape, -1)], -1)
        return z if self.onward is None else self.onward(z)
