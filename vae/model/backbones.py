"""Backbones: an `encoder` from images to features and a `decoder` from latents to image parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vae.common.types import Shape
from vae.model.ladder import Above, Beside, zeros
from vae.model.levels import Level
from vae.model.part import Part
from vae.model.posteriors import Posterior
from vae.model.priors import Prior

if TYPE_CHECKING:
    from vae.model.vae import VAE


class Backbone(Part):
    """A pair of networks; the posterior reads `features` numbers an image, the likelihood the decoder's output.

    With `classes` both also read the class of every image (Sohn et al., 2015). `planes` are the decoder's output's, by
    default as many as the image has channels. `below` the top level there may be others, for which there are networks
    of their own. Where z is `coded`, it is latent_dim numbers at each place of a `grid`: of the encoder's last maps, or
    of `places` beside each other.
    """

    encoder: nn.Module  # (batch, channels, height, width) → (batch, features)
    decoder: nn.Module  # (batch, size of the state) → (batch, planes, height, width), the likelihood's parameters
    features: int
    shape: Shape  # of the images
    classes = 0  # that there are, where the model is conditional
    grid: tuple[int, int] | None = None  # of places that z has latent_dim numbers at; None: z has these alone
    maps: Shape | None = None  # (channels, height, width) that the features are of such a grid

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Features of each level, the top first, of images (batch, channels, height, width) with labels (batch,)."""
        return (self.encoder(self.seen(x, labels)),)

    def begin(self, labels: Tensor | None, like: Tensor) -> Tensor | None:
        """What the top level adds its z to: classes (…, classes) of labels (…,) where the model is conditional."""
        return self._one_hot(labels, like) if self.classes else None

    def levels(self, prior: Prior, posterior: Posterior, latent_dim: int) -> list[Level]:
        """The levels of latents: the top one has this prior and posterior of latent_dim numbers."""
        return [Level(prior, posterior, latent_dim * (math.prod(self.grid) if self.grid else 1))]

    def image(self, state: Tensor) -> Tensor:
        """Image parameters of what the levels have made, (batch, size)."""
        return self.decoder(state)

    def seen(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """What the encoder reads of images with labels (batch,)."""
        return self.beside(x, self._one_hot(labels, x)) if self.classes else x

    def beside(self, x: Tensor, one_hot: Tensor) -> Tensor:
        """What the encoder reads of images and their classes (batch, classes): each class as one more channel."""
        planes = one_hot[:, :, None, None].expand(-1, -1, *x.shape[2:])  # (batch, classes, height, width)
        return torch.cat([x, planes], 1)

    def _one_hot(self, labels: Tensor | None, like: Tensor) -> Tensor:
        if labels is None:
            raise ValueError(f"labels: a conditional model needs a class from 0 to {self.classes - 1} for each image")
        return nn.functional.one_hot(labels.to(like.device), self.classes).to(like.dtype)

    def attach(self, model: VAE) -> None:
        self.parameters_of = model.likelihood.parameters_of


class Dense(Backbone):
    """Fully connected: pixels → hidden[0] → … → features, and latents → … → hidden[0] → pixels, with ReLU.

    `gated` layers are (Wx + b) ⊙ σ(Vx + c) instead (Dauphin et al., 2017). Levels `below` the top one are vectors of so
    many numbers; each has layers like these for its prior, which reads the z above, and for its posterior, which reads
    the features, too. The decoder reads all z.
    """

    def __init__(
        self,
        shape: Shape,
        latent_dim: int,
        hidden: Sequence[int],
        gated: bool = False,
        below: Sequence[int] = (),
        classes: int = 0,
        planes: int | None = None,
        coded: bool = False,
        places: int = 16,
    ):
        super().__init__()
        self.shape = shape
        self.grid = (1, places) if coded else None
        pixels, output = math.prod(shape), (planes or shape[0], *shape[1:])
        self.features = hidden[-1]
        self.classes = classes
        self.below = below
        self.hidden, self.gated = hidden, gated
        self.encoder = nn.Sequential(nn.Flatten(), *_dense_layers([pixels + classes, *hidden], gated))
        self.decoder = nn.Sequential(
            *_dense_layers([latent_dim * (places if coded else 1) + sum(below) + classes, *reversed(hidden)], gated),
            nn.Linear(hidden[0], math.prod(output)),
            nn.Unflatten(1, output),
        )

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        """The same features for each level."""
        return (self.encoder(self.seen(x, labels)),) * (1 + len(self.below))

    def levels(self, prior: Prior, posterior: Posterior, latent_dim: int) -> list[Level]:
        """The top level, and one for each `below` it."""
        levels, size = super().levels(prior, posterior, latent_dim), latent_dim + self.classes
        for numbers in self.below:
            down = [size, *self.hidden[::-1]]
            across = [self.features + size, *self.hidden]
            above = nn.Sequential(*_dense_layers(down, self.gated), zeros(nn.Linear(down[-1], 2 * numbers)))
            beside = nn.Sequential(*_dense_layers(across, self.gated), zeros(nn.Linear(across[-1], 2 * numbers)))
            levels.append(Level(Above(above), Beside(beside), numbers))
            size += numbers
        return levels

    def beside(self, x: Tensor, one_hot: Tensor) -> Tensor:
        """(batch, pixels + classes)."""
        return torch.cat([x.flatten(1), one_hot], 1)

    @torch.no_grad()
    def start_at(self, images: Tensor, labels: Tensor, lr: float) -> None:
        """Let training begin around the mean image, which else takes most of an epoch."""
        *_, bias = self.decoder.parameters()
        bias.copy_(self.parameters_of(images.mean(0)).flatten())


class Convolutional(Backbone):
    """Base of networks whose decoder ends in a convolution."""

    @torch.no_grad()
    def start_at(self, images: Tensor, labels: Tensor, lr: float) -> None:
        """Let training begin around the mean of each channel."""
        *_, bias = self.decoder.parameters()
        bias.copy_(self.parameters_of(images.mean(0).mean((1, 2))))


class Conv(Convolutional):
    """3×3 convolutions with stride 2 → dense → features, and latents → dense → transposed convolutions, with ReLU.

    Works for any height and width: a stride takes n to ⌈n/2⌉, and its transpose takes that back to n. For codes the
    dense layers are 3×3 convolutions.
    """

    def __init__(
        self,
        shape: Shape,
        latent_dim: int,
        channels: Sequence[int],
        hidden: int,
        classes: int = 0,
        planes: int | None = None,
        coded: bool = False,
    ):
        super().__init__()
        self.shape = shape
        self.features = hidden
        self.classes = classes
        sizes = halvings(shape[1:], len(channels))
        inner = (channels[-1], *sizes[-1])

        down = [
            nn.Conv2d(c_in, c_out, 3, stride=2, padding=1)
            for c_in, c_out in itertools.pairwise([shape[0] + classes, *channels])
        ]
        up_channels = [channels[-1], *reversed(channels)]
        up = [
            # An even n needs one more row or column than the transpose of its ⌈n/2⌉ gives.
            ConvTranspose2d(c_in, c_out, 3, stride=2, padding=1, output_padding=(1 - height % 2, 1 - width % 2))
            for (c_in, c_out), (height, width) in zip(
                itertools.pairwise(up_channels), reversed(sizes[:-1]), strict=True
            )
        ]
        if coded:
            self.grid = sizes[-1]
            self.maps = (hidden, *sizes[-1])
            self.features = math.prod(self.maps)
            narrow = [*_with_relu([nn.Conv2d(channels[-1], hidden, 3, padding=1)]), nn.Flatten()]
            widen = [
                FromPlaces(latent_dim, sizes[-1]),
                *_with_relu([nn.Conv2d(latent_dim + classes, channels[-1], 3, padding=1)]),
            ]
        else:
            narrow = [nn.Flatten(), *_dense_layers([math.prod(inner), hidden])]
            widen = [*_dense_layers([latent_dim + classes, math.prod(inner)]), nn.Unflatten(1, inner)]
        self.encoder = nn.Sequential(ChannelsLast(), *_with_relu(down), *narrow)
        self.decoder = nn.Sequential(
            *widen,
            ChannelsLast(),
            *_with_relu(up),
            ConvTranspose2d(channels[0], planes or shape[0], 3, padding=1),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def halvings(size: tuple[int, int], strides: int) -> list[tuple[int, int]]:
    """(height, width) of a map before and after each of some strides of 2."""
    height, width = size
    return [(math.ceil(height / 2**n), math.ceil(width / 2**n)) for n in range(strides + 1)]


class FromPlaces(nn.Module):
    """z of a grid, and classes beside it, (batch, numbers) → maps (batch, latent_dim + classes, height, width)."""

    def __init__(self, latent_dim: int, grid: tuple[int, int]):
        super().__init__()
        self.latent_dim, self.grid = latent_dim, grid

    def forward(self, state: Tensor) -> Tensor:
        numbers = self.latent_dim * math.prod(self.grid)
        maps = state[:, :numbers].unflatten(1, (self.latent_dim, *self.grid))
        one_hot = state[:, numbers:, None, None].expand(-1, -1, *self.grid)
        return torch.cat([maps, one_hot], 1)


class ChannelsLast(nn.Module):
    """Changes the memory layout only: convolutions on a CPU are 1.2 to 1.4 times faster in it."""

    def forward(self, images: Tensor) -> Tensor:
        # In words that torch.func.vmap knows; it has none for memory_format.
        return images.movedim(1, -1).contiguous().movedim(-1, 1)


class ConvTranspose2d(nn.ConvTranspose2d):
    """torch's own, with its bias added apart: within the convolution the bias's gradient is a tenth of a CPU's step."""

    bias: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        places = self.stride, self.padding, self.output_padding, self.groups, self.dilation
        y = nn.functional.conv_transpose2d(x, self.weight, None, *places)  # type: ignore[arg-type]
        return y.add_(self.bias[:, None, None])


def _dense_layers(widths: Sequence[int], gated: bool = False) -> list[nn.Module]:
    if gated:
        pairs = itertools.pairwise(widths)
        return [module for n_in, n_out in pairs for module in (nn.Linear(n_in, 2 * n_out), nn.GLU())]
    return _with_relu([nn.Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(widths)])


def _with_relu(layers: Sequence[nn.Module]) -> list[nn.Module]:
    return [module for layer in layers for module in (layer, nn.ReLU(inplace=True))]
