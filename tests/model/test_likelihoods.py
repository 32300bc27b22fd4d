import math

import numpy as np
import pytest
import torch
from models import terms
from scipy.integrate import quad

from vae.model.build import build_model
from vae.model.likelihoods import Bernoulli, ContinuousBernoulli, Gaussian, Likelihood

SHAPE = (4, 3, 5, 2)
PIXELS = 3 * 5 * 2


def images(kind: str) -> torch.Tensor:
    grey = torch.rand(SHAPE, dtype=torch.float64)
    return grey.round() if kind == "binary" else grey


def params() -> torch.Tensor:
    return 2 * torch.randn(SHAPE, dtype=torch.float64)


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize(
    "make", [Bernoulli, ContinuousBernoulli, *(lambda s=s: Gaussian(s) for s in (0.1, "learned", "optimal"))]
)
def test_one_density_an_image(make, mode):
    likelihood, x = make().double().train(mode), images("grey")
    p_x = likelihood(params())
    assert (p_x.batch_shape, p_x.event_shape) == (SHAPE[:1], SHAPE[1:])
    assert p_x.mean.shape == p_x.sample().shape == SHAPE
    assert p_x.log_prob(x).shape == SHAPE[:1] and p_x.log_prob(x).dtype == torch.float64
    assert ((p_x.mean > 0) & (p_x.mean < 1)).all()
    several = torch.stack([params(), params()])  # as of two samples of z for each image
    assert likelihood(several).log_prob(x).shape == (2, *SHAPE[:1])
    if not mode:
        expected = [likelihood(each).log_prob(x) for each in several]
        assert torch.allclose(likelihood(several).log_prob(x), torch.stack(expected))


def test_bernoulli_is_torch_s_own_of_each_pixel():
    logits, x = params(), images("binary")
    reference = torch.distributions.Bernoulli(probs=torch.sigmoid(logits)).log_prob(x).sum((1, 2, 3))
    assert torch.allclose(Bernoulli()(logits).log_prob(x), reference)


def test_bernoulli_and_its_gradient_are_torch_s_own_to_the_last_bit():
    logits, x = torch.stack([params(), params()]).requires_grad_(), images("grey")  # two samples for each image
    reference = torch.distributions.Bernoulli(logits=logits, validate_args=False)
    expected = torch.distributions.Independent(reference, 3, validate_args=False).log_prob(x)
    found = Bernoulli()(logits).log_prob(x)
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad(each.mean(), logits)[0] for each in (found, expected)]
    assert torch.equal(*gradients)
    assert torch.equal(Bernoulli()(logits[0]).log_prob(torch.stack([x, x])), torch.stack([found[0], found[0]]))


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


# Continuous Bernoulli -------------------------------------------------------------------------------------------------

LOGITS = [-100, -40, -16, -5, -0.11, -0.09, -1e-3, 0, 1e-7, 1e-3, 0.09, 0.11, 1, 5, 16, 40, 100]


def pixel(logit: float, count: int, dtype: torch.dtype = torch.float64) -> torch.distributions.Distribution:
    return ContinuousBernoulli()(torch.full((count, 1, 1, 1), logit, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_integrates_to_one_and_has_its_mean(logit, dtype):
    """Also where decoders are sure, for which single precision loses 0.9 nats a pixel in torch's formula."""
    cells = 20_000
    x = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    p_x = pixel(logit, cells, dtype)
    mass = p_x.log_prob(x.to(dtype).view(-1, 1, 1, 1)).double().exp() / cells
    assert mass.sum().item() == pytest.approx(1, abs=2e-5)
    assert p_x.mean[0].item() == pytest.approx((mass * x).sum().item(), abs=2e-5)


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_is_the_paper_s_formula(logit):
    """p(x) = C(λ) λˣ (1 − λ)¹⁻ˣ with C(λ) = 2 artanh(1 − 2λ) / (1 − 2λ)."""
    x = np.linspace(0, 1, 11)
    found = pixel(logit, 11).log_prob(torch.from_numpy(x).view(-1, 1, 1, 1)).numpy()
    # In long doubles, and with the limit 2 of C at ½; 1 − 2λ = −tanh(logit / 2), whose artanh is −logit / 2.
    logit = np.longdouble(logit)
    log_c = np.log(logit / np.tanh(logit / 2)) if logit else np.log(2)
    expected = log_c - x * np.log1p(np.exp(-logit)) - (1 - x) * np.log1p(np.exp(logit))
    assert np.allclose(found, expected.astype(float), rtol=0, atol=1e-9)


@pytest.mark.parametrize("logit", [-9, -1, -0.1, 0.0, 0.003, 2, 9])
def test_continuous_bernoulli_is_torch_s_own_where_that_is_exact(logit):
    logits, x = torch.full((1, 1, 1, 9), logit, dtype=torch.float64), torch.linspace(0, 1, 9).double().view(1, 1, 1, 9)
    reference, p_x = torch.distributions.ContinuousBernoulli(logits=logits), ContinuousBernoulli()(logits)
    assert torch.allclose(p_x.log_prob(x), reference.log_prob(x).sum((1, 2, 3)), rtol=1e-9)
    assert torch.allclose(p_x.mean, reference.mean, rtol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_continuous_bernoulli_is_the_error_of_its_mean(dtype):
    """As of every exponential family: ∂ log p(x) / ∂ logit = x − E[x]."""
    logits = torch.tensor(LOGITS, dtype=dtype).view(1, 1, 1, -1).requires_grad_()
    p_x, x = ContinuousBernoulli()(logits), torch.rand(1, 1, 1, len(LOGITS), dtype=dtype)
    (gradient,) = torch.autograd.grad(p_x.log_prob(x).sum(), logits)
    assert torch.allclose(gradient, x - p_x.mean, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-7)
    (variance,) = torch.autograd.grad(p_x.mean.sum(), logits)  # ∂ E[x] / ∂ logit
    assert (variance > 0).all() and variance.max() == pytest.approx(1 / 12, rel=1e-4)


def test_samples_of_continuous_bernoulli_have_its_mean(mean_is):
    logits = torch.tensor([-100.0, -40, -8, -1, -1e-3, 0, 0.5, 8, 100], dtype=torch.float64).view(1, 1, 1, 9)
    p_x = ContinuousBernoulli()(logits)
    mean_is(p_x.sample((20_000,)), p_x.mean)
    mean_is(ContinuousBernoulli()(logits.float()).sample((20_000,)).double(), p_x.mean)


# The optimal σ --------------------------------------------------------------------------------------------------------


def test_the_optimal_sigma_makes_a_training_batch_most_likely():
    logits, x = params(), images("grey")
    found = Gaussian("optimal").double()(logits).log_prob(x).sum()
    normal, sigmas = torch.distributions.Normal, np.geomspace(0.05, 2, 1001).tolist()
    each = {sigma: normal(torch.sigmoid(logits), sigma).log_prob(x).sum() for sigma in sigmas}
    best = max(each, key=lambda sigma: each[sigma])
    assert best == pytest.approx(((x - torch.sigmoid(logits)) ** 2).mean().sqrt().item(), rel=0.01)
    assert each[best] <= found < each[best] + 0.01


def test_the_gradient_at_the_optimal_sigma_is_that_of_the_log_of_the_squared_error():
    logits, x = params().requires_grad_(), images("grey")
    (found,) = torch.autograd.grad(Gaussian("optimal").double()(logits).log_prob(x).sum(), logits)
    loss = -x.numel() / 2 * ((x - torch.sigmoid(logits)) ** 2).mean().log()
    (expected,) = torch.autograd.grad(loss, logits)
    assert torch.allclose(found, expected) and found.any()


def learn(likelihood, logits, x):
    """What a training step does."""
    p_x = likelihood(logits)
    before = likelihood.log_sigma.clone()
    recon = -p_x.log_prob(x)
    assert torch.equal(likelihood.log_sigma, before)  # a forward pass changes nothing
    likelihood.observe(terms(recon, p_x=p_x))


def test_outside_of_training_the_optimal_sigma_is_the_running_one_and_no_image_has_a_say():
    likelihood, logits, x = Gaussian("optimal").double(), params(), images("grey")
    rms = ((x - torch.sigmoid(logits)) ** 2).mean().sqrt()
    learn(likelihood, logits, x)
    assert torch.allclose(likelihood.log_sigma, rms.log())
    for count in range(2, 301):  # all other batches have half the error
        learn(likelihood, logits, torch.sigmoid(logits) + 0.5 * (x - torch.sigmoid(logits)))
        if count <= 5:
            assert torch.allclose(likelihood.log_sigma, rms.log() - (count - 1) / count * math.log(2))
    assert torch.allclose(likelihood.log_sigma.exp(), 0.5 * rms, rtol=1e-6)

    likelihood.eval()
    before = likelihood.log_sigma.clone()
    fixed = Gaussian(before.exp().item()).double()
    for image in (x, torch.zeros(SHAPE, dtype=torch.float64), x[:1]):
        expected = fixed(logits[: len(image)]).log_prob(image)
        assert torch.allclose(likelihood(logits[: len(image)]).log_prob(image), expected)
    assert torch.equal(likelihood.log_sigma, before)


def test_the_running_sigma_is_stored_and_no_weight():
    likelihood, other = Gaussian("optimal"), Gaussian("optimal").eval()
    learn(likelihood, params().float(), images("grey").float())
    assert not list(likelihood.parameters()) and likelihood.log_sigma < 0
    other.load_state_dict(likelihood.state_dict())
    p_x = other(torch.zeros(SHAPE))
    assert torch.allclose(p_x.base_dist.stddev, likelihood.log_sigma.exp())
    assert torch.equal(other.batches, torch.tensor(1))


def test_a_perfect_reconstruction_leaves_the_optimal_sigma_finite():
    logits = params().requires_grad_()
    value = Gaussian("optimal").double()(logits).log_prob(torch.sigmoid(logits.detach())).sum()
    assert value.isfinite() and torch.autograd.grad(value, logits)[0].isfinite().all()


# Several parameters a pixel -------------------------------------------------------------------------------------------


class Spread(Likelihood):
    """N(sigmoid(a), σ(b)²) of each pixel, with planes (a, b)."""

    def planes(self, channels: int) -> int:
        return 2 * channels

    def parameters_of(self, mean: torch.Tensor) -> torch.Tensor:
        return torch.cat([mean.logit(eps=1e-3), torch.zeros_like(mean)])

    def forward(self, params: torch.Tensor) -> torch.distributions.Distribution:
        logits, log_sigma = params.chunk(2, dim=-3)
        return torch.distributions.Independent(torch.distributions.Normal(logits.sigmoid(), log_sigma.exp()), 3)


@pytest.mark.parametrize("backbone", ["dense", "conv"])
def test_a_likelihood_says_how_many_parameters_a_pixel_has(compose, monkeypatch, backbone):
    monkeypatch.setattr("vae.model.likelihoods.Bernoulli", Spread)
    model, x = build_model(compose("data=strokes", f"backbone={backbone}"), (3, 8, 10), 0), torch.rand(6, 3, 8, 10)
    model.start_at(x, torch.zeros(6))
    list(model.backbone.decoder.parameters())[-2].data.zero_()  # what is left is the bias
    expected = x.mean(0) if backbone == "dense" else x.mean((0, 2, 3))[:, None, None].expand(3, 8, 10)
    p_x = model.decode(torch.zeros(1, 2))
    assert torch.allclose(p_x.mean[0], expected, atol=1e-6) and torch.equal(p_x.stddev[0], torch.ones(3, 8, 10))
    model(x).total.mean().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
