import math

import pytest
import torch
from scipy.integrate import quad

from vae.likelihoods import Bernoulli, Gaussian

SHAPE = (4, 3, 5, 2)
PIXELS = 3 * 5 * 2


def images(kind: str) -> torch.Tensor:
    grey = torch.rand(SHAPE, dtype=torch.float64)
    return grey.round() if kind == "binary" else grey


def params() -> torch.Tensor:
    return 2 * torch.randn(SHAPE, dtype=torch.float64)


@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian(0.1), Gaussian("learned")])
def test_one_density_an_image(likelihood):
    p_x = likelihood.double()(params())
    assert (p_x.batch_shape, p_x.event_shape) == (SHAPE[:1], SHAPE[1:])
    assert p_x.mean.shape == SHAPE and p_x.log_prob(images("grey")).shape == SHAPE[:1]
    assert ((p_x.mean > 0) & (p_x.mean < 1)).all()


def test_bernoulli_is_torch_s_own_of_each_pixel():
    logits, x = params(), images("binary")
    reference = torch.distributions.Bernoulli(probs=torch.sigmoid(logits)).log_prob(x).sum((1, 2, 3))
    assert torch.allclose(Bernoulli()(logits).log_prob(x), reference)


@pytest.mark.parametrize("kind", ["binary", "grey"])
def test_bernoulli_is_binary_cross_entropy(kind):
    logits, x = params(), images(kind)
    mean = 1 / (1 + (-logits).exp())
    cross_entropy = -(x * mean.log() + (1 - x) * (1 - mean).log())
    assert torch.allclose(-Bernoulli()(logits).log_prob(x), cross_entropy.sum((1, 2, 3)))


def test_bernoulli_stays_finite_for_sure_pixels():
    p_x = Bernoulli()(torch.full(SHAPE, 200.0))
    assert torch.allclose(p_x.log_prob(torch.zeros(SHAPE)), torch.tensor(-200.0 * PIXELS))


@pytest.mark.parametrize("sigma", [0.03, 0.5, 2, "learned"])
def test_gaussian_is_torch_s_own_in_all_its_nats(sigma):
    logits, x = params(), images("grey")
    value = 1.0 if sigma == "learned" else sigma
    covariance = value**2 * torch.eye(PIXELS, dtype=torch.float64)
    joint = torch.distributions.MultivariateNormal(torch.sigmoid(logits).flatten(1), covariance)
    assert torch.allclose(Gaussian(sigma).double()(logits).log_prob(x), joint.log_prob(x.flatten(1)), rtol=1e-5)


@pytest.mark.parametrize("sigma", [0.1, 1.7])
def test_gaussian_integrates_to_one(sigma):
    p_x = Gaussian(sigma).double()(torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64))

    def density(x: float) -> float:
        return p_x.log_prob(torch.full((1, 1, 1, 1), x, dtype=torch.float64)).exp().item()

    area, error = quad(density, -20, 20, points=[0.5, 0.6])
    assert abs(area - 1) < max(1e-8, error)


def test_a_variance_of_one_half_is_the_squared_error_and_a_constant():
    logits, x = params(), images("grey")
    squares = ((x - torch.sigmoid(logits)) ** 2).sum((1, 2, 3))
    recon = -Gaussian(0.5**0.5).double()(logits).log_prob(x)
    assert torch.allclose(recon, squares + PIXELS / 2 * math.log(math.pi), rtol=1e-6)


def test_samples_have_the_deviation_that_was_asked_for(mean_is):
    logits = torch.randn(1, 1, 2, 2, dtype=torch.float64)
    p_x = Gaussian(0.3).double()(logits)
    x = p_x.sample((20_000,))
    mean_is(x, torch.sigmoid(logits))
    mean_is((x - torch.sigmoid(logits)) ** 2, torch.full_like(logits, 0.3**2))


def test_a_learned_sigma_becomes_the_rms_error_and_a_fixed_one_stays():
    logits, x = params(), images("grey")
    learned, fixed = Gaussian("learned").double(), Gaussian(0.2).double()
    assert not any(weight.requires_grad for weight in fixed.parameters())
    optimizer = torch.optim.LBFGS(learned.parameters(), max_iter=50)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = -learned(logits).log_prob(x).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    rms = ((x - torch.sigmoid(logits)) ** 2).mean().sqrt().item()
    assert learned(logits).base_dist.stddev.unique().item() == pytest.approx(rms, rel=1e-4)
    assert rms != pytest.approx(1, abs=0.1)
    assert fixed(logits).base_dist.stddev.unique().item() == pytest.approx(0.2, rel=1e-6)
