"""That measures are taken of what they say: of the right images, with their labels, by the model's own posterior."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from vae.common import terminal
from vae.data.base import Split
from vae.data.loader import evaluation_loader
from vae.evaluation.latents import covariance
from vae.runs import measured
from vae.settings.ranges import METRICS
from vae.study import measures
from vae.study.measures import MEASURES, measure, select
from vae.study.subject import FULL, Effort, NotApplicableError
from vae.training.run import train_run


@pytest.mark.parametrize("name", [name for name in MEASURES if name not in ("anomaly", "disentanglement")])
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["latent_dim=3", "prior=correlated", "posterior=full", "data.binarize=dynamic"],
        ["prior=vamp", "conditional=true", "likelihood=gaussian"],
        ["likelihood=logistic_mixture", "conditional=true"],
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
    assert {row.measure for row in measured.rows(found)} == {name}  # whose units are known
    torch.rand(3)
    assert measure(subject(*overrides), name) == found


def test_the_likelihood_is_above_the_elbo_of_the_same_images(subject):
    found = measure(subject(), "likelihood")
    assert found["inference_gap"] > 0 and 1 <= found["ess"] <= 20
    assert (found["nll_images"], found["nll_samples"]) == (30, 20)
    assert "bits_per_dim" not in found  # grey pixels have no probability
    binary = measure(subject("data.binarize=threshold"), "likelihood")
    assert binary["bits_per_dim"] == pytest.approx(binary["nll"] / (784 * math.log(2)))


@pytest.mark.parametrize("likelihood", ["discretized_logistic", "logistic_mixture"])
def test_bits_of_levels_are_those_of_grey_pixels(subject, likelihood):
    found = measure(subject(f"likelihood={likelihood}"), "likelihood")
    assert found["nll_bits_per_dim"] == pytest.approx(found["nll"] / (784 * math.log(2)))
    assert 0 < found["nll_bits_per_dim"] < 9


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


def test_what_so_few_images_cannot_tell_of_the_aggregate_is_said(subject, caplog):
    taken = subject()
    q = type(taken.posteriors)
    line = torch.linspace(-2, 2, 300)
    taken.posteriors = q(torch.stack([line, line], 1), torch.full((300, 2), 0.3))
    found = measure(taken, "aggregate")
    assert not caplog.records and found["tc"] > 10 * found["tc_error"]
    taken.posteriors = q(torch.randn(300, 2), torch.full((300, 2), 0.3))
    found = measure(taken, "aggregate")
    said = f"the total correlation of {found['tc']:.2f} ± {found['tc_error']:.2f} nats cannot be told from zero"
    assert said in caplog.text and "hardly overlap" not in caplog.text
    taken.posteriors = q(torch.randn(300, 2), torch.full((300, 2), 1e-4))
    found = measure(taken, "aggregate")
    assert f"of 300 images hardly overlap: {found['tc_bias']:.2f} nats" in caplog.text


def test_annealing_bounds_the_likelihood_and_says_what_importance_sampling_misses(subject, caplog):
    taken = subject("data.binarize=threshold")
    sampled = measure(taken, "likelihood")
    taken.effort = Effort(images=30, samples=40, method="ais")
    found = measure(taken, "likelihood")
    # Untrained, so that nothing is hard: both ways come to the same.
    assert found["nll_ais"] == pytest.approx(sampled["nll"], abs=6 * (found["nll_ais_error"] + sampled["nll_error"]))
    # The bounds hold in the mean: of a few images they may cross, here by the rounding of one processor.
    assert found["ais_gap"] == pytest.approx(found["ais_upper"] - found["ais_lower"])
    assert -6 * found["ais_gap_error"] <= found["ais_gap"] < 0.5
    assert abs(found["importance_misses"]) < 0.1 and (found["ais_images"], found["ais_steps"]) == (30, 40)
    assert not caplog.records and {row.measure for row in measured.rows(found)} == {"likelihood"}
    taken.vae.backbone.decoder[-2].weight.data *= 100
    taken.effort = Effort(images=10, samples=2, method="ais")
    measure(taken, "likelihood")
    assert "nats apart: take more than 2 --samples" in caplog.text


def test_an_autoencoder_is_measured_at_the_mean(subject):
    taken = subject("objective=autoencoder")
    other = replace(taken.data, test=Split(255 - taken.data.test.images, taken.data.test.labels))
    taken.against = other
    for name in ("likelihood", "gap", "aggregate"):
        with pytest.raises(NotApplicableError, match="an autoencoder has no posterior"):
            measure(taken, name)
    assert not taken.codes.variances.any() and not taken.codes.noise.any()
    x = taken.data.test.images[:3] / 255
    expected = -taken.vae.decode(taken.vae.encode(x).mean).log_prob(x).double()
    inside, _ = taken.anomaly_scores["recon"]
    assert torch.allclose(inside[:1], expected[:1], rtol=1e-5) and taken.anomaly_scores.keys() == {"recon", "latent"}
    assert measure(taken, "anomaly").keys() == {
        *("auroc_recon", "average_precision_recon", "auroc_latent", "average_precision_latent")
    }
    with torch.no_grad():
        taken.vae.posterior.log_var.bias += 3  # a σ that nobody trained
    again = subject("objective=autoencoder")
    assert measure(taken, "geometry") == measure(again, "geometry")


def test_all_measures_see_the_binary_images_of_the_evaluation(subject, monkeypatch):
    taken = subject("data.binarize=dynamic")
    whole = torch.cat([x for x, _ in evaluation_loader(taken._source, taken.data.test, "test")])
    assert set(whole.unique().tolist()) == {0, 1}
    assert torch.equal(taken.images(taken.test), whole)
    assert torch.equal(taken.images(taken.test.some(30)), whole[::10])
    seen = []
    monkeypatch.setattr(measures.quality, "samples", lambda real, fake: seen.append((real, fake)) or {"frechet": 0.0})
    monkeypatch.setattr(measures, "trained_classifier", lambda part, *_: SimpleNamespace(features=lambda x: x))
    measure(taken, "samples")
    ((real, drawn),) = seen
    assert set(real.unique().tolist()) == {0, 255} and set(drawn.unique().tolist()) == {0, 1}
    measure(subject(), "samples")
    assert len(seen[1][1].unique()) > 100  # of grey images grey means


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
    wrong = subject("conditional=true", test=Split(test.images, (test.labels + 1) % 10, test.factors))
    assert measure(wrong, "likelihood")["nll"] != pytest.approx(found["nll"], rel=1e-6)


def test_images_of_another_kind_are_told_apart(subject):
    taken = subject()
    other = replace(taken.data, test=Split(255 - taken.data.test.images, taken.data.test.labels))
    found = measure(subject(against=other), "anomaly")
    assert found["auroc_total"] > 0.99 and found["auroc_nll"] > 0.99
    assert {"auroc_latent", "average_precision_latent"} <= found.keys()
    assert {row.measure for row in measured.rows(found)} == {"anomaly"}
    with pytest.raises(NotApplicableError, match="--against"):
        measure(taken, "anomaly")


def test_the_scores_of_disentanglement_have_units(subject):
    found = measure(subject(), "disentanglement")
    assert found and {row.measure for row in measured.rows(found)} == {"disentanglement"}


def test_fewer_images_than_usual_are_a_quick_look_at_gap_and_samples(subject, monkeypatch):
    monkeypatch.setattr(measures, "PICTURED", 100)
    sizes = []
    for images in (500, 1000, 5000, 1):
        taken = subject()
        taken.effort = Effort(images=images, samples=5)
        found = measure(taken, "gap") | measure(taken, "samples")
        sizes.append([found[name] for name in ("gap_images", "samples_images", "samples_classifier_steps")])
    assert sizes == [[5, 50, 10], [10, 100, 20], [10, 100, 20], [2, 10, 2]]
    assert not Effort(300, method="ais").is_quick and Effort(300, method="ais").part_of(200) == 200
    assert Effort(30, method="ais").is_quick and Effort().part_of(1200) == FULL.part_of(1200) == 1200


@pytest.mark.parametrize("name", ["likelihood", "annealed", "gap", "samples"])
def test_long_work_has_a_bar_that_comes_to_its_end(subject, name, monkeypatch):
    bars = []

    class Counted(terminal.NoBar):
        def __init__(self, what, total, delay):
            self.left = total
            bars.append(self)

        def update(self, n=1):
            self.left -= n

    monkeypatch.setattr(terminal, "bar", Counted)
    taken = subject("likelihood=gaussian", "data.batch_size=5")  # of several batches, and dequantised
    if name == "annealed":
        taken.effort = Effort(images=30, samples=7, method="ais")
    measure(taken, "likelihood" if name == "annealed" else name)
    assert len(bars) == {"likelihood": 2, "annealed": 3, "gap": 2, "samples": 1}[name]
    assert [each.left for each in bars] == [0] * len(bars)


def test_select_keeps_the_order_and_refuses_unknown_names():
    assert select(["samples", "gap"]) == ("gap", "samples") and select([]) == tuple(MEASURES) == METRICS
    with pytest.raises(ValueError, match=r"^metric=fid: must be one of likelihood, gap, "):
        select(["fid"])


def small_part(count, classes):
    return Split(torch.randint(0, 256, (count, 1, 28, 28)).byte(), torch.arange(count) % classes)


@pytest.mark.parametrize(
    ("name", "test", "train", "reason"),
    [
        ("likelihood", small_part(1, 1), None, "it needs at least 2 test images, not 1"),
        ("aggregate", small_part(1, 1), None, "it needs at least 2 test images, not 1"),
        ("structure", small_part(3, 3), None, "it needs at least 5 test images, not 3"),
        ("structure", None, small_part(4, 2), "it needs at least 5 training images, not 4"),
        ("structure", small_part(9, 1), None, "the 9 test images are all of one class"),
        ("structure", None, small_part(9, 1), "the 9 training images are all of one class"),
        ("samples", small_part(5, 2), None, "it needs at least 6 test images, not 5"),
    ],
)
def test_few_images_are_a_reason(subject, name, test, train, reason):
    parts = {"test": test, "train": train}
    taken = subject(**{key: part for key, part in parts.items() if part})
    with pytest.raises(NotApplicableError, match=f"^{reason}$"):
        measure(taken, name)


@pytest.mark.parametrize(("name", "fewest"), [("likelihood", 2), ("aggregate", 2), ("structure", 5), ("samples", 6)])
def test_no_more_images_are_asked_for_than_give_numbers(subject, name, fewest):
    taken = subject(test=small_part(fewest, 2))
    assert all(math.isfinite(value) for value in measure(taken, name).values())


@pytest.mark.parametrize(
    ("count", "varying", "reason"),
    [(63, 2, "it needs at least 64 test images, not 63"), (64, 1, "it needs at least 2 factors that vary .*, not 1")],
)
def test_few_factors_are_a_reason(subject, count, varying, reason):
    few = small_part(count, 2)
    factors = torch.rand(count, 3) * (torch.arange(3) < varying)
    taken = subject(test=Split(few.images, few.labels, factors))
    with pytest.raises(NotApplicableError, match=f"^{reason}$"):
        measure(taken, "disentanglement")


def test_codes_that_are_all_the_same_tell_no_anomalies(subject):
    taken = subject("objective=autoencoder", train=small_part(1, 1))
    taken.against = taken.data
    with pytest.raises(NotApplicableError, match=r"^the codes of the training images are all the same$"):
        measure(taken, "anomaly")


def test_a_measure_that_fails_does_not_fail_the_run(compose, tmp_path, image_folder, monkeypatch, caplog):
    monkeypatch.setitem(MEASURES, "reconstruction", lambda subject: [][0])
    small = ("data=images", f"data.root={image_folder}", "data.channels=1", "backbone.hidden=[16,8]")
    names = "evaluate.metrics=[structure,reconstruction,samples,geometry]"
    metrics = train_run(compose(*small, "epochs=1", "data.test_fraction=0.05", "figures.only=[]", names), tmp_path)
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert math.isfinite(metrics["test/total"]) and "test/covariance_error" in found and "test/mse" not in found
    assert "the measure reconstruction failed (IndexError: list index out of range)" in caplog.text
    assert "Traceback" in caplog.text  # for train.log


@pytest.mark.parametrize("name", ["likelihood", "gap", "aggregate", "geometry"])
def test_what_does_not_apply_to_codes_says_so(subject, name):
    with pytest.raises(NotApplicableError, match=r"codes|function of the image|Gaussian"):
        measure(subject("posterior=codebook"), name)


@pytest.mark.parametrize("name", ["structure", "reconstruction", "samples"])
def test_what_applies_to_codes_is_measured(subject, name):
    found = measure(subject("posterior=codebook", "prior=autoregressive"), name)
    assert found and all(math.isfinite(value) for value in found.values())
