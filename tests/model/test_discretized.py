"""Probabilities of levels, against numpy in double precision, and their sums over all levels and colours."""

import itertools
import math

import numpy as np
import pytest
import torch
from models import IMAGES, POSTERIORS, PRIORS, N
from scipy.special import expit, logsumexp

from vae.model.backbones import Conv, Dense
from vae.model.discretized import LEVELS, START, DiscretizedLogistic, LogisticMixture
from vae.model.levels import Level
from vae.model.vae import VAE

EXTREME = [-300.0, -3.0, -1.0, -0.9999, 0.0, 0.37, 1.0, 3.0, 300.0]  # means
SCALES = [-300.0, -7.0, -5.0, -1.0, 2.0, 7.0, 300.0]  # logarithms
ENDS = list(itertools.product(EXTREME, SCALES))
BODIES = {
    "dense": lambda planes: Dense(IMAGES, N, hidden=[32, 16], planes=planes),
    "conv": lambda planes: Conv(IMAGES, N, channels=[8, 8], hidden=16, planes=planes),
}


def shades(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Every level of one grey pixel, (256, 1, 1, 1)."""
    return (torch.arange(LEVELS, dtype=dtype) / 255).view(-1, 1, 1, 1)


def planes(*values: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Parameters of a single pixel, (1, planes, 1, 1)."""
    return torch.tensor(values, dtype=dtype).view(1, -1, 1, 1)


def probabilities(loc: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
    """Of all levels, (…, 256), as differences of the distribution function at the bounds between them."""
    scale = np.exp(np.clip(log_scale, -7, 7))[..., None]
    bounds = (2 * np.arange(LEVELS - 1) + 1) / 255 - 1
    inner = (bounds - loc[..., None]) / scale
    below, above = expit(inner), expit(-inner)
    # From the side on which no digits cancel.
    differences = np.where(inner[..., 1:] < 0, np.diff(below), -np.diff(above))
    return np.concatenate([below[..., :1], differences, above[..., -1:]], -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("loc", "log_scale"), ENDS)
def test_probabilities_of_all_levels_add_up_to_one(loc, log_scale, dtype):
    log_p = DiscretizedLogistic()(planes(loc, log_scale, dtype=dtype)).log_prob(shades(dtype))
    assert log_p.isfinite().all() and (log_p <= 0).all()
    assert log_p.double().exp().sum().item() == pytest.approx(1, abs=1e-6)
    expected = probabilities(np.array(loc), np.array(log_scale))
    np.testing.assert_allclose(log_p.double().exp(), expected, atol=1e-6 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("components", [1, 10])
def test_a_mixture_of_random_parameters_adds_up_to_one(components):
    torch.manual_seed(0)
    likelihood = LogisticMixture(components)
    params = 3 * torch.randn(1, likelihood.planes(1), 20, 20, dtype=torch.float64)
    params[..., -3:, :] *= 100
    images = shades().expand(LEVELS, 1, 20, 20)
    # Of every pixel, by one pixel at a time.
    for row, column in itertools.product(range(0, 20, 3), range(20)):
        one = params[..., row : row + 1, column : column + 1]
        log_p = likelihood(one).log_prob(images[..., :1, :1])
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("sizes", [(0.3, 1.0), (3.0, 300.0)], ids=["usual", "extreme"])
def test_colours_of_a_pixel_add_up_to_one(monkeypatch, sizes):
    """On a grid of 12 levels, all of whose colours are listed."""
    torch.manual_seed(1)
    monkeypatch.setattr("vae.model.discretized.LEVELS", 12)
    monkeypatch.setattr("vae.model.discretized.HALF", 5.5)
    likelihood, shade = LogisticMixture(4), torch.arange(12, dtype=torch.float64) / 11
    colours = torch.cartesian_prod(shade, shade, shade).view(-1, 3, 1, 1)
    for size, _ in itertools.product(sizes, range(20)):
        params = size * torch.randn(1, likelihood.planes(3), 1, 1, dtype=torch.float64)
        assert likelihood(params).log_prob(colours).exp().sum().item() == pytest.approx(1, abs=1e-6)


def by_numpy(params: np.ndarray, levels: np.ndarray, components: int) -> float:
    """log p of one image (3, height, width) by the formula of PixelCNN++, pixel by pixel."""
    total, x = 0.0, 2 * levels / 255 - 1
    for row, column in np.ndindex(levels.shape[1:]):
        each = params[:, row, column].reshape(10, components)  # logits, 3 means, 3 log-scales, 3 slopes
        red, green, _ = x[:, row, column]
        slopes = np.tanh(each[7:])
        locs = np.stack([each[1], each[2] + slopes[0] * red, each[3] + slopes[1] * red + slopes[2] * green])
        log_p = each[0] - logsumexp(each[0])
        for channel in range(3):
            log_p = log_p + np.log(probabilities(locs[channel], each[4 + channel])[:, levels[channel, row, column]])
        total += logsumexp(log_p)
    return total


def test_a_mixture_is_the_paper_s_formula_and_bits_are_numpy_s():
    torch.manual_seed(2)
    likelihood = LogisticMixture(5)
    params = torch.randn(2, likelihood.planes(3), 4, 3, dtype=torch.float64)
    levels = torch.randint(0, LEVELS, (2, 3, 4, 3))
    found = likelihood(params).log_prob(levels / 255)
    expected = [by_numpy(params[i].numpy(), levels[i].numpy(), 5) for i in range(2)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)  # levels / 255 are in single precision


def test_one_component_of_grey_is_one_logistic():
    torch.manual_seed(3)
    params, x = torch.randn(4, 2, 5, 3, dtype=torch.float64), torch.randint(0, LEVELS, (4, 1, 5, 3)) / 255
    mixture = LogisticMixture(1)(torch.cat([torch.randn(4, 1, 5, 3), params], 1))
    single = DiscretizedLogistic()(params)
    assert torch.allclose(mixture.log_prob(x), single.log_prob(x)) and torch.allclose(mixture.mean, single.mean)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("make", [DiscretizedLogistic, lambda: LogisticMixture(3)], ids=["logistic", "mixture"])
def test_gradients_are_finite_at_both_ends(make, channels, dtype):
    likelihood = make()
    for value, log_scale in ENDS:
        params = torch.full((3, likelihood.planes(channels), 2, 2), value, dtype=dtype)
        params[:, params.shape[1] // 2 :] = log_scale
        params.requires_grad_()
        x = torch.tensor([0.0, 1.0, 0.5], dtype=dtype).view(3, 1, 1, 1).expand(3, channels, 2, 2)
        p_x = likelihood(params)
        for result in (p_x.log_prob(x).sum(), p_x.mean.sum()):
            (gradient,) = torch.autograd.grad(result, params, retain_graph=True)
            assert result.isfinite() and gradient.isfinite().all(), (value, log_scale)


def test_gradients_are_those_of_differences():
    torch.manual_seed(4)
    likelihood, x = LogisticMixture(2), torch.tensor([0, 128, 255]).view(1, 3, 1, 1) / 255
    params = torch.randn(1, likelihood.planes(3), 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda each: likelihood(each).log_prob(x.double()), params)


@pytest.mark.parametrize("spread", [-4.0, -2.5, 0.0])
@pytest.mark.parametrize("make", [DiscretizedLogistic, lambda: LogisticMixture(3)], ids=["logistic", "mixture"])
def test_samples_agree_with_the_density_of_each_level(make, spread):
    torch.manual_seed(5)
    likelihood, count = make(), 40_000
    params = torch.randn(1, likelihood.planes(1), 1, 1, dtype=torch.float64)
    first = 1 if likelihood.planes(1) == 2 else 6
    params[:, first:] += spread
    p_x = likelihood(params)
    drawn = (p_x.sample((count,)) * 255).flatten().round().long().bincount(minlength=LEVELS) / count
    p = p_x.log_prob(shades()).exp()
    assert ((drawn - p).abs() < 6 * (p * (1 - p) / count).sqrt() + 1 / count).all()


def test_samples_of_colours_agree_with_the_density(mean_is):
    """E[1 / p] over draws is the number of colours, on 6 levels; and the channels are drawn together."""
    torch.manual_seed(6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vae.model.discretized.LEVELS", 6)
        patch.setattr("vae.model.discretized.HALF", 2.5)
        likelihood, shade = LogisticMixture(3), torch.arange(6, dtype=torch.float64) / 5
        p_x = likelihood(torch.randn(1, likelihood.planes(3), 1, 1, dtype=torch.float64))
        p = p_x.log_prob(torch.cartesian_prod(shade, shade, shade).view(-1, 3, 1, 1)).exp()
        drawn = (p_x.sample((50_000,)) * 5).round().long().flatten(1)
    counts = (drawn * torch.tensor([36, 6, 1])).sum(1).bincount(minlength=216) / len(drawn)
    assert ((counts - p).abs() < 6 * (p / len(drawn)).sqrt() + 1 / len(drawn)).all()


@pytest.mark.parametrize(("loc", "log_scale"), ENDS)
def test_the_mean_is_that_of_the_levels_within_half_of_one(loc, log_scale):
    p_x = DiscretizedLogistic()(planes(loc, log_scale))
    exact = (p_x.log_prob(shades()).exp() * shades().flatten()).sum()
    assert 0 <= p_x.mean.item() <= 1
    assert abs(p_x.mean.item() - exact) <= 0.5 / 255 + 1e-6


def test_the_mean_of_a_mixture_is_that_of_its_samples(mean_is):
    torch.manual_seed(7)
    likelihood = LogisticMixture(3)
    params = 0.15 * torch.randn(1, likelihood.planes(3), 1, 1, dtype=torch.float64)
    params[:, 12:21] -= 4  # away from the ends of the scale
    p_x = likelihood(params)
    drawn = p_x.sample((40_000,))
    error = (drawn.mean(0) - p_x.mean).abs()
    assert (error < 6 * drawn.std(0) / 200 + 0.5 / 255).all()


def test_values_between_levels_are_of_the_nearest():
    p_x = DiscretizedLogistic()(planes(0.2, -2.0))
    near = torch.tensor([100.4, 99.6, -3.0, 256.0], dtype=torch.float64).view(-1, 1, 1, 1) / 255
    exact = torch.tensor([100.0, 100.0, 0.0, 255.0], dtype=torch.float64).view(-1, 1, 1, 1) / 255
    assert torch.equal(p_x.log_prob(near), p_x.log_prob(exact))


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("make", [DiscretizedLogistic, lambda: LogisticMixture(10)], ids=["logistic", "mixture"])
def test_training_begins_at_the_mean(make, channels):
    likelihood, mean = make(), torch.linspace(0.4, 0.6, channels * 6).view(channels, 2, 3)
    params = likelihood.parameters_of(mean)
    assert params.shape == (likelihood.planes(channels), 2, 3)
    p_x = likelihood(params[None])
    assert p_x.event_shape == (channels, 2, 3) and p_x.batch_shape == (1,)
    assert torch.allclose(p_x.mean[0], mean, atol=0.03)  # but for what the ends cut off
    flat = likelihood.parameters_of(mean.mean((1, 2)))
    assert flat.shape == (likelihood.planes(channels),)
    deviation = math.exp(START) * math.pi / math.sqrt(3)  # of a logistic, in [−1, 1]
    assert deviation == pytest.approx(0.5)


@pytest.mark.parametrize("make", [DiscretizedLogistic, lambda: LogisticMixture(4)], ids=["logistic", "mixture"])
@pytest.mark.parametrize("backbone", BODIES)
def test_any_backbone_trains_and_several_samples_are_each_its_own(backbone, make):
    torch.manual_seed(8)
    likelihood = make()
    body = BODIES[backbone](likelihood.planes(3))
    vae = VAE(body, [Level(PRIORS["isotropic"](), POSTERIORS["diagonal"](body.features, N), N)], likelihood)
    x = torch.randint(0, LEVELS, (5, *IMAGES)) / 255
    vae.start_at(x, torch.zeros(5).long())
    terms = vae(x)
    terms.total.mean().backward()
    for name, weight in vae.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name
    z = torch.randn(2, 5, N)
    several, each = vae.decode(z), [vae.decode(one) for one in z]
    assert several.log_prob(x).shape == (2, 5) and several.sample((7,)).shape == (7, 2, 5, *IMAGES)
    assert torch.allclose(several.log_prob(x), torch.stack([one.log_prob(x) for one in each]), rtol=1e-4)
    assert torch.allclose(several.mean, torch.stack([one.mean for one in each]), atol=1e-5)


@pytest.mark.parametrize("make", [DiscretizedLogistic, lambda: LogisticMixture(4)], ids=["logistic", "mixture"])
def test_mixed_precision_counts_in_32_bits(make):
    torch.manual_seed(9)
    likelihood = make()
    params, x = torch.randn(2, likelihood.planes(3), 4, 4).bfloat16(), torch.randint(0, LEVELS, (2, 3, 4, 4)) / 255
    with torch.autocast("cpu", torch.bfloat16):
        found, mean = likelihood(params).log_prob(x), likelihood(params).mean
    assert found.dtype == mean.dtype == torch.float32
    assert torch.allclose(found.double(), likelihood(params.double()).log_prob(x), rtol=1e-5)
