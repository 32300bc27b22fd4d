"""A model and its test images as the pictures see them. Used while training and afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from vae.data.loader import BatchLoader
from vae.evaluation import latents
from vae.figures import solid
from vae.model.codes import Coding
from vae.model.vae import VAE
from vae.settings.config import is_at_mean, kind, objective_name, unusual
from vae.study.encoded import Encoded
from vae.study.pictures import CODES_ALONE, DRAW, NOT_OF_CODES, OF_LEVELS, TAGS, clusters_3d, select

CLASSES = 12  # that a picture has rows for

History = Sequence[Mapping[str, float]]  # rows of the `Scalars` callback


class Scene(Encoded):
    """A model and the test images as the pictures see them.

    `about` is what a checkpoint says of itself, see `vae.model.checkpoints.about`.
    """

    def __init__(
        self,
        vae: VAE,
        loader: BatchLoader,
        about: Mapping[str, Any],
        epoch: int,
        grid: str = "whitened",
        walk: str = "axis",
        history: History = (),
    ):
        super().__init__(vae, loader, is_at_mean(about["config"]))
        self.classes: Sequence[str] = about["classes"]
        self.grid = grid
        self.walk = walk
        self.history = history
        self.epoch = epoch
        self.latent_dim: int = about["config"]["latent_dim"]
        self.note = small_print(about, epoch)

    @property
    def tags(self) -> tuple[str, ...]:
        """The pictures that apply: curves need epochs, others a number of dimensions or a posterior."""
        several = len(self.vae.levels) > 1
        applies = {
            "latent/pairs": self.latent_dim > 1,
            "latent/true_posterior": self.latent_dim <= 2 and not self.at_mean and not several,
            "latent/activity": not self.at_mean,  # it shows a kl
            "images/interpolation": bool(self.pairs),
            **dict.fromkeys(OF_LEVELS, several),
            "curves/losses": bool(self.history),
            "curves/levels": bool(self.history) and several and not self.at_mean,
        }
        left_out = NOT_OF_CODES if self.is_coded else CODES_ALONE
        return tuple(tag for tag in TAGS if tag not in left_out and applies.get(tag, True))

    def draw(self, name: str) -> Figure:
        """Draw one picture by its tag or the tag's end; the same model always gives the same picture.

        The caller's random numbers stay as they were.
        """
        (tag,) = select([name], "picture")
        with self.quietly():
            if tag not in self.tags:
                raise ValueError(f"picture={tag}: there is none of this run")
            return DRAW[tag](self)

    def turning(self) -> Iterator[Any]:
        """The frames of the clusters of three dimensions turning once around."""
        with self.quietly():
            figure = clusters_3d(self, points=2000)
        return solid.turning(figure)

    # What several pictures ask for, and the same whichever asks first -------------------------------------------------

    @cached_property
    def principal(self) -> latents.Principal:
        """Principal axes of the posterior means."""
        return latents.principal(self.between)

    @cached_property
    def ranking(self) -> list[int]:
        return latents.ranking(self.codes, self.prior)

    def active(self, count: int) -> list[int]:
        """The dimensions that say most about the image, at most `count`, in rising order."""
        return sorted(self.ranking[:count])

    def coordinates(self, dim: int) -> Tensor:
        """Coordinates (points,) that cover the prior and all codes in one dimension, with what these are spread."""
        middle, scale = self.prior.mean[dim].item(), self.prior.scale[dim].item()
        means, spread = self.codes.means[:, dim], 3 * self.codes.variances[:, dim].sqrt() + 0.1 * scale
        low = min(middle - 3.5 * scale, (means - spread).min().item())
        high = max(middle + 3.5 * scale, (means + spread).max().item())
        return torch.linspace(low, high, 150, dtype=torch.float64)

    @property
    def is_coded(self) -> bool:
        """Whether z is made of codes, which no picture of a space of vectors can show."""
        return isinstance(self.vae.posterior, Coding)

    @property
    def rows(self) -> list[int]:
        """The classes that pictures of a conditional model have a row for; none of any other model."""
        return list(range(min(self.vae.backbone.classes, CLASSES)))

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """E[x|z] of latents (…, latent_dim) as (…, channels, height, width) on the CPU, in one batch.

        Labels, which broadcast to (…,), matter to a conditional model only.
        """
        return self.vae.decode(z.to(next(self.vae.parameters())), labels).mean.cpu()

    def encoded(self, index: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Some test images as the model sees them, their posterior means of all levels and their labels."""
        originals, labels = self.test_images(index), self.loader.labels[list(index)]
        return originals, self.vae.q(originals, labels).mean, labels

    def test_images(self, index: Sequence[int]) -> Tensor:
        """Some test images as the model sees them, on its device."""
        chosen = self.loader.images[list(index)].to(self.loader.dtype) / 255
        return torch.bernoulli(chosen) if self.loader.dynamic else chosen

    def examples(self, count: int) -> list[int]:
        """Positions of `count` test images of classes in turn: the first of each class, the second of each, …"""
        members = [self.members(label, count) for label in self.loader.labels.unique().tolist()]
        turns = range(max(map(len, members)))
        in_turn = [member[turn] for turn in turns for member in members if turn < len(member)]
        return in_turn[:count]

    def members(self, label: int, count: int) -> list[int]:
        """Positions of the first `count` test images of a class."""
        return (self.loader.labels == label).nonzero().flatten()[:count].tolist()

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Positions of test images to interpolate between: of different classes, or of each where there are rows."""
        if self.rows:
            return [(members[0], members[-1]) for label in self.rows if (members := self.members(label, 2))]
        return list(itertools.pairwise(self.examples(9)))  # neighbours in turn are of different classes

    def class_of(self, position: int) -> str:
        """The class of a test image, or nothing."""
        return self.classes[int(self.loader.labels[position])] if self.classes else ""


def small_print(about: Mapping[str, Any], epoch: int | None = None) -> str:
    """A run's essentials in one line."""
    config = about["config"]
    words = [
        about["data"],
        f"latent_dim {config['latent_dim']}",
        f"{kind(config['prior'])} prior",
        *unusual(config).values(),
        "conditional" if config.get("conditional") else "",
        objective_name(config),
        "" if epoch is None else f"epoch {epoch}",
    ]
    return " · ".join(filter(None, words))
