"""The use of codes over a part, and the likelihood of models of codes."""

import math

import pytest
import torch

from vae.evaluation.codes import count, use_of_codes
from vae.evaluation.likelihood import importance_likelihood
from vae.model.build import build_model

IMAGES, LABELS = torch.rand(10, 1, 12, 10), torch.arange(10) % 2
BATCHES = [(IMAGES[:6], LABELS[:6]), (IMAGES[6:], LABELS[6:])]


def a_model(compose, *overrides):
    torch.manual_seed(0)
    return build_model(compose("data=strokes", "backbone=conv", *overrides), (1, 12, 10), 2).eval()


def test_counts_are_those_of_all_images(compose):
    vae = a_model(compose, "posterior=residual_codebook", "posterior.codes=5", "posterior.stages=2")
    index = vae.q(IMAGES).index
    expected = [[(index[..., stage] == code).sum().item() for code in range(5)] for stage in range(2)]
    found = count(vae, BATCHES)
    assert found.tolist() == expected
    use = use_of_codes(vae, BATCHES, {"kl": 7.0})
    entropies = [-sum(n / sum(row) * math.log(n / sum(row)) for n in row if n) for row in expected]
    assert use["perplexity"] == pytest.approx(sum(map(math.exp, entropies)) / 2)
    assert use["codes_used"] == sum(n > 0 for row in expected for n in row) / 10
    assert use["code_bits"] == pytest.approx(7 / math.log(2))
    assert use["commitment"] == pytest.approx(vae(IMAGES).latent.parts["commitment"].item())
    assert use["codes_revived"] == 0


def test_other_models_have_none(compose):
    assert use_of_codes(a_model(compose), BATCHES, {"kl": 7.0}) == {}


def test_no_draw_tightens_the_bound_of_codes_that_are_certain(compose):
    vae = a_model(compose, "posterior=codebook")
    found = importance_likelihood(vae, BATCHES, 30)
    assert torch.allclose(found.log_p, -vae(IMAGES).total.double()) and torch.equal(found.log_p, found.elbo)
    assert (found.error == 0).all() and (found.ess == 30).all()


def test_draws_of_codes_bound_log_p_from_below_and_reach_it(compose):
    vae = a_model(compose, "posterior=gumbel", "posterior.codes=2").double()
    coding, x = vae.posterior, IMAGES[:2].double()
    with torch.no_grad():
        coding.vectors_of.mul_(5)  # so that the codes matter
    every = torch.cartesian_prod(*[torch.arange(2)] * coding.places)[:, :, None]  # 2⁹ maps of 3×3
    z = coding.flat(coding.vectors(every))
    with torch.no_grad():
        log_p = torch.stack([vae.decode(z).log_prob(image) for image in x], 1) - coding.places * math.log(2)
    exact = log_p.logsumexp(0)
    found = importance_likelihood(vae, [(x, LABELS[:2])], 4000)
    assert ((found.log_p - exact).abs() < 6 * found.error + 1e-9).all()
    assert (found.elbo <= found.log_p).all()
