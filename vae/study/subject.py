"""A trained model and its data as the measures see them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from vae.data.base import Dataset, DataSource, Split
from vae.data.loader import BatchLoader, as_seen, evaluation_loader
from vae.evaluation import anomaly, latents
from vae.evaluation.likelihood import importance_likelihood, mean_recon
from vae.model.codes import Coding
from vae.model.distributions import DiagonalNormal, FullNormal, gaussian, parameters
from vae.model.vae import VAE
from vae.settings.ranges import METHODS
from vae.study.encoded import Encoded

LEAST = 0.1  # of the other work, however few images are asked for


@dataclass(frozen=True)
class Effort:
    """The work that expensive measures may take."""

    images: int = 1000  # test images with an estimated likelihood; fewer than usual are a quick look
    samples: int = 500  # of z for each of them; temperatures of each chain where the method is ais
    method: str = "importance"  # of estimating it, or ais

    @property
    def is_quick(self) -> bool:
        """Whether other measures take less work than usual, too."""
        return self.images < METHODS[self.method]

    def part_of(self, usual: int) -> int:
        """So much of the usual work of another measure; never more than that."""
        return max(2, round(usual * min(1.0, max(LEAST, self.images / METHODS[self.method]))))


EVERY = 10**9  # images: more than any data set has
FULL = Effort(EVERY, samples=5000)


class NotApplicableError(ValueError):
    """A measure that this model or these data cannot have; the message says why."""


class Subject(Encoded):
    """A trained model with the data it is measured on.

    All measures see the images as they were when the run was evaluated: `train` and `test` are binarised already.
    """

    def __init__(
        self,
        vae: VAE,
        source: DataSource,
        data: Dataset,
        effort: Effort = Effort(),
        against: Dataset | None = None,
        at_mean: bool = False,
    ):
        super().__init__(vae.eval(), evaluation_loader(source, data.test, "test"), at_mean)
        self.data = data
        self.effort = effort
        self.against = against
        self.binarized = source.binarize != "none"
        self._source = source

    @cached_property
    def train(self) -> Split:
        return self._as_seen(self.data.train, "train")

    @cached_property
    def test(self) -> Split:
        return self._as_seen(self.data.test, "test")

    def _as_seen(self, part: Split, name: str) -> Split:
        return as_seen(self._source, part, name, next(self.vae.parameters()).device)

    def batches(self, part: Split) -> BatchLoader:
        """Batches of these images as the model takes them, with their labels."""
        loader = BatchLoader(part, 4 * self._source.batch_size)
        return self.fitting(loader)

    def images(self, part: Split) -> Tensor:
        """The images of `batches` in one tensor."""
        return torch.cat([images for images, _ in self.batches(part)])

    @cached_property
    def train_codes(self) -> latents.Codes:
        """Codes of the first training images, as many as there are test images."""
        return latents.encode(self.vae, self.batches(self.train.take(slice(len(self.test)))), self.at_mean)

    @cached_property
    @torch.inference_mode()
    def posteriors(self) -> DiagonalNormal | FullNormal:
        """q(z|x) of all test images in one batch."""
        found = [self.vae.encode(images, labels) for images, labels in self.loader]
        normals = [q for q in found if isinstance(q, DiagonalNormal | FullNormal)]
        if not normals:
            raise NotApplicableError("the posterior is not Gaussian")
        return gaussian(*(torch.cat(each) for each in zip(*map(parameters, normals), strict=True)))

    @cached_property
    @torch.inference_mode()
    def anomaly_scores(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Scores (n,) of test images, and of as many images of the other data, by their names."""
        if self.against is None:
            raise NotApplicableError("there is nothing to tell the test images from; say --against DATA")
        if self.against.shape != self.data.shape:
            raise NotApplicableError(f"its images are {self.against.shape}, those of the run {self.data.shape}")
        if not latents.aggregate_covariance(self.train_codes).any():
            raise NotApplicableError("the codes of the training images are all the same")
        count = min(self.effort.images, len(self.test), len(self.against.test))
        scores: list[dict[str, Tensor]] = []
        for whole in (self.test, self._as_seen(self.against.test, "test")):
            part = whole.take(torch.arange(count) * len(whole) // count)  # evenly chosen, and as many of both
            means = latents.encode(self.vae, self.batches(part)).means
            scores.append({"latent": anomaly.latent_distance(means, self.train_codes)})
            if self.at_mean:
                scores[-1] = {"recon": mean_recon(self.vae, self.batches(part)), **scores[-1]}
            else:
                found = importance_likelihood(self.vae, self.batches(part), self.effort.samples)
                scores[-1] = {"total": -found.elbo, "nll": -found.log_p, **scores[-1]}
        inside, outside = scores
        return {name: (inside[name], outside[name]) for name in inside}

    def refuse_at_mean(self) -> None:
        if self.at_mean:
            raise NotApplicableError("an autoencoder has no posterior, as nobody trains its σ")

    def refuse_levels(self) -> None:
        if len(self.vae.levels) > 1:
            raise NotApplicableError(f"it needs a model of one level of latents, and this has {len(self.vae.levels)}")

    def refuse_codes(self) -> None:
        if isinstance(self.vae.posterior, Coding):
            raise NotApplicableError("z is made of codes, which have no density")

    def refuse_without_classes(self) -> None:
        if len(self.data.classes) < 2:
            raise NotApplicableError("the data has no classes")
