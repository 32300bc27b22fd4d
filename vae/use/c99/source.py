"""The text of a model's two C files."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vae.model.distributions import DiagonalNormal, FullNormal, parameters
from vae.model.likelihoods import Gaussian, Likelihood
from vae.use.c99.layers import Layer, Networks
from vae.use.trained import Trained

C_TYPES = {"bytes": "uint8_t", "floats": "float", "rectified": "float"}
C_TYPES |= {"uint8": "uint8_t", "int8": "int8_t", "int16": "int16_t", "float32": "float"}  # of NumPy's names
ENDINGS = {"bytes": "byte(value)", "floats": "value", "rectified": "value > 0 ? value : 0"}


class CModel(NamedTuple):
    """A model in C."""

    header: str
    code: str
    constants: int  # bytes
    ram: int  # bytes of fixed buffers
    products: dict[str, int]  # multiply-adds of an image


def c_model(model: Trained, networks: Networks, title: str, header: str) -> CModel:
    """The model's C files, whose first line is a title; the code includes the header by its name."""
    encode = [*_named("encoder", networks.encoder), ("mean", networks.mean), ("log_var", networks.log_var)]
    decode = _named("decoder", networks.decoder)
    layers = [layer for _, layer in (*encode, *decode)]
    buffers = _buffers(networks)
    prior, bytes_of_prior = _prior(model)
    constants = bytes_of_prior + sum(layer.bytes for layer in layers)
    pixels = math.prod(model.shape)
    ram = pixels * np.dtype(np.float32).itemsize + sum(each.nbytes for each in buffers.values())
    sides = dict(zip(("channels", "height", "width"), model.shape, strict=True))
    told = {"title": title, **sides, "pixels": pixels, "latents": model.latent_dim}
    code = _filled(
        "model.c",
        {
            "title": title,
            "header": header,
            "constants": "\n\n".join([*(_constants(*each) for each in (*encode, *decode)), prior]),
            "buffers": "\n".join(f"static {C_TYPES[of.dtype.name]} {name}[{of.size}];" for name, of in buffers.items()),
            "kernels": "\n".join(_kernels(layers)).rstrip(),
            "encode": _calls(encode, "image", ("mean", "log_var")),
            "parameters": _calls(decode, "z", ("parameters",)),
            "likelihood": _likelihood(model.vae.likelihood).rstrip(),
        },
    )
    products = {"encoder": encode, "decoder": decode}
    return CModel(
        _filled("model.h", {**told, "constants": constants, "ram": ram}),
        code,
        constants,
        ram,
        {name: sum(layer.products for _, layer in each) for name, each in products.items()},
    )


def _filled(name: str, values: Mapping[str, object]) -> str:
    """One of this folder's texts with its gaps filled."""
    return Template(files("vae.use.c99").joinpath(name).read_text(encoding="utf-8")).substitute(values)


def _named(network: str, layers: Sequence[Layer]) -> list[tuple[str, Layer]]:
    """Layers with the names of their constants."""
    return [(f"{network}_{place}", layer) for place, layer in enumerate(layers)]


# Constants ------------------------------------------------------------------------------------------------------------


def _constants(name: str, layer: Layer) -> str:
    """The arrays of a layer."""
    parts = {"weight": layer.weight, "scale": layer.scale, "bias": layer.bias}
    return "\n".join(_array(f"{name}_{part}", values) for part, values in parts.items() if values is not None)


def _array(name: str, values: np.ndarray) -> str:
    """A `const` array of floats or of integers."""
    written = map(str, values.ravel()) if values.dtype.kind == "i" else map(_number, values.ravel().tolist())
    lines = textwrap.fill(", ".join(written), 118, break_long_words=False, break_on_hyphens=False)
    return f"static const {C_TYPES[values.dtype.name]} {name}[{values.size}] = {{\n{lines}\n}};"


def _number(value: float) -> str:
    """A float as C reads it back."""
    text = f"{value:.9g}"
    return f"{text}f" if {".", "e"} & {*text} else f"{text}.0f"


def _prior(model: Trained) -> tuple[str, int]:
    """What C knows of N(m, LLᵀ), and its bytes: m, L, L⁻¹ and log|L|."""
    p = model.vae.prior()
    assert isinstance(p, DiagonalNormal | FullNormal)
    mean, scale = (each.detach().double() for each in parameters(p))
    factor: Tensor = torch.diag(scale) if scale.dim() == 1 else scale
    arrays = {"mean": mean, "factor": factor, "inverse": factor.inverse()}
    lines = [_array(f"prior_{name}", each.numpy().astype(np.float32)) for name, each in arrays.items()]
    volume = f"static const float prior_log_volume = {_number(factor.diagonal().log().sum().item())};"
    return "\n".join([*lines, volume]), 4 * (1 + sum(each.numel() for each in arrays.values()))


def _likelihood(likelihood: Likelihood) -> str:
    """The function for −log p(x|z) of a pixel."""
    if not isinstance(likelihood, Gaussian):
        return _filled("bernoulli.c", {})
    sigma = likelihood(torch.zeros(1, 1, 1, 1)).base_dist.stddev.item()
    constant = math.log(sigma) + 0.5 * math.log(2 * math.pi)
    return _filled("gaussian.c", {"sigma": _number(sigma), "constant": _number(constant)})


# Layers ---------------------------------------------------------------------------------------------------------------


def _kernel(layer: Layer) -> str:
    """The name of the function that a layer calls."""
    return "_".join([layer.kind, layer.reads, layer.weight.dtype.name, layer.writes])


def _kernels(layers: Sequence[Layer]) -> list[str]:
    """The functions for the layers, each once."""
    kinds = dict.fromkeys(layer.kind for layer in layers if layer.sizes)
    once = [*(["sizes.c"] if kinds else []), *(f"{kind}_from.c" for kind in kinds)]
    return [_filled(name, {}) for name in once] + [
        _filled(
            "dense.c" if layer.sizes is None else "convolution.c",
            {
                "name": name,
                "kind": layer.kind,
                **{key: C_TYPES[each] for key, each in (("reads", layer.reads), ("writes", layer.writes))},
                "weights": C_TYPES[layer.weight.dtype.name],
                "sums": "int32_t" if layer.weight.dtype.kind == "i" and layer.reads == "bytes" else "float",
                "scales": "" if layer.scale is None else "const float *scale, ",
                "value": "sum + bias[o]" if layer.scale is None else "(float)sum * scale[o] + bias[o]",
                "ending": ENDINGS[layer.writes],
            },
        )
        for name, layer in {_kernel(layer): layer for layer in layers}.items()
    ]


def _calls(layers: Sequence[tuple[str, Layer]], start: str, ends: Sequence[str]) -> str:
    """One call a layer: from `start` through the buffers; the last ones read the same and write to `ends`."""
    lines, read = [], start
    inner = [layer for _, layer in layers[: len(layers) - len(ends)]]
    buffers = [_buffer(*each) for each in enumerate(inner)]
    for (name, layer), to in zip(layers, (*buffers, *ends), strict=True):
        sizes = f"{layer.weight.size // len(layer.bias)}, {len(layer.bias)}"
        if layer.sizes:
            sizes = f"(sizes){{{', '.join(map(str, layer.sizes))}}}"
        scale = "" if layer.scale is None else f"{name}_scale, "
        lines.append(f"    {_kernel(layer)}({read}, {to}, {sizes}, {name}_weight, {scale}{name}_bias);")
        read = to if to in buffers else read
    return "\n".join(lines)


def _buffer(place: int, layer: Layer) -> str:
    """The name of the buffer that a layer between the first and the last writes to: two take turns."""
    return f"{'bytes' if layer.writes == 'bytes' else 'floats'}_{place % 2}"


def _buffers(networks: Networks) -> dict[str, np.ndarray]:
    """Each buffer, as long as what is written to it."""
    found: dict[str, np.ndarray] = {}
    for inner in (networks.encoder, networks.decoder[:-1]):
        for place, layer in enumerate(inner):
            name, kind = _buffer(place, layer), np.uint8 if layer.writes == "bytes" else np.float32
            found[name] = max(found.get(name, np.zeros(0)), np.zeros(layer.numbers, kind), key=len)
    return found
