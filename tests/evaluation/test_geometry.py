import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from vae.evaluation.geometry import Geometry, ellipse, moments
from vae.model import draws as drawing
from vae.model.distributions import DiagonalNormal, FullNormal
from vae.model.draws import draws
from vae.model.priors import Correlated, Flow, Isotropic, Mixture

SIGMA = torch.tensor([[1.0, 0.4], [0.4, 0.5]], dtype=torch.float64)


def full(dtype=torch.float64):
    return FullNormal(torch.tensor([0.5, -1.0], dtype=dtype), torch.linalg.cholesky(SIGMA).to(dtype))


def mixture(dim=2):
    means = torch.stack([torch.full((dim,), -2.0), torch.full((dim,), 2.0)])
    return MixtureSameFamily(Categorical(torch.ones(2)), Independent(Normal(means, 0.5), 1))


def test_moments_of_gaussians_are_exact():
    mean, covariance = moments(full())
    assert torch.equal(mean, full().loc) and torch.allclose(covariance, SIGMA)
    mean, covariance = moments(DiagonalNormal(torch.zeros(4, 3), torch.full((4, 3), 2.0)))
    assert mean.shape == (4, 3) and torch.equal(covariance, 4 * torch.eye(3).expand(4, 3, 3))


def test_moments_of_others_come_from_draws():
    mean, covariance = moments(mixture(), samples=50_000)
    assert mean.abs().max() < 6 * 2.1 / 50_000**0.5
    expected = 4 * torch.ones(2, 2) + 0.25 * torch.eye(2)  # between the parts, and within
    assert (covariance - expected).abs().max() < 0.1


def test_marginals_of_a_gaussian_are_its_blocks():
    sigma = torch.tensor([[2.0, 0.3, 0.1], [0.3, 1.0, -0.2], [0.1, -0.2, 0.5]])
    prior = Geometry.of(FullNormal(torch.tensor([1.0, 2.0, 3.0]), torch.linalg.cholesky(sigma)))
    part = prior.marginal([2, 0])
    assert part.mean.tolist() == [3.0, 1.0]
    assert torch.allclose(part.covariance, sigma[[2, 0]][:, [2, 0]].double(), atol=1e-6)
    assert torch.allclose(prior.scale, torch.tensor([2.0, 1.0, 0.5]).double().sqrt(), atol=1e-6)


def test_the_density_of_a_gaussian_is_torchs():
    x, y = torch.linspace(-2, 2, 5).double(), torch.linspace(-1, 1, 4).double()
    density = Geometry.of(full()).density(x, y)
    assert density.shape == (5, 4)
    expected = MultivariateNormal(full().loc, SIGMA).log_prob(torch.stack([x[3], y[1]])).exp()
    assert torch.isclose(density[3, 1], expected)


@pytest.mark.parametrize("dims", [[0], [0, 1], [2, 1]])
def test_the_density_of_draws_integrates_to_one_and_has_both_modes(dims):
    part = Geometry.of(mixture(3)).marginal(dims)
    assert part.log_prob is None
    axes = [torch.linspace(-5, 5, 101).double()] * len(dims)
    density = part.density(*axes)
    assert abs(density.sum().item() * 0.1 ** len(dims) - 1) < 0.02
    middle, mode = density[(50,) * len(dims)], density[(70,) * len(dims)]
    assert mode > 20 * middle


def test_the_whole_of_a_mixture_keeps_its_log_prob():
    prior = Geometry.of(mixture())
    same = prior.marginal([0, 1])
    x = torch.linspace(-3, 3, 7).double()
    grid = torch.stack(torch.meshgrid(x, x, indexing="ij"), -1)
    assert torch.allclose(same.density(x, x), mixture().log_prob(grid.float()).exp().double(), atol=1e-6)
    assert prior.marginal([1, 0]).log_prob is None


@pytest.mark.parametrize("sigmas", [1, 2, 3])
def test_an_ellipse_is_at_its_mahalanobis_distance(sigmas):
    mean = torch.tensor([0.5, -1.0]).double()
    line = ellipse(mean, SIGMA, sigmas)
    distance = ((line - mean) @ SIGMA.inverse() * (line - mean)).sum(-1).sqrt()
    assert torch.allclose(distance, torch.full_like(distance, sigmas))
    assert torch.allclose(line[0], line[-1])


def test_an_ellipse_of_a_singular_covariance_is_flat():
    line = ellipse(torch.zeros(2).double(), torch.ones(2, 2).double(), 1)
    assert line.isfinite().all() and torch.allclose(line[:, 0], line[:, 1], atol=1e-6)


@pytest.mark.parametrize("sigmas", [1, 2])
def test_an_outline_of_a_mixture_holds_the_mass_of_an_ellipse(sigmas):
    from matplotlib.path import Path

    prior = Geometry.of(mixture())
    lines = prior.outline(sigmas)
    assert len(lines) == 2
    inside = sum(Path(line.numpy()).contains_points(prior.samples.numpy()).mean() for line in lines)
    assert abs(inside - (1 - math.exp(-0.5 * sigmas**2))) < 0.02


def uneven(prior):
    """A prior whose parameters are no longer those that it begins with."""
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return prior.requires_grad_(False)


PRIORS = {
    "isotropic": lambda: Isotropic(4),
    "correlated": lambda: Correlated(4),
    "full mixture": lambda: uneven(Mixture(4, 3, "full")),
    "diagonal mixture": lambda: uneven(Mixture(4, 3, "diagonal")),
    "spline flow": lambda: uneven(Flow(4, "nsf", 2, [8])),
    "affine flow": lambda: uneven(Flow(4, "maf", 2, [8])),
    "flow of one dimension": lambda: uneven(Flow(1, "nsf", 2, [8])),
    "flow of no layers": lambda: Flow(4, "nsf", 0, []),
}


@pytest.mark.parametrize("prior", PRIORS)
def test_draws_and_densities_in_parts_are_torchs(monkeypatch, prior):
    p = PRIORS[prior]()()
    torch.manual_seed(1)
    expected = p.sample(torch.Size([500]))
    monkeypatch.setattr(drawing, "CHUNK", 2000)
    monkeypatch.setattr(drawing, "SPLINES", 5)
    torch.manual_seed(1)
    assert torch.allclose(draws(p, 500), expected, atol=1e-5)
    torch.manual_seed(1)
    whole = Geometry.of(p, 500)
    if whole.samples is not None:
        assert torch.allclose(whole.mean, expected.double().mean(0), atol=1e-5)
        assert torch.allclose(whole.covariance, torch.atleast_2d(expected.double().T.cov()), atol=1e-4)
        z = expected[:60].reshape(3, 20, -1).double()
        assert torch.allclose(whole.log_prob(z), p.log_prob(z.float()).double(), atol=1e-4)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_a_component_that_is_never_chosen_is_never_drawn(covariance):
    prior = uneven(Mixture(2, 3, covariance))
    prior.logits.copy_(torch.tensor([-torch.inf, 0.0, -torch.inf]))
    z = draws(prior(), 20_000).double()
    assert torch.allclose(z.mean(0), prior.loc[1].double(), atol=0.1)
    assert torch.allclose(z.T.cov(), prior().component_distribution.covariance_matrix[1].double(), atol=0.2)


def test_a_flow_is_inverted_in_fewer_passes_than_it_has_dimensions(monkeypatch):
    p = uneven(Flow(40, "nsf", 2, [16]))()
    steps = p.transform.transforms
    y = torch.randn(5, 40)
    expected, calls = p.transform.inv(y), []
    for step in steps:
        monkeypatch.setattr(step, "meta", lambda z, meta=step.meta: calls.append(1) or meta(z))
    assert torch.equal(drawing._inverted(steps, y), expected)
    assert len(calls) < 60  # zuko takes 80


def test_coordinates_along_axes_are_those_of_all_samples(monkeypatch):
    monkeypatch.setattr(drawing, "CHUNK", 3000)
    prior = Geometry.of(uneven(Mixture(3, 2, "full"))())
    axes, origin = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]).double(), torch.ones(3).double()
    assert torch.allclose(prior.along(axes, origin).samples, (prior.samples.double() - origin) @ axes.T)
