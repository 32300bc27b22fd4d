"""The true posterior p(z|x) ∝ p(x|z) p(z) of one or two latent dimensions by sums over grids, and q(z|x) beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vae.evaluation.doubles import doubles
from vae.evaluation.geometry import moments
from vae.evaluation.likelihood import DECODED
from vae.model.vae import VAE, evaluating

# Points of the grids. With steps of one σ the sum over a Gaussian is its integral to 1e-8.
COARSE = 24**2  # to find the mass
MIDDLE = 16**2  # to find its edge
FINE = 24**2  # to be summed
INNER = 14**2  # for means over q
SMOOTH = 80**2  # for q's density, which needs no decoder

FAR = 30.0  # nats below the highest point of the coarse grid: between its points the density may be much higher
EDGE = 10.0  # nats below the highest point: a Gaussian's at 4.5 σ, with 4 of 100,000 draws outside
REACH = 5.0  # standard deviations of q


class Gridded(NamedTuple):
    """Densities of n images, each on an even grid of its own; float64 on the CPU."""

    axes: Tensor  # coordinates along each dimension, (n, latent_dim, points)
    density: Tensor  # (n, points), or (n, points, points) with the first dimension first


class TruePosterior(NamedTuple):
    """p(z|x) and q(z|x) of n images; (n,) each of the others, float64 on the CPU, nats."""

    p: Gridded
    q: Gridded
    log_p: Tensor  # log p(x) = log ∫ p(x|z) p(z) dz
    kl: Tensor  # KL(q(z|x) ‖ p(z|x)) = log p(x) − ELBO


class Boxes(NamedTuple):
    """Parts of the latent space, one for each of n images or one for all of them; (n or 1, latent_dim) each."""

    low: Tensor
    high: Tensor

    def axes(self, points: int) -> Tensor:
        """Coordinates of even grids of about `points` points, (n or 1, latent_dim, side)."""
        side = round(points ** (1 / self.low.shape[1]))
        return torch.lerp(self.low[..., None], self.high[..., None], torch.linspace(0, 1, side, dtype=self.low.dtype))

    def grid(self, points: int) -> Tensor:
        """The latents of these grids, (side ** latent_dim, n or 1, latent_dim)."""
        axes = self.axes(points)
        dims = torch.arange(axes.shape[1])
        index = torch.cartesian_prod(*[torch.arange(axes.shape[2])] * len(dims)).view(-1, len(dims))
        return axes[:, dims, index].movedim(1, 0)

    def step(self, points: int) -> Tensor:
        """Between neighbours of these grids, (n or 1, latent_dim)."""
        axes = self.axes(points)
        return axes[..., 1] - axes[..., 0]


@torch.inference_mode()
def true_posterior(vae: VAE, images: Tensor, labels: Tensor, low: Tensor, high: Tensor) -> TruePosterior:
    """p(z|x) of images (n, channels, height, width), its mass sought around q and from low to high, (latent_dim,) each.

    Means over q are taken on a grid of their own, as tilted as q: it may be much narrower than p(z|x), or elsewhere.
    """
    x = images.to(next(vae.parameters()).dtype)
    with evaluating(vae):
        p, q = vae.prior(), vae.encode(x, labels)
        conditional = vae.backbone.classes > 0  # then one grid for all images would not do

        def log_joint(z: Tensor) -> Tensor:
            """Log p(x|z) p(z) of latents (points, n or 1, latent_dim) for each of the images, (points, n)."""
            parts = z.to(x).split(max(1, DECODED // x.numel()))
            given = labels if conditional else None
            found = [vae.decode(part, given).log_prob(x) + p.log_prob(part) for part in parts]
            return doubles(torch.cat(found))

        def log_q(z: Tensor) -> Tensor:
            return doubles(q.log_prob(z.to(x)))

        mean, covariance = map(doubles, moments(q))
        unit = REACH * torch.ones(1, len(low), dtype=torch.float64)
        units = Boxes(-unit, unit).grid(INNER)  # (points, 1, latent_dim)
        z = mean + (torch.linalg.cholesky(covariance) @ units[..., None]).squeeze(-1)
        inner, inner_joint = log_q(z), log_joint(z)
        reach = REACH * covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        around_q = Boxes(mean - reach, mean + reach)

        shape = mean.shape if conditional else (1, -1)
        found = Boxes(low.expand(shape), high.expand(shape))
        for points, drop in ((COARSE, FAR), (MIDDLE, EDGE)):
            grid = found.grid(points)
            known = (grid, log_joint(grid), found.step(points)), (z, inner_joint, around_q.step(INNER))
            found = _around(drop, known)
        log_density = log_joint(found.grid(FINE))
        log_p = log_density.logsumexp(0) + found.step(FINE).log().sum(-1)
        kl = log_p + (inner.softmax(0) * (inner - inner_joint)).sum(0)
        smooth = log_q(around_q.grid(SMOOTH))
    return TruePosterior(_gridded(found, FINE, log_density - log_p), _gridded(around_q, SMOOTH, smooth), log_p, kl)


def _around(drop: float, known: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Boxes:
    """Boxes around the points that are at most `drop` below the highest, and a step further.

    Each of `known` is a grid (points, n or 1, latent_dim), its log densities (points, n) and its step.
    """
    top = torch.cat([log_density for _, log_density, _ in known]).amax(0)  # (n,)
    low, high = [], []
    for z, log_density, step in known:
        inside = (log_density >= top - drop)[..., None]  # (points, n, 1)
        low.append(torch.where(inside, z - step, torch.inf))
        high.append(torch.where(inside, z + step, -torch.inf))
    return Boxes(torch.cat(low).amin(0), torch.cat(high).amax(0))


def _gridded(boxes: Boxes, points: int, log_density: Tensor) -> Gridded:
    axes = boxes.axes(points)
    n, latent_dim, side = axes.shape
    return Gridded(axes, log_density.exp().T.reshape(n, *[side] * latent_dim))
