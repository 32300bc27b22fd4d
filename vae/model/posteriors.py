"""Posteriors q(z|x): encodings that turn features, and the prior where they need it, into the distribution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from vae.model.distributions import CholeskyFactor, DiagonalNormal, FullNormal, TiedNormal, kl
from vae.model.levels import Encoding, Latent
from vae.model.noise import Draw


class Posterior(Encoding):
    """Base."""

    def q(self, features: Tensor, prior: Distribution | None) -> Distribution:
        """(batch, features) → q with batch shape (batch,) and event shape (latent_dim,)."""
        raise NotImplementedError

    def q_given(self, features: Tensor, prior: Distribution, state: Tensor | None) -> Distribution:
        """The same given what the levels above have made, which a top level does without."""
        return self.q(features, prior)

    def forward(self, features: Tensor, state: Tensor | None, prior: Distribution, draw: Draw) -> Latent:
        """A draw of z from q, with its KL."""
        q = self.q_given(features, prior, state)
        z = draw.of(q)
        return Latent(z, kl(q, prior, z), q, prior)


class Diagonal(Posterior):
    """N(μ, diag σ²), both read off the features."""

    def __init__(self, features: int, latent_dim: int):
        super().__init__()
        self.mean = nn.Linear(features, latent_dim)
        self.log_var = nn.Linear(features, latent_dim)

    def q(self, features: Tensor, prior: Distribution | None) -> DiagonalNormal:
        """(batch, features) → q with batch shape (batch,) and event shape (latent_dim,)."""
        return DiagonalNormal(self.mean(features), (0.5 * self.log_var(features)).exp())


class Full(Posterior):
    """N(μ, LLᵀ) with a Cholesky factor of its own for each image."""

    def __init__(self, features: int, latent_dim: int):
        super().__init__()
        self.mean = nn.Linear(features, latent_dim)
        self.factor = nn.Linear(features, CholeskyFactor.numbers(latent_dim))

    def q(self, features: Tensor, prior: Distribution | None) -> FullNormal:
        """(batch, features) → q with batch shape (batch,) and event shape (latent_dim,)."""
        return FullNormal(self.mean(features), CholeskyFactor.of(self.factor(features)))


class Tied(Diagonal):
    """N(μ, D C D) with D = diag σ and C the prior's correlation matrix: z = μ + σ ⊙ (L_C ε), C = L_C L_Cᵀ.

    The consistent form of sampling through the prior's Cholesky factor: each image has its own scales, all share the
    prior's correlations, and the KL is that of the distribution sampled from.
    """

    def q(self, features: Tensor, prior: Distribution | None) -> TiedNormal:  # type: ignore[override]
        """(batch, features) → q with batch shape (batch,) and event shape (latent_dim,)."""
        diagonal = super().q(features, prior)
        # Row i of L divided by √Σᵢᵢ = ‖row i of L‖ is row i of L_C.
        factor = nn.functional.normalize(_scale_tril(prior), dim=-1)
        return TiedNormal(diagonal.loc, diagonal.scale, factor)


def _scale_tril(prior: Distribution | None) -> Tensor:
    if isinstance(prior, DiagonalNormal):
        return torch.diag_embed(prior.scale)
    if isinstance(prior, MultivariateNormal):
        return prior.scale_tril
    found = "a mixture of posteriors" if prior is None else type(prior).__name__  # as vae.model.priors.Vamp has it
    raise ValueError(f"posterior=tied takes its correlations from a Gaussian prior, not from {found}")
