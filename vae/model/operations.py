"""Networks as plain lists of operations, for what runs them without torch: a browser's page, and C."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vae.model.backbones import ChannelsLast

Operation = dict[str, Any]


def operations(module: nn.Module) -> list[Operation]:
    """What a network does with one image or latent, step by step; refuses layers that only torch can run."""
    match module:
        case nn.Sequential():
            return [operation for layer in module for operation in operations(layer)]
        case nn.Linear():
            return [linear(module)]
        case nn.Conv2d() | nn.ConvTranspose2d():
            return [convolution(module)]
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
        f"backbone: only torch can run the layer {type(module).__name__}; it must be one of Sequential, Linear, "
        "Conv2d, ConvTranspose2d, ReLU, GLU, Flatten, Unflatten"
    )


def linear(layer: nn.Linear) -> Operation:
    """y = W x + b with W (outputs, inputs)."""
    return {"op": "linear"} | _weights(layer, layer.weight, layer.out_features)


def convolution(layer: nn.Conv2d | nn.ConvTranspose2d) -> Operation:
    """A convolution or its transpose; the weight as (inputs, height, width, outputs), in the order of such loops:

    Both add to the outputs what each input reaches, and differ only in which these are.
    """
    padding = layer.padding
    if layer.groups != 1 or layer.dilation != (1, 1) or layer.padding_mode != "zeros" or isinstance(padding, str):
        raise ValueError(
            f"backbone: convolutions must be without groups, dilation and named padding, but there is {layer}"
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
    } | _weights(layer, weight, layer.out_channels)


def _weights(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, weight: Tensor, outputs: int) -> Operation:
    return {"weight": weight, "bias": torch.zeros(outputs) if layer.bias is None else layer.bias}
