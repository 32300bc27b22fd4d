"""Every measure by its name: from a trained model and its data to numbers. The formulas are in `vae.evaluation`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from vae.common.seeding import apart
from vae.data.base import Dataset, DataSource, Part
from vae.data.loader import BatchLoader, as_seen
from vae.evaluation import aggregate, anomaly, disentanglement, latents, quality, structure
from vae.evaluation.annealed import annealed, bidirectional
from vae.evaluation.classifier import trained_classifier
from vae.evaluation.gap import inference_gap
from vae.evaluation.geometry import Geometry
from vae.evaluation.likelihood import Likelihood, bits_per_dimension, dequantised, importance_likelihood, mean_recon
from vae.model.distributions import DiagonalNormal, FullNormal, gaussian, parameters
from vae.model.draws import draws
from vae.model.vae import VAE

log = logging.getLogger(__name__)

CACHE = Path("~/.cache/vae/classifiers")
CROWD = 6  # test images at the least: density and coverage ask for five neighbours of each
DRAWS = 1000  # of the aggregate posterior, to set against the prior
PICTURED = 5000  # test images to set against as many samples, by their features
FEW = 10  # effective samples: with fewer, neither an estimate nor its error is to be trusted
RARELY = 0.05  # share of images for which that is no reason to warn
CHAINS = 16  # of annealed importance sampling, for each image
LOOSE = 1.0  # nats between bounds: with more, they say little
PAIR = 2  # images, the fewest that have a spread
SINGLE = 200  # images that get a search for their best posterior
STEPS = 300  # of that search

Values = dict[str, float]


@dataclass(frozen=True)
class Effort:
    """The work that expensive measures may take."""

    images: int = 1000  # test images with an estimated likelihood
    samples: int = 500  # of z for each of them; temperatures of each chain where the method is ais
    method: str = "importance"  # of estimating it, or ais


EVERY = 10**9  # images: more than any data set has
FULL = Effort(EVERY, samples=5000)


class NotApplicableError(ValueError):
    """A measure that this model or these data cannot have; the message says why."""


class Subject:
    """A trained model with the data it is measured on, encoded once, when the first measure asks.

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
        self.vae = vae.eval()
        self.data = data
        self.effort = effort
        self.against = against
        self.at_mean = at_mean  # an autoencoder, see vae.settings.config.is_at_mean
        self.binarized = source.binarize != "none"
        self._source = source

    @cached_property
    def train(self) -> Part:
        return self._as_seen(self.data.train, "train")

    @cached_property
    def test(self) -> Part:
        return self._as_seen(self.data.test, "test")

    def _as_seen(self, part: Part, name: str) -> Part:
        return as_seen(self._source, part, name, next(self.vae.parameters()).device)

    def batches(self, part: Part) -> BatchLoader:
        """Batches of these images as the model takes them, with their labels."""
        loader = BatchLoader(part, 4 * self._source.batch_size)
        loader.to(next(self.vae.parameters()).device)
        return loader

    def images(self, part: Part) -> Tensor:
        """The images of `batches` in one tensor."""
        return torch.cat([images for images, _ in self.batches(part)])

    @cached_property
    def codes(self) -> latents.Codes:
        """Codes of all test images."""
        return latents.encode(self.vae, self.batches(self.test), self.at_mean)

    @cached_property
    def train_codes(self) -> latents.Codes:
        """Codes of the first training images, as many as there are test images."""
        return latents.encode(self.vae, self.batches(self.train.take(slice(len(self.test)))), self.at_mean)

    @cached_property
    def prior(self) -> Geometry:
        return Geometry.of(self.vae.prior())

    @cached_property
    @torch.inference_mode()
    def posteriors(self) -> DiagonalNormal | FullNormal:
        """q(z|x) of all test images in one batch."""
        found = [self.vae.encode(images, labels) for images, labels in self.batches(self.test)]
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

    def refuse_without_classes(self) -> None:
        if len(self.data.classes) < 2:
            raise NotApplicableError("the data has no classes")


def _refuse_few(part: Part, fewest: int, what: str = "test") -> None:
    if len(part) < fewest:
        raise NotApplicableError(f"it needs at least {fewest} {what} images, not {len(part)}")


def _likelihood(subject: Subject) -> Values:
    subject.refuse_at_mean()
    part = subject.test.some(subject.effort.images)
    _refuse_few(part, PAIR)
    if subject.effort.method == "ais":
        return _annealed(subject, part)
    found = importance_likelihood(subject.vae, subject.batches(part), subject.effort.samples)
    n = len(found.log_p)
    few = (found.ess < FEW).double().mean().item()
    if few > RARELY:
        log.warning(
            "of %.0f %% of the images, log p(x) rests on fewer than %d effective samples of %d: it is too low there, "
            "and so is its error; take more samples",
            *(100 * few, FEW, subject.effort.samples),
        )
    return {
        "nll": -found.log_p.mean().item(),
        "nll_error": found.error.square().sum().sqrt().item() / n,  # of the estimate, on these very images
        "nll_sampling_error": found.log_p.std().item() / n**0.5,  # of these images for all others
        "ess": found.ess.median().item(),
        "few_effective": few,  # share of images
        "inference_gap": (found.log_p - found.elbo).mean().item(),
        "nll_images": n,
        "nll_samples": subject.effort.samples,
        **_bits(subject, part, found),
    }


def _annealed(subject: Subject, part: Part) -> Values:
    """log p(x) without the encoder's help, between two bounds for images that the model draws itself."""
    images, steps = subject.images(part), subject.effort.samples
    found = annealed(subject.vae, images, part.labels, CHAINS, steps)
    both = bidirectional(subject.vae, part.labels, CHAINS, steps)
    sampled = importance_likelihood(subject.vae, [(images, part.labels)], 500)
    n = len(found.log_p)
    gap, missed = both.gap, found.log_p - sampled.log_p
    if gap.mean() > LOOSE:
        log.warning("the bounds on log p(x) are %.2f nats apart: take more than %d --samples", gap.mean(), steps)
    return {
        "nll_ais": -found.log_p.mean().item(),
        "nll_ais_error": found.error.square().sum().sqrt().item() / n,
        "nll_ais_sampling_error": found.log_p.std().item() / n**0.5,
        "ais_gap": gap.mean().item(),  # of simulated images
        "ais_gap_error": gap.std().item() / n**0.5,
        "ais_lower": both.lower.mean().item(),
        "ais_upper": both.upper.mean().item(),
        "ais_ess": found.ess.median().item(),
        "importance_misses": missed.mean().item(),  # by 500 draws for the same images
        "importance_misses_error": missed.std().item() / n**0.5,
        "ais_images": n,
        "ais_steps": steps,
    }


def _bits(subject: Subject, part: Part, found: Likelihood) -> Values:
    """Bits per dimension: of binary images their log p(x) says, a density is asked about dequantised ones."""
    density = subject.vae.likelihood.pixels != "binary"
    pixels = "binary" if subject.binarized else "grey"
    if density and not subject.binarized:
        pixels = "dequantised"
        batches = ((dequantised(images), labels) for images, labels in subject.batches(part))
        found = importance_likelihood(subject.vae, batches, subject.effort.samples)
    bits = bits_per_dimension(found.log_p, subject.data.shape, pixels, density)
    return {} if bits is None else {"bits_per_dim": bits}


def _gap(subject: Subject) -> Values:
    subject.refuse_at_mean()
    part = subject.test.some(SINGLE)
    found = inference_gap(subject.vae, subject.images(part), part.labels, subject.effort.samples, STEPS)
    return {
        "approximation_gap": found.approximation.mean().item(),
        "amortisation_gap": found.amortisation.mean().item(),
        "gap_error": found.error.square().sum().sqrt().item() / len(found.error),
    }


@torch.inference_mode()
def _aggregate(subject: Subject) -> Values:
    subject.refuse_at_mean()
    _refuse_few(subject.test, PAIR)
    q, p = subject.posteriors, subject.vae.prior()
    chosen = torch.randperm(len(q.loc))[:DRAWS]
    z = q.sample()[chosen]
    test = aggregate.mmd_test(z, draws(p, len(z)))
    parts = aggregate.decompose(q, chosen, z, p)
    if parts.bias.value > 1:
        log.warning(
            "the posteriors of %s images hardly overlap: %.2f nats of the total correlation that they show come from "
            "their number alone and were counted as mutual information; neither is known well",
            *(f"{len(q.loc):,}", parts.bias.value),
        )
    if parts.tc.value < 2 * parts.tc.error and q.loc.shape[-1] > 1:
        log.warning(
            "the total correlation of %.2f ± %.2f nats cannot be told from zero", parts.tc.value, parts.tc.error
        )
    return {
        "active_units": latents.active_units(subject.codes.means).sum().item(),
        **{name: getattr(parts, name).value for name in ("mi", "tc", "dwkl")},
        **{f"{name}_error": getattr(parts, name).error for name in ("mi", "tc", "dwkl")},
        "tc_bias": parts.bias.value,
        "aggregate_mmd": test.mmd2,
        "aggregate_mmd_p": test.p_value,
    }


def _geometry(subject: Subject) -> Values:
    prior = subject.prior
    if prior.samples is not None:
        raise NotApplicableError("the prior is not Gaussian")
    covariance = latents.aggregate_covariance(subject.codes)
    match = aggregate.covariance_match(covariance, prior.covariance)
    mean = subject.codes.means.double().mean(0)
    values = {
        "covariance_error": match.error,
        "mean_error": aggregate.mean_error(mean, prior.mean, prior.covariance),
    }
    return values if math.isnan(match.angle) else values | {"axis_angle": match.angle}


def _structure(subject: Subject) -> Values:
    subject.refuse_without_classes()
    for part, name in ((subject.train, "training"), (subject.test, "test")):
        _refuse_few(part, structure.NEIGHBOURS, name)
    train, test = subject.train_codes, subject.codes
    for codes, name in ((train, "training"), (test, "test")):
        if len(codes.labels.unique()) < 2:
            raise NotApplicableError(f"the {len(codes.labels)} {name} images are all of one class")
    return structure.scores(train.means, train.labels, test.means, test.labels)


@torch.inference_mode()
def _reconstruction(subject: Subject) -> Values:
    pairs = [
        (images, subject.vae.decode(subject.vae.encode(images, labels).mean, labels).mean)
        for images, labels in subject.batches(subject.test)
    ]
    return quality.reconstruction(*(torch.cat(each) for each in zip(*pairs, strict=True)))


def _samples(subject: Subject) -> Values:
    subject.refuse_without_classes()
    _refuse_few(subject.test, CROWD)
    classifier = trained_classifier(subject.train, len(subject.data.classes), CACHE)
    test = subject.test.some(PICTURED)
    drawn = torch.cat([subject.vae.sample(len(labels), labels).cpu() for labels in test.labels.split(1000)])
    if subject.binarized:  # grey means would be told from binary images by their greys alone
        drawn = torch.bernoulli(drawn)
    found = quality.samples(classifier.features(test.images), classifier.features(drawn))
    return {f"samples_{name}": value for name, value in found.items()}


def _disentanglement(subject: Subject) -> Values:
    factors = subject.data.test.factors
    if factors is None:
        raise NotApplicableError("the data has no known factors")
    _refuse_few(subject.test, disentanglement.BATCH)
    varying = int((factors != factors[0]).any(0).sum())
    if varying < 2:
        raise NotApplicableError(f"it needs at least 2 factors that vary among the test images, not {varying}")
    return disentanglement.scores(subject.codes.means, factors)


def _anomaly(subject: Subject) -> Values:
    values: Values = {}
    for name, (inside, outside) in subject.anomaly_scores.items():
        found = anomaly.detection(inside, outside)
        values |= {f"auroc_{name}": found.auroc, f"average_precision_{name}": found.average_precision}
    return values


MEASURES: dict[str, Callable[[Subject], Values]] = {
    "likelihood": _likelihood,
    "gap": _gap,
    "aggregate": _aggregate,
    "geometry": _geometry,
    "structure": _structure,
    "reconstruction": _reconstruction,
    "samples": _samples,
    "disentanglement": _disentanglement,
    "anomaly": _anomaly,
}


def select(names: Sequence[str]) -> tuple[str, ...]:
    """The measures of these names, in the order of `MEASURES`; no names mean all."""
    for name in names:
        if name not in MEASURES:
            raise ValueError(f"metric={name}: must be one of {', '.join(MEASURES)}")
    return tuple(name for name in MEASURES if name in names or not names)


def measure(subject: Subject, name: str) -> Values:
    """One measure's values by their names. The same model gives the same values, whatever was measured before."""
    with apart("measure", name):
        return MEASURES[name](subject)
