"""What is reported of exported programs must be what was changed in them."""

import math

import pytest
import torch
from exported import CODED, MODELS, a_model

from vae.evaluation.terms import mean_terms
from vae.use.parity import parity
from vae.use.portable import programs_of


def batches(model, n=60):
    return [(torch.rand(n, *model.shape), torch.arange(n) % 3) for _ in range(2)]


def runs(model):
    return {name: program.module for name, program in programs_of(model)[0].items()}


@pytest.mark.parametrize("name", ["plain", "colours", "conditional", "diagonal mixture", "maf", "maps"])
def test_the_same_programs_have_no_error_and_the_models_total(name):
    model = a_model(**MODELS[name])
    images = batches(model, 200)
    found = parity(model, runs(model), runs(model), images)
    assert found.images == 400 and set(found.loss.values()) == {0.0} and set(found.errors.values()) == {0.0}
    scale = "scale_tril" if "posterior" in MODELS[name] else "scale"
    z = ["z"] if len(model.vae.levels) > 1 else []
    assert list(found.errors) == ["mean", scale, *z, "images", "samples"]
    assert found.torch["total"] == pytest.approx(found.torch["recon"] + found.torch["kl"])
    expected = mean_terms(model.vae, images)
    assert found.torch["total"] == pytest.approx(expected["total"], rel=0.02)  # of other draws of z
    assert found.torch["kl"] == pytest.approx(expected["kl"], rel=0.2)


@pytest.mark.parametrize("name", CODED)
def test_programs_of_codes_have_the_models_total(name):
    model = a_model(**CODED[name])
    images = batches(model)
    found = parity(model, runs(model), runs(model), images)
    assert set(found.loss.values()) == {0.0} and set(found.errors.values()) == {0.0}
    assert list(found.errors) == ["z", "images", *(["prior"] if name != "codes" else [])]
    assert found.torch["total"] == pytest.approx(mean_terms(model.vae, images)["total"], rel=1e-5)


def test_errors_are_the_largest_and_are_counted_where_they_are():
    model = a_model()
    images = batches(model)
    theirs = runs(model)
    encoder, decoder = theirs["encoder"], theirs["decoder"]

    def shifted(images):
        coded = encoder(images)
        coded["mean"][3, 1] -= 0.25 * (len(calls) == 1)
        calls.append(1)
        return coded

    calls: list[int] = []
    found = parity(model, runs(model), theirs | {"encoder": shifted}, images)
    assert found.errors["mean"] == pytest.approx(0.25) and found.errors["scale"] == found.errors["samples"] == 0
    assert found.errors["images"] > 0 and found.loss["total"] != 0 and found.loss["kl"] != 0

    calls = []

    def broken(z):
        calls.append(1)
        return {"images": decoder(z)["images"] * (math.nan if len(calls) == 1 else 1), "logits": decoder(z)["logits"]}

    assert math.isnan(parity(model, runs(model), theirs | {"decoder": broken}, images).errors["images"])


def test_the_total_is_that_of_the_logits():
    """With a Bernoulli likelihood a logit of 0 costs log 2 for each pixel, whatever the image."""
    model = a_model()
    theirs, images = runs(model), batches(model)
    blind = {
        "decoder": lambda z: {"images": torch.full((len(z), 1, 5, 7), 0.5), "logits": torch.zeros(len(z), 1, 5, 7)}
    }
    at_prior = {"encoder": lambda images: {"mean": torch.zeros(len(images), 3), "scale": torch.ones(len(images), 3)}}
    found = parity(model, runs(model), theirs | blind | at_prior, images)
    assert found.exported["total"] == found.exported["recon"] == pytest.approx(35 * math.log(2))


def test_a_missing_sampler_is_not_compared():
    model = a_model()
    theirs = runs(model)
    del theirs["sampler"]
    assert list(parity(model, runs(model), theirs, batches(model)).errors) == ["mean", "scale", "images"]
