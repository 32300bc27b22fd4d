"""The aggregate posterior q(z) = E_x[q(z|x)] against the prior, and the parts of the KL that it stands between."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from vae.distributions import DiagonalNormal, FullNormal, gaussian, marginals, parameters

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels' squared widths, in medians of the squared distances
CHUNK = 2**22  # numbers at a time of those for each z, posterior and dimension


class MMDTest(NamedTuple):
    """A permutation test of two samples having one distribution (Gretton et al., 2012)."""

    mmd2: float  # unbiased, so also below zero
    p_value: float  # at least 1 / (permutations + 1)


def mmd_test(z: Tensor, p: Tensor, permutations: int = 500, generator: torch.Generator | None = None) -> MMDTest:
    """MMD² = E k(z, z′) + E k(p, p′) − 2 E k(z, p) of codes z (n, latent_dim) and prior samples p (m, latent_dim).

    k is the mean of Gaussian kernels around the median distance. The p-value is the share of random divisions of all
    n + m points into n and m with an MMD² as large. Draw the codes z for images that are drawn independently.
    """
    n, m = len(z), len(p)
    points = torch.cat([z, p]).cpu().double()  # first to the host: not every device has doubles
    squared = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").square()
    between = torch.tril_indices(n + m, n + m, -1)
    median = squared[between[0], between[1]].median().clamp(min=torch.finfo(squared.dtype).tiny)
    kernel = torch.zeros_like(squared)
    for scale in SCALES:
        kernel += (squared / (-2 * scale * median)).exp() / len(SCALES)
    kernel.fill_diagonal_(0)
    orders = torch.stack([torch.randperm(n + m, generator=generator) for _ in range(permutations)])
    chosen = torch.cat([torch.arange(n + m)[None], orders])[:, :n]  # the first division is the true one
    first = torch.zeros(permutations + 1, n + m, dtype=kernel.dtype).scatter_(1, chosen, 1.0)
    within = ((first @ kernel) * first).sum(1)  # Σ k of pairs that both are in the first part
    touching = first @ kernel.sum(1)  # Σ k of pairs with one point in the first part and any other
    across = touching - within
    others = kernel.sum() - touching - across
    mmd2 = within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * across / (n * m)
    # Divisions that differ in nothing but rounding are as large.
    as_large = mmd2[1:] >= mmd2[0] - 1e-12
    return MMDTest(mmd2[0].item(), (1 + as_large.sum().item()) / (1 + permutations))


class CovarianceMatch(NamedTuple):
    """How far the aggregate posterior's covariance A is from the prior's Σ."""

    error: float  # ‖A − Σ‖ / ‖Σ‖, Frobenius norms
    angle: float  # degrees between the axes of largest variance, 0 to 90; NaN where one of the two has no such axis


def covariance_match(aggregate: Tensor, prior: Tensor) -> CovarianceMatch:
    """Of the covariances (latent_dim, latent_dim) of the aggregate posterior and of the prior."""
    aggregate, prior = aggregate.cpu().double(), prior.cpu().double()
    error = (aggregate - prior).norm() / prior.norm()
    a, b = _principal_axis(aggregate), _principal_axis(prior)
    if a is None or b is None:
        return CovarianceMatch(error.item(), math.nan)
    along = a @ b
    # Not the arc cosine, which cannot tell small angles from none.
    return CovarianceMatch(error.item(), torch.atan2((a - along * b).norm(), along.abs()).rad2deg().item())


def mean_error(mean: Tensor, prior_mean: Tensor, prior: Tensor) -> float:
    """√((a − m)ᵀ Σ⁻¹ (a − m)): the aggregate posterior's mean a (latent_dim,) in the prior's standard deviations."""
    distance = mean.cpu().double() - prior_mean.cpu().double()
    factor = torch.linalg.cholesky(prior.cpu().double())
    return torch.linalg.solve_triangular(factor, distance[:, None], upper=False).norm().item()


class Estimate(NamedTuple):
    """A mean over images, nats."""

    value: float
    error: float  # its standard error


class Decomposition(NamedTuple):
    """The KL taken apart, each part a divergence: mi + tc + dwkl = E_x[KL(q(z|x) ‖ p(z))] (Chen et al., 2018)."""

    mi: Estimate  # log q(z|x) − log q(z): mutual information of image and code, at most log n
    tc: Estimate  # log q(z) − Σⱼ log q(zⱼ): total correlation
    dwkl: Estimate  # Σⱼ log q(zⱼ) − log p(z): the dimensions' own distances from the prior


def decompose(q: DiagonalNormal | FullNormal, chosen: Tensor, z: Tensor, p: Distribution) -> Decomposition:
    """At one draw z (m, latent_dim) from each of the `chosen` (m,) of the n posteriors q, with q(z) = 1/n Σᵢ q(z|xᵢ).

    Nothing is lost to a batch's size, as in training. Still the n images are all that there are: where mi comes near
    its limit log n, as of narrow posteriors in many dimensions, it would be larger with more of them, and tc smaller.
    """
    n, latent_dim = q.loc.shape
    single = marginals(q).base_dist
    inverse = None if isinstance(q, DiagonalNormal) else _inverse(q)
    log_own = gaussian(*(parameter[chosen] for parameter in parameters(q))).log_prob(z).cpu().double()
    log_q, log_q_each = [], []
    for part in z.split(max(1, CHUNK // (n * latent_dim))):
        log_each = single.log_prob(part[:, None])  # (part, n, latent_dim)
        if inverse is None:
            log_joint = log_each.sum(-1)
        else:
            units = torch.einsum("nij,pnj->pni", inverse, part[:, None] - q.loc)
            log_scale = inverse.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            log_joint = log_scale - 0.5 * (units.square().sum(-1) + latent_dim * math.log(2 * math.pi))
        log_q.append(log_joint.logsumexp(1).cpu().double() - math.log(n))
        log_q_each.append((log_each.logsumexp(1).cpu().double() - math.log(n)).sum(-1))
    whole, product = torch.cat(log_q), torch.cat(log_q_each)
    return Decomposition(
        _estimate(log_own - whole), _estimate(whole - product), _estimate(product - p.log_prob(z).cpu().double())
    )


def _principal_axis(covariance: Tensor) -> Tensor | None:
    """The direction of largest variance, unless another one has the same."""
    values, vectors = torch.linalg.eigh(covariance)
    if len(values) > 1 and values[-1] - values[-2] <= 1e-9 * values[-1]:
        return None
    return vectors[:, -1]


def _inverse(q: FullNormal) -> Tensor:
    """L⁻¹ of each posterior, (n, latent_dim, latent_dim)."""
    identity = torch.eye(q.loc.shape[-1]).to(q.scale_tril)
    return torch.linalg.solve_triangular(q.scale_tril, identity, upper=False)


def _estimate(values: Tensor) -> Estimate:
    return Estimate(values.mean().item(), (values.std() / len(values) ** 0.5).item())
