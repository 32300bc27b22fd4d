"""What a model makes of its latent space: codes of a whole part, their covariances, which dimensions are used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal

from vae.evaluation.geometry import Geometry, moments
from vae.model import VAE

ACTIVE = 0.01  # variance of the posterior mean above which a unit is active (Burda et al., 2016)


class Codes(NamedTuple):
    """The posteriors q(z|x) of a part's images, on the CPU; of an autoencoder points, without any variance."""

    means: Tensor  # E[z|x], (n, latent_dim)
    variances: Tensor  # of each dimension, (n, latent_dim)
    noise: Tensor  # Cov[z|x], averaged over the images, (latent_dim, latent_dim)
    labels: Tensor  # (n,)


@torch.inference_mode()
def encode(vae: VAE, batches: Iterable[tuple[Tensor, Tensor]], at_mean: bool = False) -> Codes:
    """The codes of all images of the batches; a posterior that is not Gaussian is described by draws from it.

    `at_mean` takes the means for all that there is.
    """
    means, variances, labels, noise = [], [], [], []
    for images, batch_labels in batches:
        mean, spread = moments(vae.encode(images, batch_labels))
        spread = spread * (not at_mean)
        means.append(mean.cpu())
        variances.append(spread.diagonal(dim1=-2, dim2=-1).cpu())
        noise.append(spread.sum(0).cpu().double())  # first to the host: not every device has doubles
        labels.append(batch_labels.cpu())
    count = sum(map(len, labels))
    return Codes(torch.cat(means), torch.cat(variances), torch.stack(noise).sum(0) / count, torch.cat(labels))


def covariance(means: Tensor) -> Tensor:
    """Covariance over the images (latent_dim, latent_dim) of (n, latent_dim), in double precision."""
    return torch.atleast_2d(means.double().T.cov(correction=0))


def aggregate_covariance(codes: Codes) -> Tensor:
    """Covariance of the aggregate posterior E_x[q(z|x)]: Cov[E[z|x]] + E[Cov[z|x]]."""
    return covariance(codes.means) + codes.noise


def aggregate_density(codes: Codes, dim: int, x: Tensor) -> Tensor:
    """Density of one dimension of the aggregate posterior, E_x[N(x; μ, σ²)], at coordinates (points,).

    Points have a width by Scott's rule.
    """
    chosen = slice(None, None, -(-len(codes.means) // 5000))  # five thousand images are enough for a curve
    mean, scale = codes.means[chosen, dim], codes.variances[chosen, dim].sqrt()
    if not codes.variances.any():
        scale = mean.std() * len(mean) ** -0.2
    return Normal(mean, scale, validate_args=False).log_prob(x.to(mean)[:, None]).exp().mean(1)


def kl_per_dimension(codes: Codes, prior: Geometry) -> Tensor:
    """KL(qᵢ ‖ pᵢ) of the marginals of each dimension, mean over the images, (latent_dim,), nats.

    ½ (σ²/s² + (μ − m)²/s² − 1 − log σ²/s²). Where prior or posterior are correlated these do not add up to
    KL(q ‖ p); where one of them is not Gaussian, the Gaussian with its mean and variance takes its place.
    """
    ratio = codes.variances.double() / prior.scale**2
    distance = (codes.means.double() - prior.mean) ** 2 / prior.scale**2
    return 0.5 * (ratio + distance - 1 - ratio.log()).mean(0)


def adds_up(codes: Codes, prior: Geometry) -> bool:
    """Whether `kl_per_dimension` adds up to KL(q ‖ p): for independent dimensions of Gaussians."""
    return prior.samples is None and all(_is_diagonal(matrix) for matrix in (prior.covariance, codes.noise))


def active_units(means: Tensor) -> Tensor:
    """Whether Var_x(E[zᵢ|x]) > 0.01, (latent_dim,) booleans (Burda et al., 2016)."""
    return covariance(means).diagonal() > ACTIVE


def most_active(codes: Codes, prior: Geometry, count: int) -> list[int]:
    """The dimensions that say most about the image, at most `count`, in rising order.

    By `kl_per_dimension`, or, where the codes are points, by their variance.
    """
    is_spread = bool(codes.variances.any())
    says = kl_per_dimension(codes, prior) if is_spread else covariance(codes.means).diagonal()
    order = says.argsort(descending=True, stable=True)
    return sorted(order[:count].tolist())


class Principal(NamedTuple):
    """Principal axes of the posterior means."""

    axes: Tensor  # (latent_dim, latent_dim): each row a direction, the first with most variance
    origin: Tensor  # (latent_dim,): mean of the means
    shares: Tensor  # (latent_dim,): of the total variance; falls, and adds up to 1


def principal(means: Tensor) -> Principal:
    """Principal component analysis of (n, latent_dim)."""
    values, vectors = torch.linalg.eigh(covariance(means))
    values, axes = values.flip(0).clamp(min=0), vectors.T.flip(0)
    # Either sign is right; the same one in every epoch makes pictures that do not flip.
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return Principal(axes * largest.sign(), means.double().mean(0), values / values.sum().clamp(min=1e-300))


def _is_diagonal(matrix: Tensor) -> bool:
    off = matrix - matrix.diagonal().diag()
    return bool(off.abs().max() <= 1e-9 * matrix.diagonal().max())
