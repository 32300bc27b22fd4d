"""The residual backbone: deep networks of stages, each of half the resolution of the one before."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from vae.common.types import Shape
from vae.model.backbones import Convolutional, FromPlaces, halvings
from vae.model.ladder import Above, Beside, Joined, OverMaps, zeros
from vae.model.levels import Level
from vae.model.posteriors import Posterior
from vae.model.priors import Prior

MOST_PLACES = 2**16  # of a map with attention, which compares each with each


class Resnet(Convolutional):
    """Image → stages of residual blocks → the last maps as features, and latents → the same stages backwards → image.

    A stage has maps of one of `channels` and `depth` blocks, each followed by self-attention where the maps' shorter
    side is one of `attention`. `groups` are those of the normalisation, if there is one; `gated` branches end in gates.
    Works for any height and width: a stage takes n to ⌈n/2⌉, and back to n. `encoder[i]` and `decoder[i]` are the
    stages.

    Levels `below` the top one are maps, each [shorter side, channels] and none smaller than the one above: on the way
    back to the image z is added to the maps of that side, and its blocks follow. Its prior reads these maps, its
    posterior those of the encoder beside them, too. What is left to do below the last level is the decoder's.
    """

    def __init__(
        self,
        shape: Shape,
        latent_dim: int,
        channels: Sequence[int],
        depth: int,
        groups: int | None,
        attention: Sequence[int],
        gated: bool = False,
        below: Sequence[Sequence[int]] = (),
        classes: int = 0,
        planes: int | None = None,
        coded: bool = False,
    ):
        super().__init__()
        self.shape = shape
        self.classes = classes
        sizes = halvings(shape[1:], len(channels) - 1)
        _refuse_attention_elsewhere(attention, sizes)
        self.maps_of = [(width, *size) for width, size in zip(channels, sizes, strict=True)]  # of the encoder's stages
        self.places = _places(below, sizes)  # of the stages that levels below read
        self.below = [numbers for _, numbers in below]  # channels of their z
        self.features = math.prod(self.maps_of[-1])
        if coded:
            self.grid, self.maps = sizes[-1], self.maps_of[-1]
        scale = 1 / math.sqrt(depth * (len(channels) + len(below)))
        self.stages = Stages(depth, groups, attention, scale, gated)
        make = self.stages.make

        into = [nn.Conv2d(shape[0] + classes, channels[0], 3, padding=1)]
        into += [nn.Conv2d(c_in, c_out, 3, stride=2, padding=1) for c_in, c_out in itertools.pairwise(channels)]
        self.encoder = nn.Sequential(
            *map(make, into, channels, sizes), normalisation(channels[-1], groups), nn.SiLU(), nn.Flatten()
        )
        if below:  # what the levels make are the maps of the last one's stage
            begun = self.places[-1]
            stages = [nn.Unflatten(1, self.maps_of[begun]), *self._back(range(begun - 1, -1, -1))]
        elif coded:
            first = nn.Sequential(
                FromPlaces(latent_dim, sizes[-1]), nn.Conv2d(latent_dim + classes, channels[-1], 3, padding=1)
            )
            stages = [make(first, channels[-1], sizes[-1]), *self._back(range(len(channels) - 2, -1, -1))]
        else:
            stages = self._back(range(len(channels) - 1, -1, -1), latent_dim + classes)
        self.decoder = nn.Sequential(
            *stages,
            normalisation(channels[0], groups),
            nn.SiLU(),
            nn.Conv2d(channels[0], planes or shape[0], 3, padding=1),
        )

    def _back(self, places: Sequence[int], top: int = 0) -> list[nn.Module]:
        """Stages on the way back to the image that make the maps of these places; the first may read `top` numbers."""
        entrances: list[nn.Module] = []
        for place in places:
            width, *size = self.maps_of[place]
            if top and not entrances:
                shape = self.maps_of[place]
                entrances.append(nn.Sequential(nn.Linear(top, math.prod(shape)), nn.Unflatten(1, shape)))
            else:
                wider = nn.Conv2d(self.maps_of[place + 1][0], width, 3, padding=1)
                entrances.append(nn.Sequential(nn.Upsample(tuple(size)), wider))
        maps = [self.maps_of[place] for place in places]
        return [self.stages.make(each, shape[0], shape[1:]) for each, shape in zip(entrances, maps, strict=True)]

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        """The last maps for the top level, and for each below those of its side."""
        if not self.below:
            return super().encode(x, labels)
        x, seen = self.seen(x, labels), []
        *stages, norm, activation, flatten = self.encoder.children()
        for stage in stages:
            x = stage(x)
            seen.append(x.flatten(1))
        return flatten(activation(norm(x))), *(seen[place] for place in self.places)

    def levels(self, prior: Prior, posterior: Posterior, latent_dim: int) -> list[Level]:
        """The top level, and one for each `below` it."""
        if not self.below:
            return super().levels(prior, posterior, latent_dim)
        way = [len(self.maps_of) - 1, *self.places, self.places[-1]]  # of the stages after each level
        onward = OverMaps(None, *self._back(range(way[0], way[1] - 1, -1), latent_dim + self.classes))
        levels = [Level(prior, posterior, latent_dim, onward)]
        for channels, (place, following) in zip(self.below, itertools.pairwise(way[1:]), strict=True):
            width, *(height, across) = self.maps_of[place]
            joined = self.stages.make(Joined(channels, width), width, (height, across))
            further = self._back(range(place - 1, following - 1, -1))
            levels.append(
                Level(
                    Above(OverMaps((width, height, across), *self._head(width, 2 * channels))),
                    Beside(
                        OverMaps(
                            (2 * width, height, across),
                            nn.Conv2d(2 * width, width, 3, padding=1),
                            *self._head(width, 2 * channels),
                        )
                    ),
                    channels * height * across,
                    OverMaps((channels + width, height, across), joined, *further),
                )
            )
        return levels

    def _head(self, width: int, channels: int) -> list[nn.Module]:
        """What reads the parameters of a level's z off maps of a width."""
        block, norm = self.stages.convolutions(width), normalisation(width, self.stages.groups)
        return [block, norm, nn.SiLU(), zeros(nn.Conv2d(width, channels, 3, padding=1))]


class Stages(NamedTuple):
    """What the stages of a network have in common."""

    depth: int
    groups: int | None
    attention: Sequence[int]
    scale: float  # of each branch: 1/√n of n blocks, whose sum does not grow with their number
    gated: bool = False

    def make(self, entrance: nn.Module, channels: int, size: tuple[int, int]) -> nn.Sequential:
        """An entrance, which makes maps (batch, channels, *size) of those of the stage before, and blocks behind it."""
        blocks: list[nn.Module] = []
        for _ in range(self.depth):
            blocks.append(self.convolutions(channels))
            if min(size) in self.attention:
                blocks.append(self.look_around(channels))
        return nn.Sequential(entrance, *blocks)

    def convolutions(self, channels: int) -> Residual:
        """Two 3×3 convolutions, each behind normalisation and SiLU (He et al., 2016); and maybe a gate."""
        layers = [
            layer
            for made in (channels, 2 * channels if self.gated else channels)
            for layer in (
                normalisation(channels, self.groups),
                nn.SiLU(),
                nn.Conv2d(channels, made, 3, padding=1),
            )
        ]
        return Residual(self.scale, *layers, *([nn.GLU(1)] if self.gated else []))

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
        zeros([layer for layer in layers if list(layer.parameters())][-1])

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


def _places(below: Sequence[Sequence[int]], sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Of the stages whose maps have each level's side, the top level's first."""
    sides = [min(size) for size in sizes]
    asked = [side for side, _ in below]
    if not {*asked} <= {*sides} or asked != sorted(asked):
        allowed = ", ".join(map(str, sorted({*sides})))
        raise ValueError(f"backbone.below={[*map(list, below)]}: must have rising sides of maps, which are {allowed}")
    return [sides.index(side) for side in asked]


def _refuse_attention_elsewhere(attention: Sequence[int], sizes: Sequence[tuple[int, int]]) -> None:
    """Refuse sides that no map has, and those of maps that are too large."""
    sides = {min(size) for size in sizes} - {min(size) for size in sizes if math.prod(size) > MOST_PLACES}
    if not {*attention} <= sides:
        allowed = ", ".join(map(str, sorted(sides))) or "none here"
        raise ValueError(
            f"backbone.attention={list(attention)}: must be shorter sides of maps of at most {MOST_PLACES:,} places: "
            f"{allowed}"
        )
