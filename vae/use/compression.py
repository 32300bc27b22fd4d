"""How narrow a trained model's networks must be for a number of bytes or of parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from vae.model.build import build_model
from vae.model.pruning import effects, silence, units_of
from vae.use.c99.layers import networks_of, refuse_other_models
from vae.use.trained import Trained

WIDTHS = ("hidden", "channels")  # of a backbone
STEP = 0.05  # of a layer's units, that go before the effects of those left are measured again
FUNCTIONS = 2500  # bytes of a model's functions in C on a Cortex-M, at most
Size = Callable[[Trained], int]

UNITS = {"B": 1, "kB": 1000, "MB": 1_000_000}


def bytes_of(text: str) -> int:
    """A size as it is typed, such as 100kB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(B|kB|MB)", text)
    if not found:
        raise ValueError(f"--to {text}: must be a size such as 100kB, 0.5MB or 65536B")
    return round(float(found[1]) * UNITS[found[2]])


def bytes_in_8_bits(model: Trained) -> int:
    """What encoder, decoder and sampler take in C with 8 bits, functions included."""
    networks = networks_of(model, torch.zeros(2, *model.shape))
    return FUNCTIONS + sum(layer.bytes for layer in (*networks.encoding, *networks.decoder))


def runs_in_c(model: Trained) -> bool:
    """Whether the model can be exported to C."""
    try:
        refuse_other_models(model)
    except ValueError:
        return False
    return True


def parameters_of(model: Trained) -> int:
    """How many numbers were trained."""
    return sum(weight.numel() for weight in model.vae.parameters())


def narrowed(
    model: Trained,
    about: Mapping[str, Any],
    images: Tensor,
    labels: Tensor,
    most: float,
    size: Callable[[Trained], int],
) -> dict[str, Any]:
    """The backbone's configuration that makes a model of at most this size, and loses little of the bound.

    Step by step the layer becomes narrower whose least useful units do least for each byte or parameter.
    """
    node = dict(model.config["backbone"])
    current = _with(model, about, node)
    loud = [torch.ones(units.width) for units in units_of(model.vae)]
    while (before := size(current)) > most:
        measured = effects(model.vae, images, labels, loud)
        options = []
        for smaller in _narrower(node):
            candidate = _with(model, about, smaller)
            gates = [each.clone() for each in loud]
            widths = [units.width for units in units_of(candidate.vae)]
            lost = sum(silence(*each) for each in zip(gates, measured, widths, strict=True))
            options.append((lost / (before - size(candidate)), smaller, candidate, gates))
        if not options:
            unit = "bytes" if size is bytes_in_8_bits else "parameters"
            raise ValueError(f"must leave at least {before:,} {unit}, which single units take")
        _, node, current, loud = min(options, key=lambda option: option[0])
    return node


def _with(model: Trained, about: Mapping[str, Any], backbone: Mapping[str, Any]) -> Trained:
    """A model with another backbone, untrained."""
    config = {**model.config, "backbone": backbone}
    return Trained(build_model(config, model.shape, len(model.classes)), {**about, "config": config})


def _narrower(node: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The same backbone with one of its layers narrower."""
    for key in WIDTHS:
        widths = node.get(key, [])
        if isinstance(widths, int):
            if widths > 1:
                yield {**node, key: int((1 - STEP) * widths)}
            continue
        for place, width in enumerate(widths):
            if width > 1:
                yield {**node, key: [*widths[:place], int((1 - STEP) * width), *widths[place + 1 :]]}
