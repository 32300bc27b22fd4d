"""The aggregate posterior q(z) = E_x[q(z|x)] against the prior, and the parts of the KL."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from vae.evaluation.doubles import doubles
from vae.model.distributions import DiagonalNormal, FullNormal, gaussian, marginals, parameters, whitened

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels' squared widths, in medians of the squared distances
CHUNK = 2**22  # numbers at a time of those for each z and posterior, and each dimension where they are not independent
COPIES = 8  # at most, of the images' posteriors with permuted dimensions
HALF = 0.5  # the weight of z's own posterior that cancels the bias of log q(z) where many posteriors overlap


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
    points = doubles(torch.cat([z, p]))
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
    # Divisions that differ by rounding alone are as large.
    as_large = mmd2[1:] >= mmd2[0] - 1e-12
    return MMDTest(mmd2[0].item(), (1 + as_large.sum().item()) / (1 + permutations))


class CovarianceMatch(NamedTuple):
    """How far the aggregate posterior's covariance A is from the prior's Σ."""

    error: float  # ‖A − Σ‖ / ‖Σ‖, Frobenius norms
    angle: float  # degrees between the axes of largest variance, 0 to 90; NaN where one of the two has no such axis


def covariance_match(aggregate: Tensor, prior: Tensor) -> CovarianceMatch:
    """Compare the covariances (latent_dim, latent_dim) of the aggregate posterior and of the prior."""
    aggregate, prior = doubles(aggregate), doubles(prior)
    error = (aggregate - prior).norm() / prior.norm()
    a, b = _principal_axis(aggregate), _principal_axis(prior)
    if a is None or b is None:
        return CovarianceMatch(error.item(), math.nan)
    along = a @ b
    # Not the arc cosine, which cannot tell small angles from none.
    return CovarianceMatch(error.item(), torch.atan2((a - along * b).norm(), along.abs()).rad2deg().item())


def mean_error(mean: Tensor, prior_mean: Tensor, prior: Tensor) -> float:
    """√((a − m)ᵀ Σ⁻¹ (a − m)): the aggregate posterior's mean a (latent_dim,) in the prior's standard deviations."""
    distance = doubles(mean) - doubles(prior_mean)
    factor = torch.linalg.cholesky(doubles(prior))
    return torch.linalg.solve_triangular(factor, distance[:, None], upper=False).norm().item()


class Estimate(NamedTuple):
    """A mean over images, nats."""

    value: float
    error: float  # its standard error


class Decomposition(NamedTuple):
    """The KL taken apart: mi + tc + dwkl = E_x[KL(q(z|x) ‖ p(z))], but for the noise of z (Chen et al., 2018).

    With a Gaussian prior all are taken in the coordinates that make it N(0, I), and each is a divergence. With others
    they are taken in z's own, and dwkl is none: the prior's own dependence between dimensions counts there.
    """

    mi: Estimate  # log q(z|x) − log q(z): mutual information of image and code
    tc: Estimate  # log q(z) − Σⱼ log q(zⱼ): total correlation
    dwkl: Estimate  # Σⱼ log q(zⱼ) − log p(z): the dimensions' own distances from the prior
    bias: Estimate  # mi's lack, and tc's excess, if q(z) were the mean of the n posteriors


def decompose(q: DiagonalNormal | FullNormal, chosen: Tensor, z: Tensor, p: Distribution) -> Decomposition:
    """At one draw z (m, latent_dim) from each of the `chosen` (m,) of the posteriors q of n images.

    Narrow posteriors hardly overlap, so their plain mean is a set of lumps, and each z lies on the lump of its own
    image. log q(z) then comes out too high: mi is too low, never above log n, and tc is too high, because single
    dimensions do overlap. Hence the own image gets a weight w of its own:

        q(z) = (w q(z|x) + Σ_others q(z|xᵢ)) / (w + n − 1)

    The right w is known where tc is: permute each dimension of the posteriors across images, and tc is zero. w is the
    one that finds this zero. Permuting adds a to mi, so the permuted posteriors overlap less than the true ones; e^a n
    of them, at most `COPIES` n, overlap as much. Of a large tc, up to half of bias is taken off too much. A bias above
    a nat means that the images say little of mi and tc. The errors include the noise of w.
    """
    q, z, p = whitened(q, z, p)
    chosen = chosen.to(z.device)
    own = doubles(gaussian(*(parameter[chosen] for parameter in parameters(q))).log_prob(z))
    joint = _Mixture(own, _others(q, z, chosen[:, None]), len(q.loc))
    each = _log_prob_each(marginals(q), chosen, z)
    product = each.sum(1)
    weights = _own_weights(marginals(q), chosen, z, each, joint)
    return Decomposition(
        _weighted(lambda weight: own - joint.log_prob(weight), weights),
        _weighted(lambda weight: joint.log_prob(weight) - product, weights, independent=True),
        _estimate(product - doubles(p.log_prob(z))),
        _weighted(lambda weight: joint.log_prob(1) - joint.log_prob(weight), weights),
    )


class _Mixture(NamedTuple):
    """Logarithms (m,) of densities at draws z: of the posterior that z is from, and of the mean of the others."""

    own: Tensor
    others: Tensor
    posteriors: int  # how many there are, with the own one

    def log_prob(self, weight: float) -> Tensor:
        """Log density of the mixture in which the own posterior counts as `weight` posteriors."""
        others = self.others + math.log(max(1, self.posteriors - 1))
        return torch.logaddexp(self.own + math.log(weight), others) - math.log(self.posteriors - 1 + weight)


class _Weights(NamedTuple):
    """The weight of z's own posterior, and its limits if the tc that it makes zero is off by a standard error."""

    best: float
    low: float
    high: float


def _own_weights(single: DiagonalNormal, chosen: Tensor, z: Tensor, each: Tensor, joint: _Mixture) -> _Weights:
    """The weights that make tc zero where the dimensions of the posteriors, and of the draws, are permuted.

    The permuted draws have the same Σⱼ log q(zⱼ) on average, as log q(zⱼ) = `each` (m, latent_dim) moves with them.
    """
    n, latent_dim = single.loc.shape
    order = _permutations(len(z), latent_dim).to(z.device)
    images, z, product = chosen[order], z.gather(0, order), each.gather(0, order.cpu()).sum(1)
    own = doubles(_permuted(single, images).log_prob(z))
    total = torch.full_like(own, -math.inf)
    for copies in range(1, COPIES + 1):
        rows = _permutations(n, latent_dim).to(z.device)
        # Nor do the others of a true z hold its own image, in any dimension.
        total = total.logaddexp(_others(_permuted(single, rows), z, rows.argsort(0).gather(0, images)))
        mixture = _Mixture(own, total - math.log(copies), copies * (n - 1) + 1)
        best = _own_weight(mixture, product.mean())
        added = (own - product).mean() - (joint.own - joint.log_prob(best)).mean()
        if copies + 0.5 > added.exp():
            break
    error = _estimate(mixture.log_prob(best) - product).error
    return _Weights(best, *(_own_weight(mixture, product.mean() + by) for by in (-error, error)))


def _own_weight(mixture: _Mixture, expected: Tensor) -> float:
    """The weight with which log q(z) is as expected on average, by bisection; at most `HALF`."""
    low, high = -30.0, math.log(HALF)
    for _ in range(40):
        middle = (low + high) / 2
        if mixture.log_prob(math.exp(middle)).mean() < expected:
            low = middle
        else:
            high = middle
    return math.exp(high)


def _permutations(n: int, count: int) -> Tensor:
    return torch.stack([torch.randperm(n) for _ in range(count)], 1)


def _permuted(q: DiagonalNormal, rows: Tensor) -> DiagonalNormal:
    """Posteriors with the dimensions of the images `rows` (…, latent_dim)."""
    return DiagonalNormal(q.loc.gather(0, rows), q.scale.gather(0, rows))


def _log_prob_each(single: DiagonalNormal, chosen: Tensor, z: Tensor) -> Tensor:
    """log q(zⱼ) of each dimension, (m, latent_dim)."""
    columns = []
    for j in range(z.shape[1]):
        q, z_j = DiagonalNormal(single.loc[:, j : j + 1], single.scale[:, j : j + 1]), z[:, j : j + 1]
        own = doubles(DiagonalNormal(q.loc[chosen], q.scale[chosen]).log_prob(z_j))
        columns.append(_Mixture(own, _others(q, z_j, chosen[:, None]), len(q.loc)).log_prob(HALF))
    return torch.stack(columns, 1)


def _others(q: DiagonalNormal | FullNormal, z: Tensor, left_out: Tensor) -> Tensor:
    """The logarithm, (m,), of the mean density at z of all posteriors but those `left_out` (m, any number)."""
    left_out = left_out.sort(1).values.cpu()  # as are the densities
    remaining = len(q.loc) - 1 - (left_out.diff(dim=1) != 0).sum(1)
    each = len(q.loc) * (1 if isinstance(q, DiagonalNormal) else q.loc.shape[1])
    step = max(1, CHUNK // each)
    sums = [
        _logsumexp(_log_densities(q, part).scatter_(1, out, -math.inf))
        for part, out in zip(z.split(step), left_out.split(step), strict=True)
    ]
    return torch.cat(sums) - remaining.clamp(min=1).double().log()


def _logsumexp(logs: Tensor) -> Tensor:
    """torch's own over the last dimension, in half the time: it writes over `logs`."""
    top = logs.amax(-1, keepdim=True).clamp(min=torch.finfo(logs.dtype).min)
    return logs.sub_(top).exp_().sum(-1).log() + top.squeeze(-1)


def _log_densities(q: DiagonalNormal | FullNormal, z: Tensor) -> Tensor:
    """Log density of each posterior at each z, (m, n)."""
    constant = z.shape[1] * math.log(2 * math.pi)
    if isinstance(q, DiagonalNormal):  # Σⱼ (zⱼ − μⱼ)² / σⱼ² multiplied out, a product of matrices
        z, loc, scale = map(doubles, (z, q.loc, q.scale))
        precision = scale**-2
        constants = (loc**2 * precision).sum(1) + 2 * scale.log().sum(1) + constant
        return -0.5 * (torch.cat([z**2, -2 * z], 1) @ torch.cat([precision, loc * precision], 1).T + constants)
    inverse = _inverse(q)
    units = torch.einsum("nij,mnj->mni", inverse, z[:, None] - q.loc)
    log_scale = inverse.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return doubles(log_scale - 0.5 * (units.square().sum(-1) + constant))


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


def _weighted(part: Callable[[float], Tensor], weights: _Weights, independent: bool = False) -> Estimate:
    """Estimate of a part (m,) at the best weight; the weight's noise is `independent`, or that of the same draws."""
    found = _estimate(part(weights.best))
    shift = max(abs(part(weight).mean().item() - found.value) for weight in (weights.low, weights.high))
    return Estimate(found.value, math.hypot(found.error, shift) if independent else found.error + shift)
