"""Latents worth decoding: sheets that span the prior, straight lines between codes, walks along one dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal

from vae.evaluation.geometry import Geometry

KINDS = ("whitened", "square", "quantile")
WALKS = ("axis", "conditional")
FINE = 200  # points along each axis when the mass of a density is divided
SPAN = 3.0  # standard units that a grid reaches from the prior's mean
SLICES = (-1.0, 0.0, 1.0)  # standard units of the third dimension at which a three-dimensional space is cut


class Sheet(NamedTuple):
    """Latents on a grid: rows of rising second coordinate, columns of rising first coordinate."""

    z: Tensor  # (rows, columns, latent_dim)
    dims: tuple[int, ...]  # the one or two dimensions that vary
    cut: tuple[int, float, float] | None = None  # a slice's dimension, its value, and that in standard units


def manifold(prior: Geometry, kind: str = "whitened", dims: Sequence[int] = (0, 1), count: int = 20) -> list[Sheet]:
    """The sheets of the decoded manifold, `count` latents along each side.

    latent_dim 1: a strip; 2: one sheet; 3: three slices across the third dimension; more: the plane of two `dims`
    through the prior's mean. Kinds of grid:

    - `whitened`: z = m + L g, g evenly spaced in ±3, LLᵀ = Σ: a correlated prior gives a tilted, stretched sheet;
    - `square`: evenly spaced in m ± 3, whatever the prior's covariance;
    - `quantile`: equal prior mass in every cell.

    A slice spans the prior given the other dimensions: its m and Σ are the conditional ones, by the formulas of a
    Gaussian with the prior's moments. Only the quantiles of another prior are those of its own conditional density.
    """
    if kind not in KINDS:
        raise ValueError(f"grid={kind}: must be one of {', '.join(KINDS)}")
    if kind == "square":
        prior = Geometry(prior.mean, torch.eye(len(prior.mean), dtype=prior.mean.dtype))
    n = len(prior.mean)
    if n == 1:
        return [Sheet(_sheet(prior, kind, (0,), prior.mean, count), (0,))]
    if n == 2:
        return [Sheet(_sheet(prior, kind, (0, 1), prior.mean, count), (0, 1))]
    if n > 3:
        return [Sheet(_sheet(prior, kind, dims, prior.mean, count), (dims[0], dims[1]))]
    sheets = []
    for offset in SLICES:
        at = prior.mean.clone()
        at[2] += offset * prior.scale[2]
        sheets.append(Sheet(_sheet(prior, kind, (0, 1), at, count), (0, 1), (2, at[2].item(), offset)))
    return sheets


def interpolation(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """(1 − t) a + t b for t from 0 to 1: (pairs, latent_dim) twice → (pairs, steps, latent_dim)."""
    t = torch.linspace(0, 1, steps).to(start)
    return torch.lerp(start[:, None], end[:, None], t[:, None])


def traversal(code: Tensor, prior: Geometry, dims: Sequence[int], offsets: Tensor, walk: str = "axis") -> Tensor:
    """A code (latent_dim,) moved in each of `dims` → (dims, offsets, latent_dim).

    Along the `axis`, z + offset · sᵢ eᵢ with sᵢ the prior's standard deviation; or `conditional`, z + offset · Σeᵢ/sᵢ:
    the other dimensions move as far as the prior, by its covariance Σ, expects them to when zᵢ does.
    """
    if walk not in WALKS:
        raise ValueError(f"walk={walk}: must be one of {', '.join(WALKS)}")
    along = prior.scale.diag() if walk == "axis" else prior.covariance / prior.scale[:, None]
    directions = along[list(dims)].to(code)  # (dims, latent_dim)
    return code + offsets.to(code)[:, None] * directions[:, None]


def conditional(prior: Geometry, dims: Sequence[int], at: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of `dims` given that the others are as in `at` (latent_dim,), by the Gaussian's formulas."""
    given = [i for i in range(len(prior.mean)) if i not in dims]
    chosen = list(dims)
    sigma = prior.covariance
    gain = torch.linalg.solve(sigma[given][:, given], sigma[given][:, chosen]).T  # (dims, given)
    mean = prior.mean[chosen] + gain @ (at - prior.mean)[given]
    return mean, sigma[chosen][:, chosen] - gain @ sigma[given][:, chosen]


def _sheet(prior: Geometry, kind: str, dims: Sequence[int], at: Tensor, count: int) -> Tensor:
    """(rows, columns, latent_dim): `dims` vary, the other dimensions are as in `at`."""
    probabilities = (torch.arange(count, dtype=prior.mean.dtype) + 0.5) / count  # the middle of each cell
    if kind == "quantile" and prior.samples is not None:
        plane = _equal_mass(prior, dims, at, probabilities)
    else:
        spaced = torch.linspace(-SPAN, SPAN, count, dtype=prior.mean.dtype)
        g = Normal(0.0, 1.0).icdf(probabilities) if kind == "quantile" else spaced
        mean, covariance = conditional(prior, dims, at)
        rows = [g.new_zeros(1), g][len(dims) - 1]
        units = torch.stack(torch.meshgrid(g, rows, indexing="xy"), -1)[..., : len(dims)]  # (rows, columns, dims)
        plane = mean + units @ torch.linalg.cholesky(covariance).T
    z = at.expand(*plane.shape[:2], -1).clone()
    z[..., list(dims)] = plane
    return z


def _equal_mass(prior: Geometry, dims: Sequence[int], at: Tensor, probabilities: Tensor) -> Tensor:
    """Quantiles of the first of `dims`, and of the second one given the first: (rows, columns, dims).

    Of the prior's density given that the other dimensions are as in `at` (latent_dim,), summed over a fine grid.
    """
    assert prior.samples is not None
    axes = []
    for dim in dims:
        low, high = prior.samples[:, dim].min().item(), prior.samples[:, dim].max().item()
        margin = 0.1 * (high - low)
        axes.append(torch.linspace(low - margin, high + margin, FINE, dtype=at.dtype))
    if len(dims) == len(prior.mean):
        mass = prior.density(*axes)
    else:
        assert prior.log_prob is not None
        log_p = []
        for rows in torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).split(8):  # memory is that of a few rows
            z = at.expand(*rows.shape[:-1], -1).clone()
            z[..., list(dims)] = rows
            log_p.append(prior.log_prob(z))
        mass = torch.cat(log_p)
        mass = (mass - mass.max()).exp()
    first = _quantiles(axes[0], mass.flatten(1).sum(1) if len(dims) > 1 else mass, probabilities)  # (columns,)
    if len(dims) == 1:
        return first[None, :, None]
    nearest = torch.searchsorted(axes[0], first).clamp(max=FINE - 1)
    second = torch.stack([_quantiles(axes[1], mass[i], probabilities) for i in nearest], 1)  # (rows, columns)
    return torch.stack([first.expand_as(second), second], -1)


def _quantiles(x: Tensor, density: Tensor, probabilities: Tensor) -> Tensor:
    """Where the mass up to a point is each of the probabilities, of a density at evenly spaced points x."""
    total = density.cumsum(0) - density / 2  # half of a point's mass lies on each side
    total = total / density.sum()
    after = torch.searchsorted(total, probabilities).clamp(1, len(x) - 1)
    low, high = total[after - 1], total[after]
    share = ((probabilities - low) / (high - low).clamp(min=1e-300)).clamp(0, 1)
    return x[after - 1] + share * (x[after] - x[after - 1])
