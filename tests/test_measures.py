"""That measures are taken of what they say: of the right images, with their labels, by the model's own posterior."""

import math
from dataclasses import replace

import pytest
import torch

from vae import measures
from vae.build import build, build_model
from vae.data import strokes
from vae.data.base import Part
from vae.evaluation import anomaly, classifier
from vae.evaluation.latents import covariance
from vae.measures import MEASURES, Effort, NotApplicableError, Subject, measure, select
from vae.schemas import METRICS


@pytest.fixture
def subject(compose, monkeypatch, tmp_path):
    """An untrained model and a few hundred strokes."""
    monkeypatch.setattr(strokes, "COUNTS", {"train": 400, "test": 300})
    monkeypatch.setattr(measures, "CACHE", tmp_path / "classifiers")
    monkeypatch.setattr(classifier, "STEPS", 20)
    monkeypatch.setattr(measures, "STEPS", 20)
    monkeypatch.setattr(measures, "SINGLE", 10)

    def make(*overrides, against=None):
        config = compose("data=strokes", f"data.root={tmp_path}", "backbone.hidden=[16,8]", *overrides)
        source = build(config, "data")
        data = source.load()
        torch.manual_seed(0)
        model = build_model(config, data.shape, len(data.classes))
        model.start_at(data.train.images / 255, data.train.labels)
        return Subject(model, source, data, Effort(images=30, samples=20), against)

    return make


@pytest.mark.parametrize("name", [name for name in MEASURES if name not in ("anomaly", "disentanglement")])
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["latent_dim=3", "prior=correlated", "posterior=full", "data.binarize=dynamic"],
        ["prior=vamp", "conditional=true", "likelihood=gaussian"],
    ],
)
def test_a_measure_gives_numbers_and_the_same_ones_again(subject, overrides, name):
    taken = subject(*overrides)
    if name == "geometry" and "prior=vamp" in overrides:
        with pytest.raises(NotApplicableError, match="the prior is not Gaussian"):
            measure(taken, name)
        return
    before = torch.get_rng_state()
    found = measure(taken, name)
    assert torch.equal(torch.get_rng_state(), before)
    assert found and all(math.isfinite(value) for value in found.values())
    torch.rand(3)
    assert measure(subject(*overrides), name) == found


def test_the_likelihood_is_above_the_elbo_of_the_same_images(subject):
    found = measure(subject(), "likelihood")
    assert found["inference_gap"] > 0 and 1 <= found["ess"] <= 20
    assert (found["nll_images"], found["nll_samples"]) == (30, 20)
    assert "bits_per_dim" not in found  # grey pixels have no probability
    binary = measure(subject("data.binarize=threshold"), "likelihood")
    assert binary["bits_per_dim"] == pytest.approx(binary["nll"] / (784 * math.log(2)))


def test_a_density_s_bits_are_those_of_dequantised_pixels(subject):
    taken = subject("likelihood=gaussian", "likelihood.sigma=0.3")
    found = measure(taken, "likelihood")
    bits = found["nll"] / (784 * math.log(2)) + 8
    assert found["bits_per_dim"] == pytest.approx(bits, abs=0.02) and found["bits_per_dim"] != pytest.approx(bits)
    assert "bits_per_dim" not in measure(subject("likelihood=gaussian", "data.binarize=threshold"), "likelihood")


def test_too_few_effective_samples_are_said(subject, monkeypatch, caplog):
    monkeypatch.setattr(measures, "FEW", 21)
    measure(subject(), "likelihood")
    assert (
        "of 100 % of the images, log p(x) rests on fewer than 21 effective samples of 20: it is too low" in caplog.text
    )
    caplog.clear()
    monkeypatch.setattr(measures, "FEW", 0.5)
    measure(subject(), "likelihood")
    assert not caplog.records


def test_a_mutual_information_at_its_ceiling_is_said(subject, caplog):
    taken = subject()
    measure(taken, "aggregate")
    assert not caplog.records
    q = taken.posteriors
    taken.posteriors = type(q)(torch.randn(300, 2), torch.full((300, 2), 1e-4))  # no two of them overlap
    measure(taken, "aggregate")
    assert "nats is near log 300 = 5.70, the most that so many images can show" in caplog.text


def test_a_correlated_prior_s_geometry_is_compared_with_its_own_covariance(subject):
    taken = subject("prior=correlated")
    found = measure(taken, "geometry")
    aggregate = covariance(taken.codes.means) + taken.codes.noise
    sigma = torch.tensor([[1.0, 0.4], [0.4, 0.5]], dtype=torch.float64)
    assert found["covariance_error"] == pytest.approx(((aggregate - sigma).norm() / sigma.norm()).item(), rel=1e-5)
    assert "axis_angle" in found and "axis_angle" not in measure(subject(), "geometry")


def test_a_conditional_model_is_measured_with_the_true_labels(subject):
    taken = subject("conditional=true")
    found = measure(taken, "likelihood")
    test = taken.data.test
    wrong = subject("conditional=true")
    wrong.data = replace(taken.data, test=Part(test.images, (test.labels + 1) % 10, test.factors))
    assert measure(wrong, "likelihood")["nll"] != pytest.approx(found["nll"], rel=1e-6)


def test_images_of_another_kind_are_told_apart(subject):
    taken = subject()
    other = replace(taken.data, test=Part(255 - taken.data.test.images, taken.data.test.labels))
    found = measure(subject(against=other), "anomaly")
    assert found["auroc_total"] > 0.99 and found["auroc_nll"] > 0.99
    assert {"auroc_latent", "average_precision_latent"} <= found.keys()
    with pytest.raises(NotApplicableError, match="--against"):
        measure(taken, "anomaly")


def test_scores_are_of_as_many_images_spread_over_both_sets(subject):
    taken = subject()
    test = taken.data.test
    part = Part(test.images[:40].flip(0), test.labels[:40].flip(0))
    scores = subject(against=replace(taken.data, test=part)).anomaly_scores
    assert {name: tuple(map(len, pair)) for name, pair in scores.items()} == dict.fromkeys(
        ("total", "nll", "latent"), (30, 30)
    )
    means = taken.codes.means
    chosen = torch.arange(30) * 40 // 30
    for found, own in zip(scores["latent"], (means[::10], means[:40].flip(0)[chosen]), strict=True):
        assert torch.allclose(found, anomaly.latent_distance(own, taken.train_codes), rtol=1e-4)


def test_the_images_measured_are_spread_over_the_test_set(subject):
    taken = subject()
    assert torch.equal(taken.data.test.some(30).images, taken.data.test.images[::10])
    assert len(taken.data.test.some(10**9)) == 300


def test_select_keeps_the_order_and_refuses_unknown_names():
    assert select(["samples", "gap"]) == ("gap", "samples") and select([]) == tuple(MEASURES) == METRICS
    with pytest.raises(ValueError, match=r"^metric=fid: must be one of likelihood, gap, "):
        select(["fid"])
