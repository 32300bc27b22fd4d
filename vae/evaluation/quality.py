"""The quality of pictures: reconstructions against their images, and sets of samples against sets of images.

Sets are compared by features (n, features) of their images, of whatever network the caller takes them from.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vae.evaluation.doubles import doubles

WINDOW, SIGMA = 11, 1.5  # SSIM's Gaussian window, in pixels
LUMINANCE, CONTRAST = 0.01**2, 0.03**2  # SSIM's C₁ and C₂ for intensities in [0, 1]
EXACT = 1e-10  # a mean squared error below this counts as this, so that PSNR ends at 100 dB
CHUNK = 1000  # rows of a matrix of distances, or images, at a time


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of each image, (n, channels, height, width) twice → (n,)."""
    return (x - y).square().flatten(1).mean(1)


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in [0, 1], −10 log₁₀ MSE, (n,) decibels, at most 100."""
    return -10 * mse(x, y).clamp(min=EXACT).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of each image in [0, 1], (n, channels, height, width) twice → (n,) (Wang et al., 2004).

    (2 μₓμᵧ + C₁)(2 σₓᵧ + C₂) / ((μₓ² + μᵧ² + C₁)(σₓ² + σᵧ² + C₂)), averaged over channels and all windows that lie
    within the image; along a side shorter than the window it has the largest odd width that fits.
    """
    return torch.cat([_ssim(a, b) for a, b in zip(x.split(CHUNK), y.split(CHUNK), strict=True)])


def reconstruction(x: Tensor, y: Tensor) -> dict[str, float]:
    """`mse`, `psnr` and `ssim` of images in [0, 1] and their reconstructions: means over the images.

    `mse_of_variance` is in units of the variance of all their numbers; 0 where these are all the same.
    """
    measures = {"mse": mse, "psnr": psnr, "ssim": ssim}
    found = {name: doubles(measure(x, y)).mean().item() for name, measure in measures.items()}
    variance = doubles(x).var(correction=0).item()
    return found | {"mse_of_variance": found["mse"] / variance if variance else 0.0}


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Distance between Gaussians with the moments of features (n, features), (m, features) (Heusel et al., 2017).

    ‖μ − μ′‖² + tr(C + C′ − 2 (C C′)^½). Biased: it falls with the number of images, so compare equal numbers only.
    """
    a, b = doubles(a), doubles(b)
    factors = [_factor(torch.atleast_2d(each.T.cov())) for each in (a, b)]
    # With C = FFᵀ, C′ = GGᵀ the eigenvalues of C C′ are the squared singular values of FᵀG, free of the complex
    # numbers that rounding brings into those of a product which is not symmetric.
    cross = torch.linalg.svdvals(factors[0].T @ factors[1]).sum()
    spread = sum(factor.square().sum() for factor in factors)
    return max(((a.mean(0) - b.mean(0)).square().sum() + spread - 2 * cross).item(), 0.0)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Unbiased MMD² of features (n, features), (m, features), k(a, b) = (aᵀb / features + 1)³ (Bińkowski et al., 2018).

    Also below zero where the sets come from one distribution.
    """
    a, b = doubles(a), doubles(b)
    same = sum((_kernel_sum(each, each) - _kernel(each, each).sum()) / (len(each) * (len(each) - 1)) for each in (a, b))
    return (same - 2 * _kernel_sum(a, b) / (len(a) * len(b))).item()


class PrecisionRecall(NamedTuple):
    """Kynkäänniemi et al. (2019)."""

    precision: float  # share of the samples that lie among the images
    recall: float  # share of the images that lie among the samples


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> PrecisionRecall:
    """Of features (n, features) of images and (m, features) of samples.

    A set's support is the union of balls around its points, each reaching to the k-th nearest other point.
    """
    precision = _ball_hits(real, fake, k).balls > 0
    recall = _ball_hits(fake, real, k).balls > 0
    return PrecisionRecall(precision.double().mean().item(), recall.double().mean().item())


class DensityCoverage(NamedTuple):
    """Naeem et al. (2020)."""

    density: float  # balls of images that a sample lies in, over k; 1 is expected of a perfect model, more is possible
    coverage: float  # share of the images' balls that a sample lies in


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> DensityCoverage:
    """Of features (n, features) of images and (m, features) of samples; steadier than precision and recall.

    n samples of the images' own distribution cover 1 − Πᵢ₌₁ᵏ (n − i) / (2n − i) on average, which is near 1 − 2⁻ᵏ.
    """
    hits = _ball_hits(real, fake, k)
    return DensityCoverage(hits.balls.double().mean().item() / k, (hits.points > 0).double().mean().item())


def samples(real: Tensor, fake: Tensor) -> dict[str, float]:
    """All distances of samples' features (m, features) from images' (n, features)."""
    return {
        "frechet": frechet_distance(real, fake),
        "kernel": kernel_distance(real, fake),
        **precision_recall(real, fake)._asdict(),
        **density_coverage(real, fake)._asdict(),
    }


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blur(torch.stack([x, y, x * x, y * y, x * y])).unbind(0)
    var_x, var_y, cov = mean_xx - mean_x**2, mean_yy - mean_y**2, mean_xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + LUMINANCE) / (mean_x**2 + mean_y**2 + LUMINANCE)
    structure = (2 * cov + CONTRAST) / (var_x + var_y + CONTRAST)
    return (luminance * structure).flatten(1).mean(1)


def _blur(images: Tensor) -> Tensor:
    """Means in a Gaussian window around all pixels that are far enough from the border, (…, height, width)."""
    height, width = images.shape[-2:]
    rows, columns = _window(height).to(images), _window(width).to(images)
    planes = images.reshape(-1, 1, height, width)
    planes = F.conv2d(F.conv2d(planes, rows.view(1, 1, -1, 1)), columns.view(1, 1, 1, -1))
    return planes.view(*images.shape[:-2], *planes.shape[-2:])


def _window(side: int) -> Tensor:
    """Weights that add up to 1, for an image's side of this many pixels."""
    size = min(WINDOW, side if side % 2 else side - 1)
    x = torch.arange(size, dtype=torch.float64) - size // 2
    return (-(x**2) / (2 * SIGMA**2)).softmax(0)


def _factor(covariance: Tensor) -> Tensor:
    """F with FFᵀ = C, also where C is singular."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """k of each row of a with the same row of b."""
    return ((a * b).sum(-1) / a.shape[-1] + 1) ** 3


def _kernel_sum(a: Tensor, b: Tensor) -> Tensor:
    """Σ k of each row of a with each row of b."""
    return torch.stack([((rows @ b.T / a.shape[-1] + 1) ** 3).sum() for rows in a.split(CHUNK)]).sum()


class _Hits(NamedTuple):
    balls: Tensor  # (points,): in how many balls each point lies
    points: Tensor  # (centres,): how many points lie in each ball


def _ball_hits(centres: Tensor, points: Tensor, k: int) -> _Hits:
    """Of balls that reach from each centre to the k-th nearest other centre, borders included."""
    if len(centres) <= k:
        raise ValueError(f"{len(centres)} features: must be more than k={k}, the neighbours that are asked for")
    centres, points = doubles(centres), doubles(points)
    middle = centres.mean(0)
    centres, points = centres - middle, points - middle  # rounding is least around zero
    # Far above rounding, so that a point on a border, such as a repeated one, lies inside.
    tolerance = 1e-12 * torch.cat([centres, points]).square().sum(1).max()
    balls = torch.zeros(len(points), dtype=torch.long)
    counts = []
    for rows in centres.split(CHUNK):
        nearest = _squared_distances(rows, centres).topk(k + 1, dim=1, largest=False).values  # the first is the centre
        inside = _squared_distances(rows, points) <= nearest[:, -1:] + tolerance
        balls += inside.sum(0)
        counts.append(inside.sum(1))
    return _Hits(balls, torch.cat(counts))


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖a‖² + ‖b‖² − 2aᵀb of each row of a with each row of b: several times faster than differences."""
    return torch.addmm(a.square().sum(1)[:, None] + b.square().sum(1), a, b.T, alpha=-2)
