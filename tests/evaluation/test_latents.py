import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vae.evaluation import latents
from vae.evaluation.geometry import Geometry
from vae.evaluation.theory import Known
from vae.model import draws as drawing
from vae.model.distributions import DiagonalNormal, FullNormal
from vae.model.levels import Level
from vae.model.likelihoods import Bernoulli
from vae.model.posteriors import Diagonal, Full, Posterior, Tied
from vae.model.priors import Correlated, Isotropic
from vae.model.vae import VAE


class Around(Posterior):
    """Features are means, with one scale for all."""

    def __init__(self, scale_tril, scale):
        super().__init__()
        self.scale_tril, self.scale = scale_tril, scale

    def q(self, means, prior):
        if self.scale_tril is None:
            return DiagonalNormal(means, torch.full_like(means, self.scale))
        return FullNormal(means, self.scale_tril.expand(len(means), -1, -1))


def encoder(n, scale_tril=None, scale=0.5):
    """A model that encodes images of n pixels as means."""
    return VAE(Known(nn.Identity()), [Level(Isotropic(n), Around(scale_tril, scale), n)], Bernoulli())


def batches(means, size=64):
    labels = torch.arange(len(means)) % 3
    images = means.reshape(len(means), 1, 1, -1)
    return [(images[i : i + size], labels[i : i + size]) for i in range(0, len(means), size)]


def test_codes_are_those_of_all_batches():
    means = torch.randn(150, 2)
    codes = latents.encode(encoder(2), batches(means))
    assert torch.equal(codes.means, means) and torch.equal(codes.labels, torch.arange(150) % 3)
    assert torch.allclose(codes.variances, torch.full((150, 2), 0.25))
    assert torch.allclose(codes.noise, 0.25 * torch.eye(2).double())


def test_the_aggregate_covariance_is_that_of_samples():
    factor = torch.tensor([[0.8, 0.0], [-0.5, 0.3]])
    means = torch.randn(40_000, 2) @ torch.tensor([[1.0, 0.7], [0.0, 0.4]])
    codes = latents.encode(encoder(2, factor), batches(means, 5000))
    assert torch.allclose(codes.noise, (factor @ factor.T).double(), atol=1e-6)
    z = FullNormal(means, factor.expand(40_000, 2, 2)).sample()
    assert (latents.aggregate_covariance(codes) - z.T.cov()).abs().max() < 0.05
    assert torch.allclose(latents.covariance(means), means.double().T.cov(correction=0))


def test_one_dimension_keeps_its_shapes():
    codes = latents.encode(encoder(1), batches(torch.randn(50, 1)))
    prior = Geometry.of(Isotropic(1)())
    assert latents.covariance(codes.means).shape == latents.aggregate_covariance(codes).shape == (1, 1)
    assert latents.kl_per_dimension(codes, prior).shape == (1,)
    assert latents.principal(latents.covariance(codes.means)).axes.shape == (1, 1)


def test_the_aggregate_density_is_the_mean_of_the_posteriors():
    means = torch.randn(30, 2)
    codes = latents.encode(encoder(2), batches(means))
    x = torch.linspace(-3, 3, 9)
    expected = sum(Normal(mean, 0.5).log_prob(x).exp() for mean in means[:, 1]) / 30
    assert torch.allclose(latents.aggregate_density(codes, 1, x), expected, atol=1e-6)


@pytest.mark.parametrize("prior", [Isotropic(3), Correlated(3)])
@pytest.mark.parametrize("factor", [None, torch.tensor([[0.9, 0, 0], [0.4, 0.3, 0], [-0.2, 0.1, 0.7]])])
def test_the_kl_of_each_dimension_is_torchs_of_the_marginals(prior, factor):
    means = torch.randn(20, 3)
    codes = latents.encode(encoder(3, factor), batches(means))
    p = prior()
    scales = torch.full((3,), 0.5) if factor is None else (factor @ factor.T).diagonal().sqrt()
    p_scales = p.covariance_matrix.diagonal().sqrt()
    expected = [kl_divergence(Normal(means[:, i], scales[i]), Normal(0.0, p_scales[i])).mean() for i in range(3)]
    found = latents.kl_per_dimension(codes, Geometry.of(p))
    assert torch.allclose(found, torch.stack(expected).double(), atol=1e-5)


@pytest.mark.parametrize(
    ("prior", "factor", "expected"),
    [
        (Isotropic(2), None, True),
        (Correlated(2), None, False),
        (Isotropic(2), torch.tensor([[1.0, 0.0], [0.5, 1.0]]), False),
    ],
)
def test_the_kls_add_up_where_it_says_so(prior, factor, expected):
    means = torch.randn(20, 2)
    codes, geometry = latents.encode(encoder(2, factor), batches(means)), Geometry.of(prior())
    assert latents.adds_up(codes, geometry) is expected
    q = MultivariateNormal(means, codes.noise.float())
    whole = kl_divergence(q, MultivariateNormal(torch.zeros(2), prior().covariance_matrix)).mean()
    total = latents.kl_per_dimension(codes, geometry).sum()
    assert torch.isclose(total, whole.double(), atol=1e-5) == expected


def test_active_units_and_the_ranking():
    means = torch.randn(500, 4) * torch.tensor([1.0, 0.05, 3.0, 0.2])
    codes = latents.encode(encoder(4), batches(means))
    assert latents.active_units(means).tolist() == [True, False, True, True]
    prior = Geometry.of(Isotropic(4)())
    assert latents.ranking(codes, prior) == [2, 0, 3, 1]
    points = latents.encode(encoder(4), batches(means), at_mean=True)
    assert not points.variances.any() and not points.noise.any()
    assert latents.ranking(points, prior) == [2, 0, 3, 1]


def test_principal_components_find_the_direction_and_its_share():
    direction = torch.tensor([3.0, 4.0]) / 5
    across = torch.tensor([-4.0, 3.0]) / 5
    means = 2 * torch.randn(20_000, 1) * direction + 0.5 * torch.randn(20_000, 1) * across + 1
    axes, shares = latents.principal(latents.covariance(means))
    assert torch.allclose(axes[0], direction.double(), atol=0.02)
    assert torch.allclose(axes @ axes.T, torch.eye(2).double())
    assert abs(shares[0].item() - 4 / 4.25) < 0.01 and abs(shares.sum().item() - 1) < 1e-9
    mirrored = latents.principal(latents.covariance(-means)).axes
    assert (mirrored[0] - axes[0]).abs().max() < 1e-6  # either sign gives the same picture


def test_a_collapsed_model_has_no_active_units_and_no_nan():
    codes = latents.encode(encoder(2, scale=1.0), batches(torch.zeros(50, 2)))
    assert not latents.active_units(codes.means).any()
    assert latents.principal(latents.covariance(codes.means)).shares.isfinite().all()
    assert torch.allclose(latents.kl_per_dimension(codes, Geometry.of(Isotropic(2)())), torch.zeros(2).double())


@pytest.mark.parametrize("posterior", [Diagonal, Full, Tied])
def test_codes_in_parts_are_those_of_the_posteriors(monkeypatch, posterior):
    monkeypatch.setattr(latents, "MATRICES", 7 * 3**2)
    monkeypatch.setattr(drawing, "CHUNK", 7 * 3)
    vae = VAE(Known(nn.Identity()), [Level(Correlated(3), posterior(features=6, latent_dim=3), 3)], Bernoulli())
    images = batches(torch.randn(50, 6), 20)
    codes = latents.encode(vae, images)
    with torch.no_grad():
        q = vae.encode(torch.cat([each for each, _ in images]))
    assert torch.allclose(codes.means, q.mean, atol=1e-6) and torch.allclose(codes.variances, q.variance, atol=1e-6)
    assert torch.allclose(codes.noise, q.covariance_matrix.double().mean(0), atol=1e-6)


def test_what_is_computed_in_parts_is_what_the_whole_gives(monkeypatch):
    codes = latents.encode(encoder(3), batches(torch.randn(50, 3)))
    prior = Geometry.of(Correlated(3)())
    whole = [latents.kl_per_dimension(codes, prior), latents.variance(codes.means), latents.covariance(codes.means)]
    monkeypatch.setattr(drawing, "CHUNK", 21)
    parts = [latents.kl_per_dimension(codes, prior), latents.variance(codes.means), latents.covariance(codes.means)]
    for found, expected in zip(parts, whole, strict=True):
        assert torch.allclose(found, expected, atol=1e-12)
    assert torch.allclose(whole[1], codes.means.double().var(0, correction=0))
