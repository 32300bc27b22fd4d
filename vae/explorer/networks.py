"""The networks of a model as plain lists of operations, which `networks.js` runs in a browser."""

from __future__ import annotations

import bisect
import copy
from typing import Any

import torch
from torch import Tensor, nn

from vae.explorer.numbers import floats, rounded, steps
from vae.model.backbones import Backbone
from vae.model.distributions import FullNormal
from vae.model.likelihoods import Likelihood
from vae.model.operations import linear, operations
from vae.model.posteriors import Diagonal, Full, Tied
from vae.model.vae import VAE, only

# What the rounding of all weights together may change, against float32. Half of it is left for other images.
IMAGE = 5e-4  # of a pixel
CODE = 1e-2  # of a σ
BITS = range(20, 61)  # halves of bits, of a matrix as long as one: 30 are float32 itself

LINKS = ("sigmoid", "continuous_bernoulli")  # those of MEANS in networks.js


def networks(vae: VAE, images: Tensor, labels: Tensor, latents: Tensor) -> dict[str, Any]:
    """Everything that maps an image to its posterior, and a latent to the mean image.

    Weights have as few bits as leave right what becomes of some images (n, channels, height, width) and latents (n,
    latent_dim), with labels (n,).
    """
    only(vae.levels)
    described = {
        "shape": list(images.shape[1:]),
        "classes": vae.backbone.classes,
        "beside": _beside(vae.backbone, images[:1]),
        "encoder": operations(vae.backbone.encoder),
        "posterior": posterior(vae),
        "decoder": operations(vae.backbone.decoder),
        "likelihood": link(vae.likelihood),
    }
    return _packed(described, fewest_bits(vae, images, labels, latents))


@torch.no_grad()
def fewest_bits(vae: VAE, images: Tensor, labels: Tensor, latents: Tensor) -> float:
    """The fewest bits of each matrix by which codes, reconstructions and decoded latents stay right."""
    q = vae.encode(images, labels)
    z = torch.cat([q.mean, latents])
    of_all = torch.cat([labels, labels])
    decoded = vae.decode(z, of_all).mean

    def right(halves: int) -> bool:
        other = with_rounded_weights(vae, halves / 2)
        mean = other.encode(images, labels).mean
        again = other.decode(torch.cat([mean, latents]), of_all).mean
        return bool((again - decoded).abs().max() <= IMAGE and ((mean - q.mean).abs() <= CODE * q.stddev).all())

    return BITS[min(bisect.bisect_left(BITS, True, key=right), len(BITS) - 1)] / 2


def with_rounded_weights(vae: VAE, bits: float) -> VAE:
    """The model as the page has it."""
    other = copy.deepcopy(vae)
    for part in (other.backbone, other.posterior):
        for layer in part.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                layer.weight.copy_(rounded(layer.weight, bits))
    return other


def posterior(vae: VAE) -> dict[str, Any]:
    """The layers that read the mean and the scale off the features, and what the scale's numbers mean."""
    match vae.posterior:
        case Tied() as tied:  # before Diagonal, its base class
            features = next(tied.parameters()).new_zeros(1, tied.mean.in_features)
            q = tied.q(features, vae.prior())
            assert isinstance(q, FullNormal)
            factor = nn.functional.normalize(q.scale_tril[0], dim=-1)  # of the correlations, without the scales
            parts = {"kind": "tied", "scale": linear(tied.log_var), "factor": factor.tolist()}
        case Diagonal() as diagonal:
            parts = {"kind": "diagonal", "scale": linear(diagonal.log_var)}
        case Full() as full:
            parts = {"kind": "full", "scale": linear(full.factor)}
        case other:
            raise ValueError(f"posterior={type(other).__name__}: must be Diagonal, Full or Tied for the page to run it")
    return {"mean": linear(vae.posterior.mean), **parts}


def link(likelihood: Likelihood) -> str:
    """How the decoder's output becomes the mean of p(x|z)."""
    if likelihood.link not in LINKS:
        raise ValueError(f"likelihood={type(likelihood).__name__}: must have a link of the page's: {', '.join(LINKS)}")
    return likelihood.link


def _packed(described: Any, bits: float) -> Any:
    """The same with tensors as text, matrices in that many bits."""
    match described:
        case dict():
            return {key: _packed(part, bits) for key, part in described.items()}
        case list():
            return [_packed(part, bits) for part in described]
        case Tensor():
            return floats(described) if described.ndim == 1 else steps(described, bits)
        case other:
            return other


def _beside(backbone: Backbone, image: Tensor) -> str | None:
    """Whether a conditional encoder reads the class as a vector after the pixels, or as planes after the channels."""
    if not backbone.classes:
        return None
    read = backbone.beside(image, image.new_zeros(1, backbone.classes))
    return "vector" if read.ndim == 2 else "planes"
