"""The likelihood of images: log p(x) by importance sampling, and bits per dimension where these exist."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from vae.evaluation.doubles import doubles
from vae.model.noise import Draw
from vae.model.vae import VAE, evaluating

DECODED = 2**20  # numbers decoded at once, to bound the memory whatever the number of draws
LEVELS = 256  # of a pixel in a file


class Weighed(NamedTuple):
    """What k draws z of each image say by their weights w = p(x, z) / q(z|x); (n,) each, float64 on the CPU, nats."""

    log_p: Tensor  # log (1/k) Σ w, in the mean a lower bound on log p(x) that rises with k
    error: Tensor  # standard error of log_p; itself too small where ess is but a few
    ess: Tensor  # effective sample size (Σ w)² / Σ w², from 1 to k (Kish, 1965)
    elbo: Tensor  # (1/k) Σ log w


@torch.inference_mode()
def importance_likelihood(vae: VAE, batches: Iterable[tuple[Tensor, Tensor]], samples: int) -> Weighed:
    """log p(x) ≈ log (1/k) Σ p(x|z) p(z) / q(z|x) with k draws z from q(z|x), of each image (Burda et al., 2016)."""
    dtype = next(vae.parameters()).dtype
    with evaluating(vae):
        p = vae.prior()
        parts = []
        for images, labels in batches:
            x = images.to(dtype)
            parts.append(weighed(vae, x, labels, vae.encode(x, labels), p, samples))
    return Weighed(*map(torch.cat, zip(*parts, strict=True)))


@torch.inference_mode()
def mean_recon(vae: VAE, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """−log p(x|z) at z = E[z|x] of each image, (n,), float64 on the CPU, nats: all that an autoencoder says of it."""
    dtype = next(vae.parameters()).dtype
    with evaluating(vae):
        found = [doubles(vae(images.to(dtype), labels, Draw(mean=True)).recon) for images, labels in batches]
    return torch.cat(found)


def weighed(vae: VAE, x: Tensor, labels: Tensor, q: Distribution, p: Distribution, samples: int) -> Weighed:
    """The likelihood of images (n, channels, height, width) by draws from any q, of batch shape (n,).

    The standard error is that of the delta method, Var[log Σ w] ≈ Var[Σ w] / (Σ w)² = (1/ess − 1/k) / (1 − 1/k).
    """
    log_sum, log_squares = torch.full((2, len(x)), -math.inf, dtype=torch.float64)  # log Σ w, log Σ w²
    sum_log = torch.zeros(len(x), dtype=torch.float64)  # Σ log w
    at_once = max(1, DECODED // x.numel())
    for done in range(0, samples, at_once):
        z = q.sample(torch.Size([min(at_once, samples - done)]))  # (draws, n, latent_dim)
        log_w = vae.decode(z, labels).log_prob(x) + p.log_prob(z) - q.log_prob(z)
        log_w = doubles(log_w)
        log_sum = torch.logaddexp(log_sum, log_w.logsumexp(0))
        log_squares = torch.logaddexp(log_squares, (2 * log_w).logsumexp(0))
        sum_log += log_w.sum(0)
    ess = (2 * log_sum - log_squares).exp()
    # Equal weights leave a rounding error of either sign; a single draw has no error: 0 / 0.
    variance = (1 / ess - 1 / samples).clamp(min=0) / (1 - 1 / samples)
    return Weighed(log_sum - math.log(samples), variance.sqrt(), ess, sum_log / samples)


def dequantised(images: Tensor) -> Tensor:
    """(v + u) / 256 of images v / 255 with u uniform on [0, 1): what a density has a code length of."""
    return (images * (LEVELS - 1) + torch.rand_like(images)) / LEVELS


def bits_per_dimension(log_p: Tensor, shape: Sequence[int], pixels: str, density: bool) -> float | None:
    """−log₂ P(x) / D, mean over log p(x) (n,) of images of D = Π shape numbers; None where that is no code length.

    `density` says whether p(x|z) is one, and not probabilities; `pixels` says what the images are:

    - `binary`, 0 or 1: their probability is P(x);
    - `dequantised`, (v + u) / 256 of levels v = 0 … 255 with u uniform on [0, 1): a density p on [0, 1] gives the
      bound log P(v) ≥ E_u[log p(x)] − D log 256, so that 8 bits are to be added (Theis et al., 2016);
    - `grey`, v / 255: under a Bernoulli their cross-entropy adds up to no probability over the levels, and a density
      may be as high as it likes at 256 points, as it is at pixels that are always black.
    """
    if pixels not in ("binary", "dequantised", "grey"):
        raise ValueError(f"pixels={pixels}: must be one of binary, dequantised, grey")
    if pixels != ("dequantised" if density else "binary"):
        return None
    bits = -log_p.double().mean().item() / (math.prod(shape) * math.log(2))
    return bits + math.log2(LEVELS) if density else bits
