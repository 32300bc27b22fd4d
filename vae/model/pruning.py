"""Pruning: a narrower model begins with the units and channels of a wider one that the bound needs most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae.common.seeding import apart
from vae.model.backbones import Conv, Dense
from vae.model.vae import VAE

Weighted = nn.Linear | nn.Conv2d | nn.ConvTranspose2d

STEP = 0.1  # of a layer's units, silenced before the effects of those left are measured again


class Units(NamedTuple):
    """The units of a dense layer or the channels of a convolution, between what makes and what reads them."""

    made: Weighted
    behind: nn.ReLU
    read: Sequence[Weighted]

    @property
    def width(self) -> int:
        """How many there are; maps that are flattened, or flat numbers that become maps, are channels."""
        return min(_sides(self.made)[0], *(_sides(each)[1] for each in self.read))


def begin_with(model: VAE, parent: VAE, images: Tensor, labels: Tensor) -> None:
    """Give the model its parent's weights; where it is narrower, those of the units that some images need most."""
    weights = dict(parent.state_dict())
    if {name: each.shape for name, each in weights.items()} != {
        n: each.shape for n, each in model.state_dict().items()
    }:
        theirs, widths = units_of(parent), [units.width for units in units_of(model)]
        if len(theirs) != len(widths) or any(units.width < w for units, w in zip(theirs, widths, strict=True)):
            raise ValueError(f"must be a run with {len(widths)} hidden layers, each at least as wide as this one's")
        for units, keep in zip(theirs, useful(parent, images, labels, widths), strict=True):
            _cut(weights, parent, units, keep)
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise ValueError("must be a run that differs from this one in the backbone's widths alone") from None


def useful(vae: VAE, images: Tensor, labels: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """The units of each layer that are kept, in their order: the others are silenced little by little.

    Those with the least effect on −ELBO come first.
    """
    units = units_of(vae)
    loud = [torch.ones(each.width) for each in units]
    while any(gates.sum() > width for gates, width in zip(loud, widths, strict=True)):
        measured = effects(vae, images, labels, loud)
        for gates, width, effect in zip(loud, widths, measured, strict=True):
            silence(gates, effect, max(width, int((1 - STEP) * gates.sum())))
    return [gates.nonzero().flatten() for gates in loud]


def silence(gates: Tensor, effect: Tensor, width: int) -> float:
    """Leave the gates of so many units open, those with the largest effects; returns the others' effects together."""
    order = effect.masked_fill(gates == 0, -1).argsort()
    closed = order[: len(order) - width]
    lost = (effect * gates)[closed].sum().item()
    gates[closed] = 0
    return lost


def effects(vae: VAE, images: Tensor, labels: Tensor, loud: Sequence[Tensor]) -> list[Tensor]:
    """How much −ELBO would change without each unit: E[(∂(−ELBO) / ∂gate)²], the units multiplied by gates.

    To first order, each image's change is its gradient (Molchanov et al., 2017). `loud` is 0 for units that are silent.
    """
    gates = [each.expand(len(images), -1).clone().requires_grad_() for each in loud]
    with apart("pruning"), torch.enable_grad(), _gated(vae, gates):
        changes = torch.autograd.grad(vae(images, labels).total.sum(), gates)
    return [each.square().mean(0) for each in changes]


@contextmanager
def _gated(vae: VAE, gates: Sequence[Tensor]) -> Iterator[None]:
    """Multiply each layer's units by gates (batch, units) inside the block."""
    with ExitStack() as hooks:
        for units, each in zip(units_of(vae), gates, strict=True):

            def multiplied(module: nn.Module, inputs: object, output: Tensor, each: Tensor = each) -> Tensor:
                whole = each.repeat_interleave(output.shape[1] // each.shape[1], 1)
                return output * whole.view(*whole.shape, *[1] * (output.dim() - 2))

            hooks.callback(units.behind.register_forward_hook(multiplied).remove)
        yield


def units_of(vae: VAE) -> list[Units]:
    """All units between two layers of the backbone, or between its encoder and the posterior."""
    backbone = vae.backbone
    if not isinstance(backbone, Dense | Conv) or any(isinstance(part, nn.GLU) for part in backbone.modules()):
        raise ValueError("must have the backbone dense, not gated, or conv to be pruned")
    heads = [part for part in vae.posterior.children() if isinstance(part, nn.Linear)]
    found = []
    for network, last in ((backbone.encoder, heads), (backbone.decoder, None)):
        layers = [part for part in network.modules() if isinstance(part, Weighted)]
        behind = [part for part in network.modules() if isinstance(part, nn.ReLU)]  # none behind the decoder's last
        for made, relu, place in zip(layers, behind, range(1, len(layers) + 1), strict=False):
            found.append(Units(made, relu, layers[place : place + 1] or last or []))
    return found


def _sides(layer: Weighted) -> tuple[int, int]:
    """How many outputs and inputs a layer has."""
    first, second = layer.weight.shape[:2]
    return (second, first) if isinstance(layer, nn.ConvTranspose2d) else (first, second)


def _cut(weights: dict[str, Tensor], vae: VAE, units: Units, keep: Tensor) -> None:
    """Leave only some units, in what makes and in what reads them."""
    names = {part: name for name, part in vae.named_modules()}
    for layer in (units.made, *units.read):
        is_made = layer is units.made
        block = _sides(layer)[0 if is_made else 1] // units.width  # numbers of a channel, where maps are flat
        places = (keep.unsqueeze(1) * block + torch.arange(block)).flatten()
        of = ["weight", "bias"] if is_made else ["weight"]
        for key in (f"{names[layer]}.{each}" for each in of):
            axis = int(key.endswith("weight") and is_made == isinstance(layer, nn.ConvTranspose2d))
            weights[key] = weights[key].index_select(axis, places)
