"""Every measure by its name: from a trained model and its data to numbers. The formulas are in `vae.evaluation`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from vae.common.seeding import apart
from vae.data.base import Split
from vae.evaluation import aggregate, anomaly, classifier, disentanglement, latents, quality, structure
from vae.evaluation.annealed import annealed, bidirectional
from vae.evaluation.classifier import trained_classifier
from vae.evaluation.gap import inference_gap
from vae.evaluation.likelihood import (
    Weighed,
    bits_per_dimension,
    dequantised,
    importance_likelihood,
    upper_bound,
)
from vae.model.draws import draws
from vae.study.subject import NotApplicableError, Subject

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


def _refuse_few(part: Split, fewest: int, what: str = "test") -> None:
    if len(part) < fewest:
        raise NotApplicableError(f"it needs at least {fewest} {what} images, not {len(part)}")


def _likelihood(subject: Subject) -> Values:
    subject.refuse_at_mean()
    if subject.vae.is_certain:
        raise NotApplicableError("z is a function of the image, so that total is the bound and no draws tighten it")
    part = subject.test.some(subject.effort.images)
    _refuse_few(part, PAIR)
    if subject.effort.method == "ais":
        subject.refuse_codes()
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
        "nll_chi": -upper_bound(found, subject.effort.samples).mean().item(),
        "nll_images": n,
        "nll_samples": subject.effort.samples,
        **_bits(subject, part, found),
    }


def _annealed(subject: Subject, part: Split) -> Values:
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


def _bits(subject: Subject, part: Split, found: Weighed) -> Values:
    """Bits per dimension: from log p(x) of binary images or levels, or of dequantised ones where p(x) is a density."""
    of = subject.vae.likelihood.pixels
    pixels = "binary" if subject.binarized else "grey"
    if of == "unit" and not subject.binarized:
        pixels = "dequantised"
        found = importance_likelihood(subject.vae, subject.batches(part), subject.effort.samples, dequantised)
    bits = bits_per_dimension(found.log_p, subject.data.shape, pixels, of)
    name = "nll_bits_per_dim" if of == "levels" else "bits_per_dim"  # the metrics have those of −ELBO
    return {} if bits is None else {name: bits}


def _gap(subject: Subject) -> Values:
    subject.refuse_at_mean()
    subject.refuse_levels()
    subject.refuse_codes()
    part = subject.test.some(subject.effort.part_of(SINGLE))
    found = inference_gap(subject.vae, subject.images(part), part.labels, subject.effort.samples, STEPS)
    return {
        "approximation_gap": found.approximation.mean().item(),
        "amortisation_gap": found.amortisation.mean().item(),
        "gap_error": found.error.square().sum().sqrt().item() / len(found.error),  # of the first of them
        "gap_images": len(found.error),
    }


@torch.inference_mode()
def _aggregate(subject: Subject) -> Values:
    subject.refuse_at_mean()
    subject.refuse_codes()
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
    subject.refuse_codes()
    prior = subject.prior
    if prior.samples is not None:
        raise NotApplicableError("the prior is not Gaussian")
    match = aggregate.covariance_match(subject.aggregate, prior.covariance)
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
        (images, subject.vae.decode(subject.vae.q(images, labels).mean, labels).mean)
        for images, labels in subject.loader
    ]
    return quality.reconstruction(*(torch.cat(each) for each in zip(*pairs, strict=True)))


def _samples(subject: Subject) -> Values:
    subject.refuse_without_classes()
    _refuse_few(subject.test, CROWD)
    steps = subject.effort.part_of(classifier.STEPS)
    trained = trained_classifier(subject.train, len(subject.data.classes), CACHE, steps)
    test = subject.test.some(subject.effort.part_of(PICTURED))
    drawn = torch.cat([subject.vae.sample(len(labels), labels).cpu() for labels in test.labels.split(1000)])
    if subject.binarized:  # grey means would differ from binary images by their greys alone
        drawn = torch.bernoulli(drawn)
    found = quality.samples(trained.features(test.images), trained.features(drawn))
    return {
        **{f"samples_{name}": value for name, value in found.items()},
        "samples_images": len(drawn),
        "samples_classifier_steps": steps,
    }


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
