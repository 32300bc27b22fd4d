"""Finite scalar quantisation: a code is a point of a fixed lattice, so that there is no codebook to learn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vae.common.types import Shape
from vae.model.codes import Choice, Codes, Coding, Grid
from vae.model.noise import Draw

MARGIN = 0.05  # by which bounded features reach beyond the outer levels, which they else hardly come to


class FSQ(Coding):
    """Each number of a place is rounded to one of L levels from −1 to 1 (Mentzer et al., 2024): K = Π L codes.

    `levels` are L of each number, or of all. Gradients pass the rounding as if it were the identity.
    """

    one: Tensor
    size: Tensor
    step: Tensor

    def __init__(
        self,
        features: int,
        latent_dim: int,
        grid: Grid,
        maps: Shape | None,
        levels: Sequence[int] | int,
        places: int | None,
    ):
        super().__init__(features, latent_dim, grid, maps, latent_dim)
        each = [levels] * latent_dim if isinstance(levels, int) else list(levels)
        self.codes = math.prod(each)
        self.register_buffer("size", torch.tensor(each), persistent=False)
        steps = [math.prod(each[:place]) for place in range(latent_dim)]
        self.register_buffer("one", torch.ones(()), persistent=False)  # knows the model's precision
        self.register_buffer("step", torch.tensor(steps), persistent=False)

    def choose(self, made: Tensor, draw: Draw) -> Choice:
        """(batch, places, latent_dim) → the nearest points of the lattice."""
        bounded = (1 + MARGIN) * torch.tanh(made)
        index = self.nearest(bounded.detach())
        return Choice(bounded + (self.vectors(index) - bounded).detach(), Codes(index))

    def vectors(self, index: Tensor) -> Tensor:
        """Codes (…, places, 1) → their points, (…, places, latent_dim)."""
        digits = index // self.step % self.size
        return (2 * digits / (self.size - 1) - 1).to(self.one.dtype)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Vectors (…, places, latent_dim) → codes (…, places, 1)."""
        digits = ((vectors + 1) / 2 * (self.size - 1)).round().long()
        digits = torch.minimum(digits.clamp(min=0), self.size - 1)
        return (digits * self.step).sum(-1, keepdim=True)
