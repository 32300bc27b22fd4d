import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from vae.evaluation import theory


@pytest.mark.parametrize("latent_dim", [1, 4])
def test_the_linear_toy_s_truth_is_that_of_the_joint_gaussian(latent_dim):
    toy = theory.linear_toy(latent_dim, pixels=6, noise=0.7)
    w, x = next(toy.vae.backbone.decoder.parameters()).detach(), toy.x.flatten()
    marginal = w @ w.T + 0.49 * torch.eye(6).double()
    assert toy.log_p == pytest.approx(MultivariateNormal(torch.zeros(6).double(), marginal).log_prob(x).item())
    gain = w.T @ marginal.inverse()
    covariance = torch.eye(latent_dim).double() - gain @ w
    q = toy.vae.encode(toy.x)
    assert torch.allclose(q.mean[0], gain @ x)
    assert torch.allclose(q.variance[0], 1 / covariance.inverse().diagonal())  # the best of independent dimensions
    p_x = toy.vae.decode(q.mean)
    assert torch.allclose(p_x.mean.flatten(), w @ q.mean[0]) and p_x.stddev.unique().tolist() == [0.7]


def test_the_curve_s_image_is_as_its_formula():
    z = torch.tensor([[-2.0], [3.0]], dtype=torch.float64)
    expected = torch.tensor([[4.0, -1.0], [9.0, 1.5]], dtype=torch.float64)
    assert torch.equal(theory.Curve(tilt=0.5)(z), expected.view(2, 1, 1, 2))


@pytest.mark.parametrize("latent_dim", [1, 3, 12])
def test_both_gradients_are_unbiased_and_as_noisy_as_the_formulas_say(latent_dim, mean_is):
    scale = 0.5
    found = theory.gradients(latent_dim, scale, draws=40_000)
    for each, variance in zip(found, (scale**2 * (latent_dim + 2) * (latent_dim + 4) / 4, scale**2), strict=True):
        mean_is(each, torch.tensor(0.0))
        mean_is(each.square(), torch.tensor(variance, dtype=torch.float64))


@pytest.mark.parametrize(("beta", "noise"), [(0.3, 1.0), (1.0, 1.0), (2.0, 0.8), (9.0, 0.5), (3.0, 2.0)])
def test_the_best_linear_model_spends_what_the_formula_says(beta, noise):
    variances = torch.tensor([5.0, 2.5, 1.3, 0.4], dtype=torch.float64)
    found = theory.linear_optimum(variances, noise, beta)
    assert torch.allclose(found, theory.water_filling(variances, noise, beta), atol=1e-4)
    assert ((found > 1e-3) == (variances > beta * noise**2)).all()


@pytest.mark.parametrize("variance", [0.5, 0.99, 1.01, 3.0])
def test_a_component_is_used_from_the_threshold_on(variance):
    """With the true posterior of a weight w the loss is −log N(x; 0, w² + t), on average over x of that variance."""
    t = 1.0
    w = torch.linspace(0, 3, 30_001, dtype=torch.float64)
    loss = 0.5 * (variance / (w**2 + t) + (w**2 + t).log())
    best = w[loss.argmin()].item()
    assert best == pytest.approx(math.sqrt(max(0.0, variance - t)), abs=1e-3)
    assert (theory.water_filling(torch.tensor([variance]), 1.0, t).item() > 0) == (best > 0)


# Divergences ----------------------------------------------------------------------------------------------------------

Z = torch.linspace(-5, 5, 801, dtype=torch.float64)


@pytest.mark.parametrize(("name", "divergence"), theory.DIVERGENCES, ids=[name for name, _ in theory.DIVERGENCES])
def test_of_a_gaussian_the_nearest_is_itself(name: str, divergence: theory.Divergence) -> None:
    p = torch.distributions.Normal(0.4, 0.9).log_prob(Z).exp()
    assert theory.nearest_normal(Z, p, divergence) == pytest.approx((0.4, 0.9), abs=0.06)


def test_maximum_likelihood_has_the_moments_and_transport_the_mean() -> None:
    p, chosen = theory.two_modes(Z), dict(theory.DIVERGENCES)
    weights = p / p.sum()
    mean = (weights * Z).sum().item()
    deviation = (weights * (Z - mean) ** 2).sum().sqrt().item()
    found = {name: theory.nearest_normal(Z, p, chosen[name]) for name in chosen}
    assert found["KL(p ‖ q): maximum likelihood"] == pytest.approx((mean, deviation), abs=0.06)
    assert found["W₂: wasserstein"][0] == pytest.approx(mean, abs=0.06)
    assert found["KL(q ‖ p): elbo"] == pytest.approx((-1.5, 0.5), abs=0.1)  # one mode alone


def test_divergences_of_two_gaussians_are_their_formulas() -> None:
    a, b = torch.distributions.Normal(-0.3, 0.8), torch.distributions.Normal(0.5, 0.6)
    q, p = (each.log_prob(Z.float()).exp().double() for each in (a, b))
    kl = torch.distributions.kl_divergence(a, b).item()
    assert theory.kl_of(q, p, Z).item() == pytest.approx(kl, rel=1e-3)
    assert theory.renyi_of(0.999)(q, p, Z).item() == pytest.approx(kl, rel=5e-3)
    assert theory.wasserstein_of(q, p, Z).item() == pytest.approx(0.8**2 + 0.2**2, abs=0.01)
    assert theory.mmd_of(q, q, Z).item() == 0 and theory.mmd_of(q, p, Z) > 0.01
    assert 0 < theory.jensen_shannon(q, p, Z) < math.log(2)
