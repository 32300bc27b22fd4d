"""Categorical latents by the Gumbel-softmax relaxation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

from vae.common.types import Shape
from vae.model.codebook import nearest
from vae.model.codes import Choice, Chosen, Codes, Coding, Grid
from vae.model.noise import Draw


class Gumbel(Coding):
    """z = eₖ with k drawn from a categorical q(k|x) at each place (Jang et al., 2017); kl = −H(q) − log p(codes).

    k is that of the largest of the logits with Gumbel noise, so that every term is of codes. Gradients are those of the
    softmax of the same numbers at a `temperature`. With a uniform prior kl is exact.
    """

    is_certain = False

    def __init__(
        self,
        features: int,
        latent_dim: int,
        grid: Grid,
        maps: Shape | None,
        codes: int,
        temperature: float,
        places: int | None,
    ):
        super().__init__(features, latent_dim, grid, maps, codes)
        self.codes, self.temperature = codes, temperature
        self.vectors_of = nn.Parameter(torch.randn(codes, latent_dim) / latent_dim**0.5)

    def choose(self, made: Tensor, draw: Draw) -> Choice:
        """Logits (batch, places, codes) → codes drawn by them, or the most probable ones."""
        if draw.mean:
            index = made.argmax(-1, keepdim=True)
            return Choice(self.vectors(index), Codes(index))
        uniform = draw.noise.uniform(made.shape, made, 0)
        tiny = torch.finfo(made.dtype).tiny
        noisy = made - (-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()
        index = noisy.argmax(-1, keepdim=True)
        soft = (noisy / self.temperature).softmax(-1)
        hard = torch.zeros_like(soft).scatter_(-1, index, 1.0)
        return Choice((hard + (soft - soft.detach())) @ self.vectors_of, Codes(index))

    def kl(self, made: Tensor, codes: Codes, prior: Distribution) -> Tensor:
        """(batch,): −H(q) − log p(codes)."""
        return super().kl(made, codes, prior) - Categorical(logits=made, validate_args=False).entropy().sum(-1)

    def q(self, features: Tensor, prior: Distribution | None) -> Drawn:
        """(batch, features) → the distribution of z."""
        with torch.autocast(features.device.type, enabled=False):
            return Drawn(self, self.made(features))

    def vectors(self, index: Tensor) -> Tensor:
        """Codes (…, places, 1) → their vectors, (…, places, latent_dim)."""
        return self.vectors_of[index.squeeze(-1)]

    def nearest(self, vectors: Tensor) -> Tensor:
        """Vectors (…, places, latent_dim) → codes (…, places, 1)."""
        return nearest(vectors, self.vectors_of).unsqueeze(-1)


class Drawn(Chosen):
    """z of codes that are drawn at each place by logits (…, places, codes); `codes` and mean are of the likeliest."""

    def __init__(self, coding: Coding, logits: Tensor):
        super().__init__(coding, logits.argmax(-1, keepdim=True))
        self.each = Categorical(logits=logits, validate_args=False)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        index = self.each.sample(torch.Size(sample_shape)).unsqueeze(-1)
        return self.coding.z_of(index)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q of the codes whose vectors are nearest to z (…, numbers)."""
        index = self.coding.nearest(self.coding.places_of(value))
        return self.each.log_prob(index.squeeze(-1)).sum(-1)
