"""The residual backbone: deep networks of stages, each of half the resolution of the one before."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from vae.common.types import Shape
from vae.model.backbones import Convolutional, halvings

MOST_PLACES = 2**16  # of a map with attention, which compares each with each


class Resnet(Convolutional):
    """Image → stages of residual blocks → the last maps as features, and latents → the same stages backwards → image.

    A stage has maps of one of `channels` and `depth` blocks, each followed by self-attention where the maps' shorter
    side is one of `attention`. `groups` are those of the normalisation, if there is one. Works for any height and
    width: a stage takes n to ⌈n/2⌉, and back to n. `encoder[i]` and `decoder[i]` are the stages.
    """

    def __init__(
        self,
        shape: Shape,
        latent_dim: int,
        channels: Sequence[int],
        depth: int,
        groups: int | None,
        attention: Sequence[int],
        classes: int = 0,
        planes: int | None = None,
    ):
        super().__init__()
        self.shape = shape
        self.classes = classes
        sizes = halvings(shape[1:], len(channels) - 1)
        _refuse_attention_elsewhere(attention, sizes)
        inner = (channels[-1], *sizes[-1])
        self.features = math.prod(inner)
        stages = Stages(depth, groups, attention, scale=1 / math.sqrt(depth * len(channels)))

        into = [nn.Conv2d(shape[0] + classes, channels[0], 3, padding=1)]
        into += [nn.Conv2d(c_in, c_out, 3, stride=2, padding=1) for c_in, c_out in itertools.pairwise(channels)]
        self.encoder = nn.Sequential(
            *map(stages.make, into, channels, sizes), normalisation(channels[-1], groups), nn.SiLU(), nn.Flatten()
        )
        back = [nn.Sequential(nn.Linear(latent_dim + classes, math.prod(inner)), nn.Unflatten(1, inner))]
        back += [
            nn.Sequential(nn.Upsample(size), nn.Conv2d(c_in, c_out, 3, padding=1))
            for (c_in, c_out), size in zip(itertools.pairwise(channels[::-1]), sizes[-2::-1], strict=True)
        ]
        self.decoder = nn.Sequential(
            *map(stages.make, back, channels[::-1], sizes[::-1]),
            normalisation(channels[0], groups),
            nn.SiLU(),
            nn.Conv2d(channels[0], planes or shape[0], 3, padding=1),
        )


class Stages(NamedTuple):
    """What the stages of a network have in common."""

    depth: int
    groups: int | None
    attention: Sequence[int]
    scale: float  # of each branch: 1/√n of n blocks, whose sum does not grow with their number

    def make(self, entrance: nn.Module, channels: int, size: tuple[int, int]) -> nn.Sequential:
        """An entrance, which makes maps (batch, channels, *size) of those of the stage before, and blocks behind it."""
        blocks: list[nn.Module] = []
        for _ in range(self.depth):
            blocks.append(self.convolutions(channels))
            if min(size) in self.attention:
                blocks.append(self.look_around(channels))
        return nn.Sequential(entrance, *blocks)

    def convolutions(self, channels: int) -> Residual:
        """Two 3×3 convolutions, each behind normalisation and SiLU (He et al., 2016)."""
        layers = [
            layer
            for _ in range(2)
            for layer in (
                normalisation(channels, self.groups),
                nn.SiLU(),
                nn.Conv2d(channels, channels, 3, padding=1),
            )
        ]
        return Residual(self.scale, *layers)

    def look_around(self, channels: int) -> Residual:
        """Self-attention behind normalisation (Zhang et al., 2019)."""
        norm = normalisation(channels, self.groups)
        return Residual(self.scale, norm, SelfAttention(channels), nn.Conv2d(channels, channels, 1))


class Residual(nn.Module):
    """x + s f(x), where f is 0 when training begins: its last layer starts at zero (Child, 2021)."""

    def __init__(self, scale: float, *layers: nn.Module):
        super().__init__()
        self.scale = scale
        self.branch = nn.Sequential(*layers)
        for weight in layers[-1].parameters():
            nn.init.zeros_(weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.branch(x)


class SelfAttention(nn.Module):
    """softmax(QKᵀ / √c) V over the places of maps of c channels, Q, K and V read off each place (Vaswani et al., 2017).

    (batch, channels, height, width) → the same.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.read = nn.Conv2d(channels, 3 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        places = self.read(x).flatten(2).mT.unsqueeze(1)  # (batch, 1, height · width, 3 channels): a single head
        q, k, v = places.chunk(3, -1)
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        return seen.squeeze(1).mT.unflatten(2, x.shape[2:])


def normalisation(channels: int, groups: int | None) -> nn.Module:
    """Each image's maps in groups of channels with mean 0 and variance 1 (Wu and He, 2018); or nothing."""
    return nn.Identity() if groups is None else nn.GroupNorm(groups, channels)


def _refuse_attention_elsewhere(attention: Sequence[int], sizes: Sequence[tuple[int, int]]) -> None:
    """Refuse sides that no map has, and those of maps that are too large."""
    sides = {min(size) for size in sizes} - {min(size) for size in sizes if math.prod(size) > MOST_PLACES}
    if not {*attention} <= sides:
        allowed = ", ".join(map(str, sorted(sides))) or "none here"
        raise ValueError(
            f"backbone.attention={list(attention)}: must be shorter sides of maps of at most {MOST_PLACES:,} places: "
            f"{allowed}"
        )
