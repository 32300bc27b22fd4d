"""The likelihood of images: log p(x) by importance sampling, and bits per dimension where these exist."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import length_hint
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from vae.common.terminal import NO_BAR, Bar, bar_of_long
from vae.evaluation.doubles import doubles
from vae.model.discretized import LEVELS
from vae.model.noise import Draw
from vae.model.vae import VAE, evaluating

DECODED = 2**20  # numbers decoded at once, to bound the memory whatever the number of draws


class Weighed(NamedTuple):
    """What k draws z of each image say by their weights w = p(x, z) / q(z|x); (n,) each, float64 on the CPU, nats."""

    log_p: Tensor  # log (1/k) Σ w, in the mean a lower bound on log p(x) that rises with k
    error: Tensor  # standard error of log_p; itself too small where ess is but a few
    ess: Tensor  # effective sample size (Σ w)² / Σ w², from 1 to k (Kish, 1965)
    elbo: Tensor  # (1/k) Σ log w


@torch.inference_mode()
def importance_likelihood(
    vae: VAE,
    batches: Iterable[tuple[Tensor, Tensor]],
    samples: int,
    change: Callable[[Tensor], Tensor] = lambda images: images,
) -> Weighed:
    """log p(x) ≈ log (1/k) Σ p(x|z) p(z) / q(z|x) with k draws z from q(z|x), of each image (Burda et al., 2016).

    The images may be changed first, as by `dequantised`. Where z is a function of x, every draw says the same.
    """
    dtype = next(vae.parameters()).dtype
    with evaluating(vae), bar_of_long("log p(x)", length_hint(batches, 1) * samples) as progress:
        parts = []
        for images, labels in batches:
            x = change(images).to(dtype)
            if vae.is_certain:
                total = doubles(vae(x, labels).total)
                sure = torch.zeros_like(total), torch.full_like(total, samples)
                parts.append(Weighed(-total, *sure, -total))
                continue
            parts.append(weighed(vae, x, labels, vae.q(x, labels), vae.p(labels), samples, progress))
    return Weighed(*map(torch.cat, zip(*parts, strict=True)))


@torch.inference_mode()
def mean_recon(vae: VAE, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """−log p(x|z) at z = E[z|x] of each image, (n,), float64 on the CPU, nats: all that an autoencoder says of it."""
    dtype = next(vae.parameters()).dtype
    with evaluating(vae):
        found = [doubles(vae(images.to(dtype), labels, Draw(mean=True)).recon) for images, labels in batches]
    return torch.cat(found)


def weighed(
    vae: VAE,
    x: Tensor,
    labels: Tensor,
    q: Distribution,
    p: Distribution,
    samples: int,
    progress: Bar = NO_BAR,
) -> Weighed:
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
        progress.update(len(log_w))
    ess = (2 * log_sum - log_squares).exp()
    # Equal weights leave a rounding error of either sign; a single draw has no error: 0 / 0.
    variance = (1 / ess - 1 / samples).clamp(min=0) / (1 - 1 / samples)
    return Weighed(log_sum - math.log(samples), variance.sqrt(), ess, sum_log / samples)


def upper_bound(found: Weighed, samples: int) -> Tensor:
    """½ log (1/k) Σ w² of each image, (n,), nats: with enough samples an upper bound on log p(x) (Dieng et al., 2017).

    It is ½ log (k / ess) above log_p, and so far away where few samples count; there it is too low as well.
    """
    return found.log_p + 0.5 * (samples / found.ess).log()


def dequantised(images: Tensor) -> Tensor:
    """(v + u) / 256 of images v / 255 with u uniform on [0, 1): what a density has a code length of."""
    return (images * (LEVELS - 1) + torch.rand_like(images)) / LEVELS


def bits_per_dimension(log_p: Tensor, shape: Sequence[int], pixels: str, of: str) -> float | None:
    """−log₂ P(x) / D, mean over log p(x) (n,) of images of D = Π shape numbers; None where that is no code length.

    `of` is what p(x|z) is of, `pixels` of a likelihood. The images' `pixels` are:

    - `binary`, 0 or 1: their probability is P(x), also where it is of `levels`;
    - `dequantised`, (v + u) / 256 of levels v = 0 … 255 with u uniform on [0, 1): a density p on [0, 1] gives the
      bound log P(v) ≥ E_u[log p(x)] − D log 256, so that 8 bits are to be added (Theis et al., 2016);
    - `grey`, v / 255: their probability under a likelihood of `levels` is P(x). Under a Bernoulli their cross-entropy
      adds up to no probability over the levels, and a density may be as high as it likes at 256 points, as it is at
      pixels that are always black.
    """
    if pixels not in ("binary", "dequantised", "grey"):
        raise ValueError(f"pixels={pixels}: must be one of binary, dequantised, grey")
    if pixels not in {"binary": ("binary",), "unit": ("dequantised",), "levels": ("binary", "grey")}.get(of, ()):
        return None
    bits = bits_of(-log_p.double().mean().item(), shape)
    return bits + math.log2(LEVELS) if of == "unit" else bits


def bits_of_levels(vae: VAE, nats: Mapping[str, float], shape: Sequence[int], prefix: str = "") -> dict[str, float]:
    """`bits_per_dim` of the `total` among terms in nats, where p(x|z) is a probability of levels; else nothing."""
    if vae.likelihood.pixels != "levels" or f"{prefix}total" not in nats:
        return {}
    return {f"{prefix}bits_per_dim": bits_of(nats[f"{prefix}total"], shape)}


def bits_of(nats: float, shape: Sequence[int]) -> float:
    """Bits per dimension of an image of this shape that takes so many nats."""
    return nats / (math.prod(shape) * math.log(2))
