"""The exported programs, run by torch, must be the model; `test_export.py` has them in files."""

import pytest
import torch
from exported import CODED, MODELS, VAMP, N, a_model, inputs

from vae.model.distributions import DiagonalNormal
from vae.model.posteriors import Posterior
from vae.model.priors import Prior
from vae.use.portable import programs_of


@pytest.mark.parametrize("name", MODELS)
def test_programs_compute_what_the_model_does(name):
    model = a_model(**MODELS[name])
    programs, left_out = programs_of(model)
    assert not left_out
    given, labels = inputs(model, 5)
    found = {key: program.module(**{each: given[each] for each in program.inputs}) for key, program in programs.items()}
    q = model.encode(given["images"], labels)
    if "z" in found["encoder"]:
        code = found["encoder"]
        log_q = DiagonalNormal(code["mean"], code["scale"]).log_prob(code["z"])
        assert torch.allclose(log_q, q.log_prob(code["z"]), rtol=1e-4)
        noise = (code["z"] - code["mean"]) / code["scale"]
        assert torch.allclose(noise, given["noise"], atol=1e-4)
        again = {each: given[each] for each in programs["encoder"].inputs} | {"noise": torch.zeros_like(noise)}
        found["encoder"] = programs["encoder"].module(**again)
    assert torch.allclose(found["encoder"]["mean"], q.mean, atol=1e-6)
    if "posterior" in MODELS[name]:
        factor = found["encoder"]["scale_tril"]
        assert torch.allclose(factor @ factor.mT, q.covariance_matrix, atol=1e-6)
    else:
        assert torch.allclose(found["encoder"]["scale"], q.stddev)
    assert torch.allclose(found["decoder"]["images"], model.decode(given["z"], labels), atol=1e-6)
    log_p = model.vae.likelihood(found["decoder"]["logits"]).log_prob(given["images"])
    assert torch.allclose(log_p, model.vae.decode(given["z"], labels).log_prob(given["images"]))


@pytest.mark.parametrize("name", CODED)
def test_programs_of_codes_compute_what_the_model_does(name):
    model = a_model(**CODED[name])
    programs, left_out = programs_of(model)
    assert not left_out and ("prior" in programs) == (name != "codes")
    given, labels = inputs(model, 5)
    told = {} if labels is None else {"labels": labels}
    coded = programs["encoder"].module(given["images"], **told)
    q = model.encode(given["images"], labels)
    assert torch.equal(coded["codes"], q.codes) and torch.equal(coded["z"], q.mean)
    decoded = programs["decoder"].module(given["codes"], **told)
    assert torch.allclose(decoded["images"], model.decode(given["codes"], labels), atol=1e-6)
    if "prior" in programs:
        codes = given["codes"].flatten(1)
        logits = programs["prior"].module(codes, **told)["logits"].log_softmax(-1)
        log_p = logits.gather(-1, codes.unsqueeze(-1)).sum((1, 2))
        index = codes.view(5, model.coding.places, model.coding.stages)
        assert torch.allclose(log_p, model.vae.p(labels).p.log_prob(index), atol=1e-4)


def test_samples_have_the_moments_of_the_models_own(mean_is):
    for name in ("correlated conv", "mixture", "conditional", "two vectors", "maps"):
        model = a_model(**MODELS[name])
        program = programs_of(model)[0]["sampler"]
        labels = {"labels": torch.full((4000,), 1)} if model.conditional else {}
        given = {"noise": torch.randn(4000, model.vae.numbers), "choice": torch.rand(4000)} | labels
        with torch.no_grad():
            found = program.module(**{each: given[each] for each in program.inputs})["images"]
            own = model.vae.sample(20_000, 1 if model.conditional else None)
        for power in (1, 2):
            mean_is(found**power, (own**power).mean(0))


def test_programs_stay_as_they_were_made():
    model = a_model(prior=VAMP)
    programs, _ = programs_of(model)
    z = torch.randn(2, N)
    before = programs["decoder"].module(z)["images"]
    with torch.no_grad():
        for weight in model.vae.parameters():
            weight.zero_()
    assert torch.equal(programs["decoder"].module(z)["images"], before)
    assert all(weight.requires_grad for weight in model.vae.parameters())


def test_each_program_holds_its_own_weights_only():
    model = a_model(prior=VAMP)
    programs, _ = programs_of(model)
    counts = {key: sum(weight.numel() for weight in each.module.parameters()) for key, each in programs.items()}
    encoder = sum(weight.numel() for weight in model.vae.backbone.encoder.parameters())
    heads = sum(weight.numel() for weight in model.vae.posterior.parameters())
    decoder = sum(weight.numel() for weight in model.vae.backbone.decoder.parameters())
    assert counts == {"encoder": encoder + heads, "decoder": decoder, "sampler": decoder}


class Cauchys(Prior):
    """A prior without a map of normal noise."""

    def forward(self, state=None):
        return torch.distributions.Independent(torch.distributions.Cauchy(torch.zeros(N), torch.ones(N)), 1)


class Laplaces(Posterior):
    """A posterior without a standard deviation to tell."""

    def q(self, features, prior):
        means = features[:, :N]
        return torch.distributions.Independent(torch.distributions.Laplace(means, torch.ones_like(means)), 1)


def test_a_sampler_that_cannot_be_had_is_left_out():
    model = a_model()
    model.vae.levels[0].prior = Cauchys()
    programs, left_out = programs_of(model)
    assert list(programs) == ["encoder", "decoder"]
    assert left_out == {
        "sampler": "Independent: must be a Gaussian, a mixture of them or a flow to be drawn from noise"
    }


def test_an_encoder_that_cannot_be_had_is_refused():
    model = a_model()
    model.vae.levels[0].encoding = Laplaces()
    with pytest.raises(ValueError, match=r"^posterior Laplaces: must be Gaussian to be exported$"):
        programs_of(model)
