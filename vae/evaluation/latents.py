"""The use of a latent space: codes of a whole part, their covariances, the active dimensions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from vae.evaluation.doubles import doubles
from vae.evaluation.geometry import Geometry, covariance, in_parts, mean, moments
from vae.model.codes import Coding
from vae.model.distributions import DiagonalNormal, TiedNormal
from vae.model.vae import VAE

MATRICES = 2**24  # numbers of the posteriors' covariances at a time
ACTIVE = 0.01  # variance of the posterior mean above which a unit is active (Burda et al., 2016)


class Codes(NamedTuple):
    """The posteriors q(z|x) of a part's images, on the CPU; of an autoencoder points, without any variance."""

    means: Tensor  # E[z|x], (n, latent_dim)
    variances: Tensor  # of each dimension, (n, latent_dim)
    noise: Tensor  # Cov[z|x], averaged over the images, (latent_dim, latent_dim)
    labels: Tensor  # (n,)


@torch.inference_mode()
def encode(vae: VAE, batches: Iterable[tuple[Tensor, Tensor]], at_mean: bool = False) -> Codes:
    """The top level's codes of all images; a posterior that is not Gaussian is described by draws from it.

    With `at_mean` the means are all that there is.
    """
    if isinstance(vae.posterior, Coding):
        return _vectors(vae, batches)
    prior = vae.prior()
    n = prior.event_shape[0]
    means, spreads, labels = [], [], []
    total = torch.zeros(n, n, dtype=torch.float64)
    for images, batch_labels in batches:
        labels.append(batch_labels.cpu())
        for features in vae.backbone.encode(images, batch_labels)[0].split(max(1, MATRICES // n**2)):
            q = vae.posterior.q(features, prior)
            if isinstance(q, DiagonalNormal | TiedNormal):  # their covariances need not be made
                middle, spread = q.mean, q.variance
            else:
                middle, matrices = moments(q)
                spread = matrices.diagonal(dim1=-2, dim2=-1)
                total += doubles(matrices.sum(0))
            means.append(middle.cpu())
            spreads.append(spread.cpu() * (not at_mean))
    variances = torch.cat(spreads)
    if isinstance(q, DiagonalNormal | TiedNormal):
        noise = _mean_covariance(q, variances)
    else:
        noise = total * (not at_mean) / len(variances)
    return Codes(torch.cat(means), variances, noise, torch.cat(labels))


def _vectors(vae: VAE, batches: Iterable[tuple[Tensor, Tensor]]) -> Codes:
    """The vectors of codes as points."""
    found = [(vae.q(images, labels).mean.cpu(), labels.cpu()) for images, labels in batches]
    means, labels = map(torch.cat, zip(*found, strict=True))
    n = means.shape[1]
    nothing = torch.zeros((), dtype=torch.float64)
    return Codes(means, nothing.to(means).expand_as(means), nothing.expand(n, n), labels)


def variance(means: Tensor) -> Tensor:
    """Variance over the images (latent_dim,) of (n, latent_dim), in double precision."""
    middle = mean(means)
    return torch.stack([(part - middle).square().sum(0) for part in in_parts(means)]).sum(0) / len(means)


def aggregate_covariance(codes: Codes) -> Tensor:
    """Covariance of the aggregate posterior E_x[q(z|x)]: Cov[E[z|x]] + E[Cov[z|x]]."""
    return covariance(codes.means) + codes.noise


def aggregate_density(codes: Codes, dim: int, x: Tensor) -> Tensor:
    """Density of one dimension of the aggregate posterior, E_x[N(x; μ, σ²)], at coordinates (points,).

    Points have a width by Scott's rule.
    """
    chosen = slice(None, None, -(-len(codes.means) // 5000))  # five thousand images are enough for a curve
    middle, scale = codes.means[chosen, dim], codes.variances[chosen, dim].sqrt()
    if not codes.variances.any():
        scale = middle.std() * len(middle) ** -0.2
    return Normal(middle, scale, validate_args=False).log_prob(x.to(middle)[:, None]).exp().mean(1)


def kl_per_dimension(codes: Codes, prior: Geometry) -> Tensor:
    """KL(qᵢ ‖ pᵢ) of the marginals of each dimension, mean over the images, (latent_dim,), nats.

    ½ (σ²/s² + (μ − m)²/s² − 1 − log σ²/s²). Where prior or posterior are correlated these do not add up to
    KL(q ‖ p); where one of them is not Gaussian, the Gaussian with its mean and variance takes its place.
    """
    sums = []
    for means, variances in zip(in_parts(codes.means), in_parts(codes.variances), strict=True):
        ratio = variances / prior.scale**2
        distance = (means - prior.mean) ** 2 / prior.scale**2
        sums.append((ratio + distance - 1 - ratio.log()).sum(0))
    return 0.5 * torch.stack(sums).sum(0) / len(codes.means)


def adds_up(codes: Codes, prior: Geometry) -> bool:
    """Whether `kl_per_dimension` adds up to KL(q ‖ p): for independent dimensions of Gaussians."""
    return prior.samples is None and all(_is_diagonal(matrix) for matrix in (prior.covariance, codes.noise))


def active_units(means: Tensor) -> Tensor:
    """Whether Var_x(E[zᵢ|x]) > 0.01, (latent_dim,) booleans (Burda et al., 2016)."""
    return variance(means) > ACTIVE


def ranking(codes: Codes, prior: Geometry) -> list[int]:
    """All dimensions, the most informative about the image first.

    By `kl_per_dimension`, or, where the codes are points, by their variance.
    """
    says = kl_per_dimension(codes, prior) if codes.variances.any() else variance(codes.means)
    return says.argsort(descending=True, stable=True).tolist()


class Principal(NamedTuple):
    """Principal axes of a covariance."""

    axes: Tensor  # (latent_dim, latent_dim): each row a direction, the first with most variance
    shares: Tensor  # (latent_dim,): of the total variance; falls, and adds up to 1


def principal(covariance: Tensor) -> Principal:
    """Principal component analysis by the covariance (latent_dim, latent_dim) of posterior means."""
    values, vectors = torch.linalg.eigh(covariance)
    values, axes = values.flip(0).clamp(min=0), vectors.T.flip(0)
    # Either sign is right; the same one in every epoch makes pictures that do not flip.
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return Principal(axes * largest.sign(), values / values.sum().clamp(min=1e-300))


def _mean_covariance(q: DiagonalNormal | TiedNormal, variances: Tensor) -> Tensor:
    """Mean covariance of posteriors that differ in their variances (n, latent_dim) alone; q are some of them."""
    if isinstance(q, DiagonalNormal):
        return mean(variances).diag()
    # The common correlations times the means of σᵢ σⱼ.
    factor = nn.functional.normalize(doubles(q.factor), dim=-1)
    products = sum(scales.T @ scales for scales in in_parts(variances.sqrt()))
    return factor @ factor.T * products / len(variances)


def _is_diagonal(matrix: Tensor) -> bool:
    off = matrix - matrix.diagonal().diag()
    return bool(off.abs().max() <= 1e-9 * matrix.diagonal().max())
