"""Critics: networks that tell two kinds of things apart. Once trained, their logit is log p₁/p₂ of the densities.

None has a state besides its weights, or draws anything: a pass through one is a function.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae.common.types import Shape
from vae.model.backbones import ChannelsLast, halvings

SLOPE = 0.2  # of the leaky ReLU below 0


class Seen(NamedTuple):
    """What a critic makes of a batch."""

    logit: Tensor  # (batch,): above 0 for the first kind
    features: Tensor  # (batch, n): what the logit is read off


class Critic(nn.Module):
    """Base: layers up to the features, and a linear one."""

    def __init__(self, layers: Sequence[nn.Module], features: int):
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(features, 1)

    def forward(self, x: Tensor) -> Seen:
        """(batch, …) → its logits and features."""
        features = self.layers(x).flatten(1)
        return Seen(self.last(features).squeeze(1), features)


class OfVectors(Critic):
    """Of vectors (batch, size): layers of these widths with leaky ReLU."""

    def __init__(self, size: int, hidden: Sequence[int]):
        pairs = itertools.pairwise([size, *hidden])
        layers = [layer for n_in, n_out in pairs for layer in (nn.Linear(n_in, n_out), nn.LeakyReLU(SLOPE))]
        super().__init__(layers, hidden[-1])


class OfImages(Critic):
    """Of images: 3×3 convolutions with stride 2 and leaky ReLU, for any height and width."""

    def __init__(self, shape: Shape, channels: Sequence[int]):
        pairs = itertools.pairwise([shape[0], *channels])
        layers = [
            layer
            for c_in, c_out in pairs
            for layer in (nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), nn.LeakyReLU(SLOPE))
        ]
        super().__init__([ChannelsLast(), *layers], channels[-1] * math.prod(halvings(shape[1:], len(channels))[-1]))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
