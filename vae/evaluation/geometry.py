"""A latent distribution as pictures see it: its moments, its density along any axes, outlines of a given mass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import contourpy
import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from vae.evaluation.doubles import doubles
from vae.model import draws as drawing
from vae.model.distributions import DiagonalNormal, FullNormal
from vae.model.draws import at_once, draws

SAMPLES = 20_000  # of a distribution that has no formulas
GRID = 120  # points along each axis when a density is contoured


def moments(distribution: Distribution, samples: int = 100) -> tuple[Tensor, Tensor]:
    """Mean (…, n) and covariance (…, n, n): exact for Gaussians, else those of `samples` draws."""
    if isinstance(distribution, DiagonalNormal | FullNormal):
        return distribution.mean, distribution.covariance_matrix
    z = distribution.sample(torch.Size([samples]))  # (samples, …, n)
    centred = z - z.mean(0)
    return z.mean(0), torch.einsum("s...i,s...j->...ij", centred, centred) / (samples - 1)


def in_parts(points: Tensor) -> Iterator[Tensor]:
    """The rows of (count, n), a few at a time, in double precision: a copy of all of them may take too much memory."""
    return (part.double() for part in points.split(max(1, drawing.CHUNK // points.shape[1])))


def mean(points: Tensor) -> Tensor:
    """Mean of the rows of (count, n), (n,), in double precision."""
    return torch.stack([part.sum(0) for part in in_parts(points)]).sum(0) / len(points)


def covariance(points: Tensor, correction: int = 0) -> Tensor:
    """Covariance of the rows of (count, n), (n, n), in double precision."""
    middle = mean(points)
    total = torch.zeros(len(middle), len(middle), dtype=middle.dtype, device=middle.device)
    for part in in_parts(points):
        centred = part - middle
        total.addmm_(centred.T, centred)
    return total / (len(points) - correction)


def coordinates(points: Tensor, axes: Tensor, origin: Tensor | float) -> Tensor:
    """A (z − origin) of the rows z of (count, n), (count, k) in double precision; the axes are the rows of A (k, n)."""
    return torch.cat([(part - origin) @ axes.T for part in in_parts(points)])


@dataclass(frozen=True)
class Geometry:
    """Mean (n,) and covariance (n, n) in double precision on the CPU; draws stand in for what has no formula."""

    mean: Tensor
    covariance: Tensor
    samples: Tensor | None = None  # (count, n) as drawn; None for a Gaussian, whose moments say everything
    log_prob: Callable[[Tensor], Tensor] | None = None  # (…, n) → (…), where it is known

    @classmethod
    def of(cls, p: Distribution, count: int = SAMPLES) -> Geometry:
        """The geometry of a distribution with event shape (n,), such as the prior; `count` draws if it needs some."""
        if isinstance(p, DiagonalNormal | FullNormal):
            return cls(doubles(p.mean), doubles(p.covariance_matrix))
        drawn = draws(p, count)
        device, dtype, size = drawn.device, drawn.dtype, at_once(p)
        samples = drawn.cpu()

        def log_prob(z: Tensor) -> Tensor:
            found = [doubles(p.log_prob(part)) for part in z.flatten(0, -2).to(device, dtype).split(size)]
            return torch.cat(found).view(z.shape[:-1])

        return cls(mean(samples), covariance(samples, correction=1), samples, log_prob)

    @property
    def scale(self) -> Tensor:
        """Standard deviation along each axis, (n,)."""
        return self.covariance.diagonal().sqrt()

    def along(self, axes: Tensor, origin: Tensor | float = 0.0) -> Geometry:
        """The distribution of the coordinates A (z − origin), with the axes the rows of A (k, n)."""
        axes = axes.to(self.mean)
        mean, covariance = axes @ (self.mean - origin), axes @ self.covariance @ axes.T
        if self.samples is None:
            return Geometry(mean, covariance)
        return Geometry(mean, covariance, coordinates(self.samples, axes, origin))

    def marginal(self, dims: Sequence[int]) -> Geometry:
        """The distribution of some of the dimensions."""
        chosen = list(dims)
        mean, covariance = self.mean[chosen], self.covariance[chosen][:, chosen]
        if self.samples is None:
            return Geometry(mean, covariance)
        log_prob = self.log_prob if chosen == list(range(len(self.mean))) else None
        return Geometry(mean, covariance, self.samples[:, chosen].double(), log_prob)

    def density(self, *axes: Tensor) -> Tensor:
        """The density on the grid that one tensor of coordinates for each axis spans, shape (len(axis), …)."""
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
        if self.log_prob is not None:
            return self.log_prob(grid).exp()
        if self.samples is None:
            return MultivariateNormal(self.mean, self.covariance).log_prob(grid).exp()
        # A sum of Gaussian kernels as wide as Scott's rule says; a product kernel keeps the axes apart until here.
        width = self.scale * len(self.samples) ** (-1 / (len(axes) + 4))
        kernels = [
            (-0.5 * ((axis[:, None] - self.samples[:, i]) / width[i]) ** 2).exp() / (width[i] * math.sqrt(2 * math.pi))
            for i, axis in enumerate(axes)
        ]
        letters = "abcdefg"[: len(axes)]
        product = torch.einsum(",".join(f"{each}s" for each in letters) + f"->{letters}", *kernels)
        return product / len(self.samples)

    def outline(self, sigmas: float) -> list[Tensor]:
        """Closed lines (points, 2) around the mass 1 − exp(−½ sigmas²) of a distribution of two coordinates.

        For a Gaussian the ellipse at that many standard deviations, else contours of the density.
        """
        if self.samples is None:
            return [ellipse(self.mean, self.covariance, sigmas)]
        return contours(*self._surface, sigmas)

    @cached_property
    def _surface(self) -> tuple[Tensor, Tensor, Tensor]:
        """The two axes of a grid around the samples of two coordinates, and the density there."""
        assert self.samples is not None
        low, high = (end.double() for end in self.samples.aminmax(dim=0))
        low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)  # else the outermost lines would not close
        x, y = (torch.linspace(a, b, GRID, dtype=low.dtype) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        return x, y, self.density(x, y)


def contours(x: Tensor, y: Tensor, density: Tensor, sigmas: float) -> list[Tensor]:
    """Closed lines (points, 2) around the densest mass 1 − exp(−½ sigmas²) of a density (len(x), len(y)) on a grid."""
    falling = density.flatten().sort(descending=True).values
    outside = (falling.cumsum(0) / falling.sum()) < 1 - math.exp(-0.5 * sigmas**2)
    level = falling[int(outside.sum())].item()
    lines = contourpy.contour_generator(x.numpy(), y.numpy(), density.T.numpy()).lines(level)
    return [torch.as_tensor(line) for line in lines]


def ellipse(mean: Tensor, covariance: Tensor, sigmas: float, points: int = 181) -> Tensor:
    """m + sigmas · L (cos t, sin t) with LLᵀ the covariance (2, 2): a closed line (points, 2)."""
    t = torch.linspace(0, 2 * math.pi, points, dtype=covariance.dtype)
    # Not Cholesky's factor: a collapsed model's covariance of the means is singular.
    values, vectors = torch.linalg.eigh(covariance)
    return mean + sigmas * torch.stack([t.cos(), t.sin()], -1) @ (vectors * values.clamp(min=0).sqrt()).T
