"""The networks of a model as layers for C, with weights in floats or in 8 bits."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vae.common.seeding import apart
from vae.common.types import Shape
from vae.model.codes import Coding
from vae.model.distributions import DiagonalNormal, FullNormal
from vae.model.likelihoods import Bernoulli, Gaussian
from vae.model.operations import Operation, linear, operations
from vae.model.posteriors import Diagonal
from vae.model.vae import VAE, only
from vae.use.quantise import SMALL
from vae.use.trained import Trained

FEW = 0.25  # of a network's weights
PIXEL = 1 / 255  # what a step of an image's bytes is worth


class Sizes(NamedTuple):
    """Of a convolution or its transpose, in the order of the struct in convolution.c."""

    channels: int
    height: int
    width: int
    outputs: int
    rows: int
    columns: int
    kernel_height: int
    kernel_width: int
    stride_down: int
    stride_across: int
    padding_down: int
    padding_across: int


class Layer(NamedTuple):
    """y = W x + b, a convolution or its transpose, with the ReLU behind it.

    Of whole weights each output's sum is multiplied by its `scale` before the bias comes. Bytes stand for 0 and more:
    what a step of them is worth is part of scale and bias, or of float weights and bias.
    """

    kind: str  # dense, convolution or transposed
    weight: np.ndarray  # (outputs, inputs, …), float32, int8 or int16
    bias: np.ndarray  # (outputs,), float32
    scale: np.ndarray | None
    reads: str  # bytes or floats
    writes: str  # bytes, floats, or rectified floats
    numbers: int  # that it writes
    sizes: Sizes | None = None

    @property
    def products(self) -> int:
        """How many multiply-adds it takes, those with a convolution's padding included."""
        if self.sizes is None:
            return self.weight.size
        s = self.sizes
        places = s.height * s.width if self.kind == "transposed" else s.rows * s.columns
        return self.weight.size * places

    @property
    def bytes(self) -> int:
        """What its constants take."""
        return self.weight.nbytes + self.bias.nbytes + (0 if self.scale is None else self.scale.nbytes)


class Networks(NamedTuple):
    """What is written in C: images as bytes → mean and log-variance of q(z|x), and z → parameters of p(x|z)."""

    encoder: list[Layer]
    mean: Layer
    log_var: Layer
    decoder: list[Layer]

    @property
    def encoding(self) -> list[Layer]:
        """All that an image goes through."""
        return [*self.encoder, self.mean, self.log_var]


@torch.no_grad()
def networks_of(model: Trained, images: Tensor | None = None) -> Networks:
    """The networks in floats; in 8 bits where images (n, channels, height, width) tell how large activations are."""
    refuse_other_models(model)
    vae = model.vae
    encoder = _layers(operations(vae.backbone.encoder), model.shape)
    decoder = _layers(operations(vae.backbone.decoder), (model.latent_dim, 1, 1))
    assert isinstance(vae.posterior, Diagonal)
    mean, log_var = (_layers([linear(part)], (0, 0, 0))[0] for part in (vae.posterior.mean, vae.posterior.log_var))
    if images is None:
        first = encoder[0]._replace(weight=_floats(encoder[0].weight * PIXEL), reads="bytes")
        return Networks([first, *encoder[1:]], mean, log_var, decoder)
    inside: list[float | None] = [PIXEL, *_steps(vae, vae.backbone.encoder, images)]
    outside = [None, *_steps(vae, vae.backbone.decoder, images), None]
    if (len(inside) - 1, len(outside) - 1) != (len(encoder), len(decoder)):
        raise ValueError("backbone: must have a ReLU behind every layer but the decoder's last for 8 bits in C")
    inside[-1] = None  # what the heads read: in 8 bits it costs more of the bound than all wide layers
    *wide, last = zip(encoder, inside[:-1], inside[1:], strict=True)
    few = encoder[-1].weight.size <= FEW * sum(layer.weight.size for layer in encoder)  # then 16 bits cost little
    return Networks(
        [*(_in_8_bits(*each) for each in wide), _in_8_bits(*last, steps=2**15 - 1 if few else 2**7 - 1)],
        _in_8_bits(mean, None, None),
        _in_8_bits(log_var, None, None),
        [_in_8_bits(*each) for each in zip(decoder, outside[:-1], outside[1:], strict=True)],
    )


def refuse_other_models(model: Trained) -> None:
    """Refuse in one line what C cannot run."""
    vae = model.vae
    only(vae.levels)
    if model.conditional:
        raise ValueError("conditional=true: must be false to be exported to C")
    if isinstance(vae.posterior, Coding) or type(vae.posterior) is not Diagonal:
        raise ValueError(f"posterior={type(vae.posterior).__name__}: must be Diagonal to be exported to C")
    if not isinstance(vae.prior(), DiagonalNormal | FullNormal):
        allowed = "Gaussian (isotropic, correlated or learned)"
        raise ValueError(f"prior={type(vae.prior).__name__}: must be {allowed} to be exported to C")
    if not isinstance(vae.likelihood, Bernoulli | Gaussian):
        raise ValueError(f"likelihood={type(vae.likelihood).__name__}: must be Bernoulli or Gaussian for C")
    if any(operation["op"] == "gate" for part in _parts(vae) for operation in operations(part)):
        raise ValueError("backbone.gated=true: must be false to be exported to C")


def _parts(vae: VAE) -> tuple[nn.Module, nn.Module]:
    return vae.backbone.encoder, vae.backbone.decoder


def _layers(listed: list[Operation], shape: Shape) -> list[Layer]:
    """Layers in floats of a network that reads this shape."""
    layers: list[Layer] = []
    for operation in listed:
        match operation:
            case {"op": "relu"}:
                layers[-1] = layers[-1]._replace(writes="rectified")
            case {"op": "reshape", "shape": sides}:
                shape = (math.prod(shape), 1, 1) if sides is None else (sides[0], sides[1], sides[2])
            case {"op": "linear", "weight": weight, "bias": bias}:
                shape = (len(bias), 1, 1)
                layers.append(_layer("dense", weight, bias, len(bias)))
            case {"op": "convolution", "weight": weight, "bias": bias}:
                sizes = _sizes(operation, shape)
                shape = (sizes.outputs, sizes.rows, sizes.columns)
                kind = "transposed" if operation["transposed"] else "convolution"
                layers.append(_layer(kind, weight.permute(3, 0, 1, 2), bias, math.prod(shape), sizes))
    return layers


def _layer(kind: str, weight: Tensor, bias: Tensor, numbers: int, sizes: Sizes | None = None) -> Layer:
    return Layer(kind, _floats(weight.numpy()), _floats(bias.numpy()), None, "floats", "floats", numbers, sizes)


def _floats(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32)


def _sizes(operation: Operation, shape: Shape) -> Sizes:
    sides = zip(shape[1:], *(operation[key] for key in ("kernel", "stride", "padding", "output_padding")), strict=True)
    rows, columns = (
        (n - 1) * stride - 2 * padding + kernel + more
        if operation["transposed"]
        else (n + 2 * padding - kernel) // stride + 1
        for n, kernel, stride, padding, more in sides
    )
    (kernel, stride, padding) = (operation[key] for key in ("kernel", "stride", "padding"))
    return Sizes(*shape, operation["outputs"], rows, columns, *kernel, *stride, *padding)


def _steps(vae: VAE, network: nn.Module, images: Tensor) -> list[float]:
    """What a step of the bytes behind each ReLU is worth, if the largest is to hold for images and draws of their z."""
    found: list[float] = []
    hooks = [
        part.register_forward_hook(lambda module, inputs, output: found.append(max(output.max().item(), 1e-6) / 255))
        for part in network.modules()
        if isinstance(part, nn.ReLU)
    ]
    with apart("calibration"):
        vae(images)
    for hook in hooks:
        hook.remove()
    return found


def _in_8_bits(layer: Layer, step: float | None, written: float | None, steps: int = 2**7 - 1) -> Layer:
    """The layer with one scale for each output's weights, which reads and writes bytes of these steps; None: floats.

    Weights next to the latents stay floats where they are few: these save little and matter most. Others have so many
    steps to each side, or as many as a sum of 32 bits holds.
    """
    onward = written or 1.0
    reads, writes = "floats" if step is None else "bytes", layer.writes if written is None else "bytes"
    bias = _floats(layer.bias / onward)
    if step is None and layer.weight.size < SMALL:
        return layer._replace(weight=_floats(layer.weight / onward), bias=bias, reads=reads, writes=writes)
    largest = np.abs(layer.weight).max(tuple(range(1, layer.weight.ndim)))
    steps = min(steps, (2**31 - 1) // (255 * layer.weight[0].size))
    scale = np.where(largest > 0, largest, 1) / steps
    kind = np.int8 if steps < 2**7 else np.int16
    rounded = np.rint(layer.weight / scale.reshape(-1, *[1] * (layer.weight.ndim - 1))).astype(kind)
    factor = _floats(scale * (step or 1.0) / onward)
    return layer._replace(weight=rounded, bias=bias, scale=factor, reads=reads, writes=writes)
