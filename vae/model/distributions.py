"""Gaussians over latents with event_dim 1, and one `kl` that is exact where a formula is registered with torch."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
    register_kl,
)


class DiagonalNormal(Independent):
    """N(μ, diag σ²) with `loc` and `scale` of shape (…, latent_dim)."""

    def __init__(self, loc: Tensor, scale: Tensor):
        # Checking arguments on every step costs more than the formulas below; a NaN is caught by the training loop.
        super().__init__(Normal(loc, scale, validate_args=False), 1, validate_args=False)

    @property
    def loc(self) -> Tensor:
        return self.base_dist.loc

    @property
    def scale(self) -> Tensor:
        return self.base_dist.scale

    @property
    def covariance_matrix(self) -> Tensor:
        return torch.diag_embed(self.scale**2)


class StandardNormal(DiagonalNormal):
    """N(0, I): `loc` is zeros and `scale` ones, and the KL does without them."""


class FullNormal(MultivariateNormal):
    """N(μ, LLᵀ) with `loc` of shape (…, latent_dim) and lower triangular `scale_tril` (…, latent_dim, latent_dim)."""

    def __init__(self, loc: Tensor, scale_tril: Tensor):
        # Mixed precision leaves loc in 16 bits, in which torch solves no triangular systems.
        super().__init__(loc.to(scale_tril.dtype), scale_tril=scale_tril, validate_args=False)


class TiedNormal(FullNormal):
    """N(μ, D C D) with D = diag σ, `scale` (…, latent_dim), and C = FFᵀ, F the same `factor` for all of a batch."""

    def __init__(self, loc: Tensor, scale: Tensor, factor: Tensor):
        # Not as FullNormal does it: a matrix for each of a batch is not always needed, and takes much memory.
        Distribution.__init__(self, loc.shape[:-1], loc.shape[-1:], validate_args=False)
        self.loc = loc.to(factor.dtype)
        self.deviations, self.factor = scale, factor

    @cached_property
    def _unbroadcasted_scale_tril(self) -> Tensor:  # type: ignore[override]
        return self.deviations.unsqueeze(-1) * self.factor

    @property
    def variance(self) -> Tensor:
        return self.deviations.square() * self.factor.square().sum(-1)


def parameters(q: DiagonalNormal | FullNormal) -> tuple[Tensor, Tensor]:
    """The mean, and σ (…, latent_dim) or L (…, latent_dim, latent_dim): what `gaussian` takes."""
    return q.loc, q.scale if isinstance(q, DiagonalNormal) else q.scale_tril


def gaussian(loc: Tensor, scale: Tensor) -> DiagonalNormal | FullNormal:
    """The Gaussian of these `parameters`."""
    return DiagonalNormal(loc, scale) if scale.dim() == loc.dim() else FullNormal(loc, scale)


def detached(q: Distribution) -> Distribution:
    """The same Gaussian, through whose parameters no gradient flows."""
    if isinstance(q, DiagonalNormal | FullNormal):
        return gaussian(*(parameter.detach() for parameter in parameters(q)))
    raise ValueError(f"{type(q).__name__}: must be a Gaussian, whose parameters can be told apart from its samples")


def marginals(q: Distribution) -> DiagonalNormal:
    """The distributions of the single dimensions of a Gaussian, as if they were independent."""
    if not isinstance(q, DiagonalNormal | FullNormal):
        raise ValueError(f"{type(q).__name__}: must be a Gaussian, whose marginals are known")
    return DiagonalNormal(q.mean, q.stddev)


def whitened(
    q: DiagonalNormal | FullNormal, z: Tensor, p: Distribution
) -> tuple[DiagonalNormal | FullNormal, Tensor, Distribution]:
    """A Gaussian q, its draws z and p in the coordinates u = L⁻¹(z − m), in which p = N(m, LLᵀ) is N(0, I).

    No divergence changes by that. A p whose dimensions are independent, or that is no Gaussian, leaves all as it is.
    """
    if not isinstance(p, MultivariateNormal):
        return q, z, p
    inverse = _inverse_tril(p)
    factor = torch.diag_embed(q.scale) if isinstance(q, DiagonalNormal) else q.scale_tril
    with torch.autocast(z.device.type, enabled=False):  # mixed precision would leave products in 16 bits
        loc, u = ((point.to(inverse.dtype) - p.loc) @ inverse.mT for point in (q.loc, z))
        factor = inverse @ factor.to(inverse.dtype)  # a product of triangular matrices is triangular
    return FullNormal(loc, factor), u, StandardNormal(torch.zeros_like(p.loc), torch.ones_like(p.loc))


def from_noise(p: Distribution, noise: Tensor, choice: Tensor | None = None) -> Tensor:
    """Draws of p, (batch, latent_dim), as its map of standard-normal `noise` (batch, latent_dim).

    A mixture also takes `choice` (batch,), uniform in [0, 1), which selects the component.
    """
    if isinstance(p, MixtureSameFamily) and isinstance(p.component_distribution, DiagonalNormal | FullNormal):
        assert choice is not None
        bounds = p.mixture_distribution.probs.cumsum(-1)[:-1]
        component = (choice.unsqueeze(-1) >= bounds).sum(-1)  # (batch,)
        parts = p.component_distribution
        p = gaussian(*(parameter[component] for parameter in parameters(parts)))
    if isinstance(p, DiagonalNormal):
        return p.loc + p.scale * noise
    if isinstance(p, MultivariateNormal):
        return p.loc + (p.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
    base = getattr(p, "base", None)  # as zuko's flows have it
    if isinstance(base, Independent) and isinstance(base.base_dist, Normal):
        return p.transform.inv(base.mean + base.stddev * noise)  # type: ignore[attr-defined]
    raise ValueError(f"{type(p).__name__}: must be a Gaussian, a mixture of them or a flow to be drawn from noise")


class CholeskyFactor:
    """Lower triangular L (…, n, n) with a positive diagonal out of free numbers (…, n (n + 1) / 2); zeros give I."""

    @staticmethod
    def numbers(n: int) -> int:
        """How many there are: n logarithms of the diagonal, then the rows below it."""
        return n * (n + 1) // 2

    @staticmethod
    def of(free: Tensor) -> Tensor:
        """Numbers (…, n (n + 1) / 2) → L (…, n, n)."""
        n = int(((8 * free.shape[-1] + 1) ** 0.5 - 1) / 2)
        below = free.new_zeros(*free.shape[:-1], n, n)
        row, column = torch.tril_indices(n, n, -1, device=free.device)
        below[..., row, column] = free[..., n:]
        return below + torch.diag_embed(free[..., :n].exp())

    @staticmethod
    def free(factor: Tensor) -> Tensor:
        """L (…, n, n) → the numbers that give it."""
        n = factor.shape[-1]
        row, column = torch.tril_indices(n, n, -1, device=factor.device)
        return torch.cat([factor.diagonal(dim1=-2, dim2=-1).log(), factor[..., row, column]], -1)


def kl(q: Distribution, p: Distribution, z: Tensor) -> Tensor:
    """KL(q ‖ p), shape (batch,): exact where torch knows a formula, else log q(z) − log p(z) at samples z of q."""
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return q.log_prob(z) - p.log_prob(z)


def is_exact(q: Distribution, p: Distribution) -> bool:
    """Whether `kl` has a formula for these two."""
    try:
        kl_divergence(q, p)
    except NotImplementedError:
        return False
    return True


@register_kl(DiagonalNormal, DiagonalNormal)
def _kl_diagonal_diagonal(q: DiagonalNormal, p: DiagonalNormal) -> Tensor:
    """½ Σᵢ (σᵢ²/sᵢ² + (μᵢ − mᵢ)²/sᵢ² − 1 − log σᵢ²/sᵢ²)."""
    ratio = (q.scale / p.scale) ** 2
    distance = ((q.loc - p.loc) / p.scale) ** 2
    return 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)


@register_kl(DiagonalNormal, StandardNormal)
def _kl_diagonal_standard(q: DiagonalNormal, p: StandardNormal) -> Tensor:
    """½ Σᵢ (σᵢ² + μᵢ² − 1 − log σᵢ²)."""
    variance = q.scale**2
    return 0.5 * (variance + q.loc**2 - 1 - variance.log()).sum(-1)


@register_kl(DiagonalNormal, MultivariateNormal)
def _kl_diagonal_full(q: DiagonalNormal, p: MultivariateNormal) -> Tensor:
    """½ (tr Σ⁻¹ diag σ² + ‖L⁻¹(μ − m)‖² − n + log|Σ| − Σᵢ log σᵢ²) with Σ = LLᵀ.

    L is inverted once for the whole batch: (Σ⁻¹)ᵢᵢ = ‖column i of L⁻¹‖², so the trace is a product with σ².
    """
    inverse = _inverse_tril(p)
    n = q.loc.shape[-1]
    trace = (q.scale**2 * (inverse**2).sum(-2)).sum(-1)
    distance = _squared_distance(q, p, inverse)
    return 0.5 * (trace + distance - n) + _half_log_det(p) - q.scale.log().sum(-1)


@register_kl(FullNormal, MultivariateNormal)
def _kl_full_full(q: FullNormal, p: MultivariateNormal) -> Tensor:
    """½ (‖L⁻¹ L_q‖² + ‖L⁻¹(μ − m)‖² − n + log|Σ| − log|Σ_q|); torch's own formula inverts L once an image."""
    inverse = _inverse_tril(p)
    n = q.loc.shape[-1]
    trace = ((inverse @ q.scale_tril) ** 2).sum((-2, -1))
    distance = _squared_distance(q, p, inverse)
    return 0.5 * (trace + distance - n) + _half_log_det(p) - _half_log_det(q)


@register_kl(TiedNormal, FullNormal)
def _kl_tied_full(q: TiedNormal, p: FullNormal) -> Tensor:
    """The same with tr Σ⁻¹ D C D = σᵀ (Σ⁻¹ ⊙ C) σ: a product of matrices once a batch, and not once an image."""
    inverse = _inverse_tril(p)
    n = q.loc.shape[-1]
    weights = (inverse.mT @ inverse) * (q.factor @ q.factor.mT)
    trace = (q.deviations * (q.deviations @ weights)).sum(-1)
    distance = _squared_distance(q, p, inverse)
    half_log_det = q.deviations.log().sum(-1) + q.factor.diagonal().log().sum()
    return 0.5 * (trace + distance - n) + _half_log_det(p) - half_log_det


@register_kl(FullNormal, DiagonalNormal)
def _kl_full_diagonal(q: FullNormal, p: DiagonalNormal) -> Tensor:
    """The formula of two full Gaussians with L = diag s."""
    trace = ((q.scale_tril / p.scale.unsqueeze(-1)) ** 2).sum((-2, -1))
    distance = (((q.loc - p.loc) / p.scale) ** 2).sum(-1)
    return 0.5 * (trace + distance - q.loc.shape[-1]) + p.scale.log().sum(-1) - _half_log_det(q)


def _inverse_tril(p: MultivariateNormal) -> Tensor:
    """L⁻¹, shape (n, n) for a prior without a batch."""
    scale_tril = p.scale_tril
    identity = torch.eye(scale_tril.shape[-1], dtype=scale_tril.dtype, device=scale_tril.device)
    return torch.linalg.solve_triangular(scale_tril, identity, upper=False)


def _squared_distance(q: DiagonalNormal | FullNormal, p: MultivariateNormal, inverse: Tensor) -> Tensor:
    """‖L⁻¹(μ − m)‖², shape (batch,), whether p has a batch or not."""
    return (((q.loc - p.loc).unsqueeze(-2) @ inverse.mT) ** 2).sum((-2, -1))  # (…, 1, n) @ (…, n, n)


def _half_log_det(p: MultivariateNormal) -> Tensor:
    """½ log|LLᵀ| = Σᵢ log Lᵢᵢ."""
    return p.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
