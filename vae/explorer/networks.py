"""The networks of a model as plain lists of operations, which `networks.js` runs in a browser."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vae.model.backbones import Backbone, ChannelsLast
from vae.model.distributions import FullNormal
from vae.model.likelihoods import Likelihood
from vae.model.posteriors import Diagonal, Full, Tied
from vae.model.vae import VAE

Operation = dict[str, Any]

# Bytes of each weight. Some posteriors are a hundred times narrower than their prior: the encoder is float32 itself, so
# that codes are right to a thousandth of σ. The decoder does not need the lowest byte for images right to 1e-4.
ENCODER, DECODER = 4, 3

LINKS = ("sigmoid", "continuous_bernoulli")  # those of MEANS in networks.js


def networks(vae: VAE, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Everything that maps an image (channels, height, width) to its posterior, and a latent to the mean image."""
    return {
        "shape": list(shape),
        "classes": vae.backbone.classes,
        "beside": _beside(vae.backbone, shape),
        "encoder": operations(vae.backbone.encoder, ENCODER),
        "posterior": posterior(vae),
        "decoder": operations(vae.backbone.decoder, DECODER),
        "likelihood": link(vae.likelihood),
    }


def operations(module: nn.Module, width: int) -> list[Operation]:
    """What a network does with one image or latent, step by step; refuses layers that the page cannot run."""
    match module:
        case nn.Sequential():
            return [operation for layer in module for operation in operations(layer, width)]
        case nn.Linear():
            return [linear(module, width)]
        case nn.Conv2d() | nn.ConvTranspose2d():
            return [convolution(module, width)]
        case nn.ReLU():
            return [{"op": "relu"}]
        case nn.GLU():
            return [{"op": "gate"}]
        case nn.Flatten():
            return [{"op": "reshape", "shape": None}]
        case nn.Unflatten():
            return [{"op": "reshape", "shape": list(module.unflattened_size)}]
        case ChannelsLast():
            return []
    raise ValueError(
        f"backbone: the page cannot run the layer {module}; it must be one of Sequential, Linear, Conv2d, "
        "ConvTranspose2d, ReLU, GLU, Flatten, Unflatten"
    )


def linear(layer: nn.Linear, width: int) -> Operation:
    """y = W x + b with W (outputs, inputs)."""
    return {"op": "linear"} | _weights(layer, layer.weight, layer.out_features, width)


def convolution(layer: nn.Conv2d | nn.ConvTranspose2d, width: int) -> Operation:
    """A convolution or its transpose; the weight as (inputs, height, width, outputs), in the order of the page's loops.

    Both add to the outputs what each input reaches, and differ only in which these are.
    """
    padding = layer.padding
    if layer.groups != 1 or layer.dilation != (1, 1) or layer.padding_mode != "zeros" or isinstance(padding, str):
        raise ValueError(
            f"backbone: the page runs convolutions without groups, dilation and named padding, not {layer}"
        )
    transposed = isinstance(layer, nn.ConvTranspose2d)
    weight = layer.weight.permute(0, 2, 3, 1) if transposed else layer.weight.permute(1, 2, 3, 0)
    return {
        "op": "convolution",
        "transposed": transposed,
        "outputs": layer.out_channels,
        "kernel": list(layer.kernel_size),
        "stride": list(layer.stride),
        "padding": list(padding),
        "output_padding": list(layer.output_padding),
    } | _weights(layer, weight, layer.out_channels, width)


def posterior(vae: VAE) -> dict[str, Any]:
    """The layers that read the mean and the scale off the features, and what the scale's numbers mean."""
    match vae.posterior:
        case Tied() as tied:  # before Diagonal, its base class
            features = next(tied.parameters()).new_zeros(1, tied.mean.in_features)
            q = tied.q(features, vae.prior())
            assert isinstance(q, FullNormal)
            factor = nn.functional.normalize(q.scale_tril[0], dim=-1)  # of the correlations, without the scales
            parts = {"kind": "tied", "scale": linear(tied.log_var, ENCODER), "factor": factor.tolist()}
        case Diagonal() as diagonal:
            parts = {"kind": "diagonal", "scale": linear(diagonal.log_var, ENCODER)}
        case Full() as full:
            parts = {"kind": "full", "scale": linear(full.factor, ENCODER)}
        case other:
            raise ValueError(f"posterior={type(other).__name__}: must be Diagonal, Full or Tied for the page to run it")
    return {"mean": linear(vae.posterior.mean, ENCODER), **parts}


def link(likelihood: Likelihood) -> str:
    """How the decoder's output becomes the mean of p(x|z)."""
    if likelihood.link not in LINKS:
        raise ValueError(f"likelihood={type(likelihood).__name__}: must have a link of the page's: {', '.join(LINKS)}")
    return likelihood.link


def packed(values: Tensor, width: int) -> str:
    """Numbers as base64: float32 in four bytes, or in three without the lowest one, rounded, exact to 2⁻¹⁶."""
    bits = np.ascontiguousarray(values.detach().cpu().float().numpy()).view("<u4")
    if width == 3:
        bits = bits + np.uint32(0x80)
    return base64.b64encode(bits.reshape(-1, 1).view(np.uint8)[:, 4 - width :].tobytes()).decode()


def _weights(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, weight: Tensor, outputs: int, width: int) -> Operation:
    bias = torch.zeros(outputs) if layer.bias is None else layer.bias
    return {"bytes": width, "weight": packed(weight, width), "bias": packed(bias, width)}


def _beside(backbone: Backbone, shape: tuple[int, int, int]) -> str | None:
    """Whether a conditional encoder reads the class as a vector after the pixels, or as planes after the channels."""
    if not backbone.classes:
        return None
    read = backbone.beside(torch.zeros(1, *shape), torch.zeros(1, backbone.classes))
    return "vector" if read.ndim == 2 else "planes"
