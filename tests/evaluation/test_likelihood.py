import math
from typing import Any

import pytest
import torch
from models import IMAGES, MORE_PRIORS, PRIORS, SHAPE, Exact, N, exact_elbo, linear_gaussian, made
from torch import Tensor, nn
from torch.distributions import Normal

from vae.evaluation import likelihood
from vae.evaluation.likelihood import bits_per_dimension, dequantised, importance_likelihood, weighed
from vae.model.backbones import Dense
from vae.model.distributions import DiagonalNormal
from vae.model.levels import Level
from vae.model.likelihoods import Bernoulli, Gaussian
from vae.model.posteriors import Diagonal
from vae.model.priors import Isotropic
from vae.model.vae import VAE


def batch(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(x, torch.zeros(len(x)).long())]


class Given(nn.Module):
    """Only what importance sampling asks of a model: log p(x|z) is what it is told, prior and posterior are one."""

    is_certain = False

    def __init__(self, log_weights: Tensor):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.log_weights = iter(log_weights)  # (draws, n)

    def p(self, labels: Tensor) -> DiagonalNormal:
        return DiagonalNormal(torch.zeros(1), torch.ones(1))

    def q(self, x: Tensor, labels: Tensor) -> DiagonalNormal:
        return DiagonalNormal(torch.zeros(len(x), 1), torch.ones(len(x), 1))

    def decode(self, z: Tensor, labels: Tensor) -> "Given":
        self.draws = len(z)
        return self

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.stack([next(self.log_weights) for _ in range(self.draws)])


def too_wide(prior: str) -> tuple[VAE, Tensor, Tensor]:
    """A linear model whose posterior has twice the exact variances: its weights have a variance, as few others do."""
    vae, x, log_p = linear_gaussian(prior, "exact")
    assert isinstance(vae.posterior, Exact)
    vae.posterior.covariance = 2 * vae.posterior.covariance
    return vae, x, log_p


@pytest.mark.parametrize("prior", PRIORS)
def test_the_evidence_of_a_linear_model_is_found(prior):
    vae, x, log_p = too_wide(prior)
    found = importance_likelihood(vae, batch(x.expand(50, *SHAPE)), 2000)
    assert all(part.shape == (50,) and part.dtype == torch.float64 for part in found)
    assert ((found.log_p - log_p).abs() <= 6 * found.error).all() and (found.error < 0.05).all()
    assert ((found.ess > 1) & (found.ess < 2000)).all()


@pytest.mark.parametrize("prior", PRIORS)
def test_draws_from_the_exact_posterior_are_all_equal(prior):
    vae, x, log_p = linear_gaussian(prior, "exact")
    found = importance_likelihood(vae, batch(x), 100)
    assert torch.allclose(found.log_p, log_p) and torch.allclose(found.elbo, log_p)
    assert found.error.item() < 1e-6 and found.ess.item() == pytest.approx(100)


def test_the_elbo_is_that_of_the_formula_and_no_higher_than_the_evidence(mean_is):
    vae, x, log_p = linear_gaussian("correlated", "tied")
    found = importance_likelihood(vae, batch(x.expand(400, *SHAPE)), 100)
    mean_is(found.elbo, exact_elbo(vae, x).detach())
    assert (found.log_p >= found.elbo).all()  # of the same draws, by Jensen's inequality
    assert exact_elbo(vae, x) < log_p - 0.01


def test_the_error_is_how_far_repetitions_scatter():
    vae, x, log_p = too_wide("isotropic")
    found = importance_likelihood(vae, batch(x.expand(2000, *SHAPE)), 200)
    scatter = found.log_p.std().item()
    assert found.error.square().mean().sqrt().item() == pytest.approx(scatter, rel=0.1)  # itself known to 1/√4000
    assert 0.9 < ((found.log_p - log_p).abs() < 2 * found.error).double().mean() < 0.98


def test_more_draws_raise_the_estimate():
    vae, x, log_p = too_wide("isotropic")
    many = batch(x.expand(2000, *SHAPE))
    means = [importance_likelihood(vae, many, samples).log_p.mean() for samples in (1, 4, 16, 64)]
    assert means == sorted(means) and means[0] < means[-1] - 0.1
    assert means[-1] < log_p + 0.05


def test_portions_of_draws_add_up(monkeypatch):
    vae, x, _ = linear_gaussian("correlated", "diagonal")
    images = batch(x.expand(8, *SHAPE))  # 16 numbers of noise a draw, which torch makes 16 at a time
    decoded = []
    monkeypatch.setattr(vae, "decode", lambda z, labels: decoded.append(len(z)) or VAE.decode(vae, z, labels))
    found = []
    for portion in (1000, 7, 1, 0):
        monkeypatch.setattr(likelihood, "DECODED", portion * 8 * math.prod(SHAPE))
        torch.manual_seed(1)
        found.append(importance_likelihood(vae, images, 20))
    assert decoded == [20, 7, 7, 6, *[1] * 40]
    for other in found[1:]:
        for part, expected in zip(other, found[0], strict=True):
            assert torch.allclose(part, expected)


def test_each_batch_is_encoded_once_and_every_image_has_its_place():
    vae = made("dense", "isotropic", "diagonal", "bernoulli").double()
    x = torch.rand(5, *IMAGES).round()
    calls = []
    vae.backbone.encoder.register_forward_hook(lambda *_: calls.append(1))
    whole = importance_likelihood(vae, batch(x), 3000)
    parts = importance_likelihood(vae, [*batch(x[:2]), *batch(x[2:])], 3000)
    assert len(calls) == 3
    error = (whole.error**2 + parts.error**2).sqrt()
    assert ((whole.log_p - parts.log_p).abs() < 6 * error).all()
    assert (whole.log_p - whole.log_p.flip(0)).abs().max() > 20 * error.max()


@pytest.mark.parametrize("offset", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("portion", [1, 4])
def test_weights_of_any_size_neither_overflow_nor_vanish(offset, portion, monkeypatch):
    monkeypatch.setattr(likelihood, "DECODED", portion * 3)
    log_w = torch.tensor([[0, -1e3, 0], [-1e3, 0, 0], [-1e3, -1e3, 0], [-1e3, math.log(3), 0]], dtype=torch.float64)
    model: Any = Given(offset + log_w)
    found = importance_likelihood(model, batch(torch.zeros(3, 1, 1, 1)), 4)
    assert torch.allclose(found.log_p - offset, torch.tensor([-math.log(4), 0, 0], dtype=torch.float64))
    assert torch.allclose(found.ess, torch.tensor([1, 16 / 10, 4], dtype=torch.float64))
    assert torch.allclose(found.elbo - offset, log_w.mean(0))
    # Of weights w: √(Var[w] / k) / mean(w), with the variance of a sample.
    w = log_w.exp()
    assert torch.allclose(found.error, w.std(0) / 2 / w.mean(0), atol=1e-6)


def test_a_single_draw_is_the_elbo_and_has_no_error():
    vae, x, _ = linear_gaussian("isotropic", "full")
    found = importance_likelihood(vae, batch(x), 1)
    assert torch.equal(found.log_p, found.elbo) and found.ess.item() == pytest.approx(1) and found.error.isnan().all()


def test_any_other_proposal_will_do():
    vae, x, log_p = linear_gaussian("correlated", "full")
    proposal = DiagonalNormal(torch.zeros(20, N).double(), 2 * torch.ones(20, N).double())
    with torch.no_grad():
        found = weighed(vae, x.expand(20, *SHAPE), torch.zeros(20), proposal, vae.prior(), 20_000)
    assert ((found.log_p - log_p).abs() <= 6 * found.error).all() and (found.error < 0.5).all()


@pytest.mark.parametrize("prior", PRIORS | MORE_PRIORS)
def test_any_prior_against_the_sum_over_a_grid(prior):
    vae = made("dense", prior, "full", "bernoulli").double()
    nn.init.constant_(vae.posterior.factor.bias[:N], 0.7)  # about twice as wide as the prior
    x = torch.rand(3, *IMAGES, dtype=torch.float64).round()
    found = importance_likelihood(vae, batch(x), 2000)
    side = torch.linspace(-15, 15, 151, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        joint = vae.decode(grid[:, None]).log_prob(x) + vae.prior().log_prob(grid)[:, None]
    expected = joint.logsumexp(0) + 2 * math.log(0.2)
    assert ((found.log_p - expected).abs() <= 6 * found.error + 1e-3).all() and (found.error < 0.3).all()


def test_a_conditional_model_is_told_the_label():
    vae = VAE(Dense(SHAPE, N, hidden=[8], classes=3), [Level(Isotropic(N), Diagonal(8, N), N)], Bernoulli()).double()
    nn.init.normal_(vae.backbone.decoder[0].weight[:, N:], std=5.0)
    x, labels = torch.rand(1, *SHAPE).round().expand(3, *SHAPE), torch.tensor([2, 0, 1])
    found = importance_likelihood(vae, [(x, labels)], 2000)
    again = importance_likelihood(vae, [(x.flip(0), labels.flip(0))], 2000)
    assert ((found.log_p - again.log_p.flip(0)).abs() < 6 * (found.error + again.error.flip(0))).all()
    assert (found.log_p - found.log_p.roll(1)).abs().min() > 0.1


def test_the_model_is_left_as_it_was_and_gives_its_precision():
    backbone = Dense(SHAPE, N, hidden=[4])
    vae = VAE(backbone, [Level(Isotropic(N), Diagonal(4, N), N)], Gaussian("optimal"))
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    for dtype in (torch.float32, torch.float64):
        seen = []
        hook = backbone.encoder.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].dtype))  # noqa: B023
        found = importance_likelihood(vae.to(dtype), batch(torch.rand(4, *SHAPE)), 8)
        hook.remove()
        assert seen == [dtype] and found.log_p.dtype == torch.float64 and not found.log_p.requires_grad
    assert vae.training and all(module.training for module in vae.modules())
    assert all(torch.equal(value.float(), before[name].float()) for name, value in vae.state_dict().items())


# Bits -----------------------------------------------------------------------------------------------------------------


def test_a_fair_coin_takes_one_bit():
    log_p = torch.full((7,), 12 * math.log(0.5))
    assert bits_per_dimension(log_p, (1, 3, 4), "binary", "binary") == pytest.approx(1)


@pytest.mark.parametrize("pixels", ["grey", "binary"])
def test_equal_probabilities_of_all_levels_take_eight_bits(pixels):
    log_p = torch.full((7,), -12 * math.log(256))
    assert bits_per_dimension(log_p, (3, 2, 2), pixels, "levels") == pytest.approx(8)


def test_a_uniform_density_takes_eight_bits():
    assert bits_per_dimension(torch.zeros(7), (3, 2, 2), "dequantised", "unit") == pytest.approx(8)


def test_dequantised_pixels_fill_their_level_evenly():
    torch.manual_seed(0)
    levels = torch.tensor([0, 7, 255]).repeat(4000, 1)
    found = dequantised(levels / 255) * 256
    assert torch.equal(found.floor().long(), levels)
    torch.testing.assert_close((found - levels).mean(0), torch.full((3,), 0.5), atol=0.03, rtol=0)


def test_bits_are_a_bound_on_those_of_the_levels_probabilities():
    """The probability of a level under a density is its integral over the level's cell."""
    pixel = Normal(0.4, 0.05)
    levels = torch.arange(256)
    probability = pixel.cdf((levels + 1) / 256) - pixel.cdf(levels / 256)
    v = probability.multinomial(200_000, replacement=True)
    log_p = pixel.log_prob((v + torch.rand(len(v))) / 256)
    found = bits_per_dimension(log_p, (1, 1, 1), "dequantised", "unit")
    exact = -probability[v].log2().mean().item()
    assert exact <= found < exact + 0.01


@pytest.mark.parametrize(
    ("pixels", "of"),
    [("grey", "binary"), ("grey", "unit"), ("binary", "unit"), ("dequantised", "binary"), ("dequantised", "levels")],
)
def test_there_are_no_bits_of_what_is_no_probability(pixels, of):
    assert bits_per_dimension(torch.zeros(7), (1, 2, 2), pixels, of) is None


def test_pixels_are_one_of_three_kinds():
    with pytest.raises(ValueError, match=r"^pixels=gray: must be one of binary, dequantised, grey$"):
        bits_per_dimension(torch.zeros(7), (1, 2, 2), "gray", "binary")


def test_probabilities_of_all_binary_images_add_up_to_one():
    """What entitles a Bernoulli's log p(x) to be called bits."""
    vae = VAE(Dense((1, 1, 3), N, hidden=[4]), [Level(Isotropic(N), Diagonal(4, N), N)], Bernoulli()).double()
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).view(8, 1, 1, 3)
    found = importance_likelihood(vae, batch(x), 20_000)
    assert found.log_p.exp().sum().item() == pytest.approx(1, abs=6 * (found.log_p.exp() * found.error).norm().item())
