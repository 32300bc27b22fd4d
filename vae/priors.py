"""Priors p(z): modules whose `forward` returns the distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vae.distributions import DiagonalNormal, FullNormal


class Isotropic(nn.Module):
    """N(0, I)."""

    loc: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int):
        super().__init__()
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("scale", torch.ones(latent_dim), persistent=False)

    def forward(self) -> DiagonalNormal:
        """The prior, with event shape (latent_dim,)."""
        return DiagonalNormal(self.loc, self.scale)


class Correlated(nn.Module):
    """N(0, Σ), Σ any covariance matrix; without one `default_covariance(latent_dim)`."""

    loc: Tensor
    scale_tril: Tensor

    def __init__(self, latent_dim: int, covariance: Sequence[Sequence[float]] | None = None):
        super().__init__()
        sigma = default_covariance(latent_dim) if covariance is None else torch.tensor(covariance, dtype=torch.float64)
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        factor = torch.linalg.cholesky(sigma).to(torch.get_default_dtype())  # in double: Σ may be near singular
        self.register_buffer("scale_tril", factor, persistent=False)

    def forward(self) -> FullNormal:
        """The prior, with event shape (latent_dim,)."""
        return FullNormal(self.loc, self.scale_tril)


def default_covariance(latent_dim: int) -> Tensor:
    """Σᵢⱼ = ρ^|i−j| √(vᵢ vⱼ), ρ = 0.4/√0.5, variances falling geometrically from 1 to ½; float64.

    At latent_dim 2 this is [[1.0, 0.4], [0.4, 0.5]]. Positive definite for every latent_dim, being an AR(1)
    correlation matrix scaled by standard deviations.
    """
    scale = torch.logspace(0, -0.5, latent_dim, base=2, dtype=torch.float64)  # √vᵢ: 1 … √½
    index = torch.arange(latent_dim, dtype=torch.float64)  # a power of integers would be in single precision
    rho = 0.4 / 0.5**0.5
    return rho ** (index[:, None] - index).abs() * torch.outer(scale, scale)
