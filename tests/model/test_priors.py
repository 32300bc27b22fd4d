import itertools
import math

import numpy as np
import pytest
import torch
from models import vamp
from torch import Tensor, nn
from torch.distributions import MixtureSameFamily, MultivariateNormal

from vae.model.distributions import DiagonalNormal, FullNormal, kl
from vae.model.posteriors import Full
from vae.model.priors import Correlated, Flow, Isotropic, Learned, Mixture, Vamp, default_covariance

COVARIANCE = [[2.0, -0.7, 0.1], [-0.7, 1.5, 0.3], [0.1, 0.3, 0.2]]
PRIORS = [  # prior, its Σ
    (lambda: Isotropic(1), np.eye(1)),
    (lambda: Isotropic(3), np.eye(3)),
    (lambda: Correlated(1), np.ones((1, 1))),
    (lambda: Correlated(2), np.array([[1.0, 0.4], [0.4, 0.5]])),
    (lambda: Correlated(3, COVARIANCE), np.array(COVARIANCE)),
    (lambda: Correlated(2, [[4, 0], [0, 9]]), np.diag([4.0, 9.0])),
]


@pytest.mark.parametrize(("make", "sigma"), PRIORS)
def test_samples_and_density_are_those_of_the_stated_covariance(make, sigma, mean_is):
    p, sigma = make().double()(), torch.from_numpy(sigma)
    n = len(sigma)
    assert (p.batch_shape, p.event_shape) == ((), (n,))
    assert torch.allclose(p.covariance_matrix, sigma, rtol=1e-6)
    z = p.sample((50_000,))
    mean_is(z, torch.zeros(n, dtype=torch.float64))
    mean_is(z.unsqueeze(-1) * z.unsqueeze(-2), sigma)  # variances on the diagonal, not standard deviations
    reference = MultivariateNormal(torch.zeros(n, dtype=torch.float64), sigma)
    assert torch.allclose(p.log_prob(z), reference.log_prob(z), rtol=1e-5, atol=1e-5)
    assert p.log_prob(z).shape == (50_000,)


@pytest.mark.parametrize(("make", "sigma"), PRIORS)
def test_a_prior_has_no_weights_and_follows_its_model(make, sigma):
    prior = make()
    assert not list(prior.parameters()) and not prior.state_dict()
    for dtype in (torch.float32, torch.float64):
        p = prior.to(dtype)()
        assert p.sample().dtype == p.log_prob(p.sample()).dtype == dtype
    assert isinstance(prior(), DiagonalNormal if isinstance(prior, Isotropic) else FullNormal)


def test_the_default_covariance_is_the_tutorial_s_in_two_dimensions():
    expected = torch.tensor([[1.0, 0.4], [0.4, 0.5]], dtype=torch.float64)
    assert torch.allclose(default_covariance(2), expected, rtol=0, atol=2e-16)
    assert torch.equal(default_covariance(2).float(), expected.float())


@pytest.mark.parametrize("n", [2, 3, 5, 16])
def test_the_default_covariance_is_its_formula(n):
    found = default_covariance(n)
    assert found.dtype == torch.float64
    for i, j in itertools.product(range(n), repeat=2):
        v_i, v_j = (0.5 ** (k / (n - 1)) for k in (i, j))  # falling geometrically from 1 to ½
        assert found[i, j].item() == pytest.approx((0.4 / 0.5**0.5) ** abs(i - j) * (v_i * v_j) ** 0.5, rel=1e-12)


@pytest.mark.parametrize("n", [*range(1, 12), 32, 128, 512])
def test_the_default_covariance_is_positive_definite(n):
    sigma = default_covariance(n).numpy()
    assert np.array_equal(sigma, sigma.T) and sigma[0, 0] == 1
    assert np.linalg.eigvalsh(sigma)[0] > 0.1
    assert Correlated(n)().scale_tril.isfinite().all()


def test_the_factor_of_a_near_singular_covariance_is_not_lost_in_single_precision():
    """A Cholesky factor computed in single precision is some per cent off here."""
    rho = 1 - 2.5e-6
    sigma = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)
    p = Correlated(2, sigma.tolist())()
    q = DiagonalNormal(torch.tensor([[0.5, -0.2]]), torch.tensor([[0.3, 0.7]]))
    assert p.scale_tril.dtype == torch.float32
    reference = torch.distributions.kl_divergence(
        MultivariateNormal(q.loc.double(), q.covariance_matrix.double()),
        MultivariateNormal(torch.zeros(2, dtype=torch.float64), sigma),
    )
    assert torch.allclose(kl(q, p, q.loc).double(), reference, rtol=1e-4)


FLOWS = [f"{kind}-{layers}" for kind in ("nsf", "maf") for layers in (0, 1, 3)]


FIXED = {
    "isotropic": Isotropic,
    "correlated": Correlated,
    "nsf-0": lambda n: Flow(n, kind="nsf", layers=0, hidden=[16, 16]),
    "maf-0": lambda n: Flow(n, kind="maf", layers=0, hidden=[16, 16]),
}
LEARNED = {
    "learned": Learned,
    "mixture-full": lambda n: Mixture(n, components=3, covariance="full"),
    "mixture-diagonal": lambda n: Mixture(n, components=3, covariance="diagonal"),
    "vamp-diagonal": vamp,
    "vamp-full": lambda n: vamp(n, Full),
    "nsf-1": lambda n: Flow(n, kind="nsf", layers=1, hidden=[16, 16]),
    "nsf-3": lambda n: Flow(n, kind="nsf", layers=3, hidden=[16, 16]),
    "maf-1": lambda n: Flow(n, kind="maf", layers=1, hidden=[16, 16]),
    "maf-3": lambda n: Flow(n, kind="maf", layers=3, hidden=[16, 16]),
}
EVERY = FIXED | LEARNED


def weights_of(prior: nn.Module) -> list[nn.Parameter]:
    """Also those that a prior shares with the model."""
    if not isinstance(prior, Vamp):
        return list(prior.parameters())
    backbone, posterior = prior._encoder
    return [*prior.parameters(), *backbone.encoder.parameters(), *posterior.parameters()]


@torch.no_grad()
def trained(name: str, n: int = 2) -> nn.Module:
    """The prior in float64 as training might leave it."""
    prior = EVERY[name](n).double()
    for module in getattr(prior, "_encoder", ()):
        module.double()
    for weight in weights_of(prior):
        weight.add_((0.15 if name in FLOWS else 0.3) * torch.randn_like(weight))
    return prior


EDGE, CELL = 12, 0.1


def grid() -> Tensor:
    """The middles of squares that cover all that a prior of the table holds, (cells, cells, 2)."""
    axis = torch.arange(-EDGE + CELL / 2, EDGE, CELL, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis).view(len(axis), len(axis), 2)


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_a_density_is_that_of_its_samples_and_integrates_to_one(name, mean_is):
    p = trained(name)()
    z = grid()
    mass = p.log_prob(z).exp() * CELL**2
    smooth = isinstance(p, DiagonalNormal | FullNormal | MixtureSameFamily)  # others may have corners
    assert mass.sum().item() == pytest.approx(1, abs=1e-6 if smooth else 3e-3)
    mean = (mass[..., None] * z).sum((0, 1))
    second = torch.einsum("ab,abi,abj->ij", mass, z, z)
    samples = p.sample((10_000,))
    assert (samples.abs() < EDGE).all()
    mean_is(samples, mean)
    mean_is(samples.unsqueeze(-1) * samples.unsqueeze(-2), second)
    # The distribution function at nine points on borders between squares.
    around = [
        [((m + step * s) / CELL).round() * CELL for step in (-1, 0, 1)]
        for m, s in zip(mean, samples.std(0), strict=True)
    ]
    for a, b in itertools.product(*around):
        expected = mass[(z[..., 0] < a) & (z[..., 1] < b)].sum()
        mean_is(((samples[:, 0] < a) & (samples[:, 1] < b)).double(), expected)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("name", EVERY)
def test_shapes_types_and_gradients(name, n):
    prior = trained(name, n)
    p = prior()
    assert (p.batch_shape, p.event_shape) == ((), (n,))
    z = p.sample((7,))
    assert z.shape == (7, n) and z.dtype == p.log_prob(z).dtype == torch.float64
    assert p.log_prob(z).shape == (7,)
    assert torch.allclose(p.log_prob(z.view(7, 1, n).expand(7, 3, n)), p.log_prob(z).view(7, 1).expand(7, 3))
    weights = weights_of(prior)
    assert bool(weights) == (name in LEARNED)
    if weights:
        p.log_prob(z).sum().backward()
        for weight in weights:
            assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any()


@pytest.mark.parametrize("name", EVERY)
def test_a_prior_follows_its_model_to_single_precision(name):
    prior = trained(name).float()
    for module in getattr(prior, "_encoder", ()):
        module.float()
    z = prior().sample((7,))
    assert z.dtype == prior().log_prob(z).dtype == torch.float32


@pytest.mark.parametrize("name", EVERY)
def test_a_state_is_restored(name):
    prior, other = trained(name), EVERY[name](2).double()
    if isinstance(prior, Vamp):
        other._encoder = prior._encoder
    z = torch.randn(7, 2, dtype=torch.float64)
    before = other().log_prob(z)
    other.load_state_dict(prior.state_dict())
    assert torch.equal(other().log_prob(z), prior().log_prob(z))
    assert torch.equal(other().log_prob(z), before) != bool(weights_of(prior))


# Learned --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_learned_prior_starts_standard(n):
    p = Learned(n)()
    assert isinstance(p, FullNormal)
    assert torch.equal(p.loc, torch.zeros(n)) and torch.equal(p.scale_tril, torch.eye(n))


def test_a_learned_prior_finds_the_gaussian_that_posteriors_come_from():
    """E KL(q ‖ p) is lowest where p has the moments of the aggregate posterior."""
    locs = torch.randn(50, 2, dtype=torch.float64) @ torch.tensor([[1.0, 0.8], [0.0, 0.3]]).double() + 2
    q, prior = DiagonalNormal(locs, torch.rand(50, 2, dtype=torch.float64) + 0.1), Learned(2).double()
    optimizer = torch.optim.LBFGS(prior.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = kl(q, prior(), q.mean).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    p = prior()
    expected = np.cov(locs.numpy().T, bias=True) + np.diag((q.scale**2).mean(0).numpy())
    assert torch.allclose(p.loc, locs.mean(0), atol=1e-4)
    assert torch.allclose(p.covariance_matrix, torch.from_numpy(expected), atol=1e-4)
    assert (p.scale_tril.triu(1) == 0).all() and (p.scale_tril.diagonal() > 0).all()


# Mixture --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mixture-full", "mixture-diagonal"])
def test_a_mixture_adds_joint_densities(name):
    prior, z = trained(name, 3), torch.randn(7, 3, dtype=torch.float64)
    with torch.no_grad():
        logits, loc, factor = (weight.numpy() for weight in (prior.logits, prior.loc, prior.factor))
        found = prior().log_prob(z)
    weights = np.exp(logits) / np.exp(logits).sum()
    assert len(set(weights)) == 3
    density, each = 0.0, 0.0
    for weight, mean, numbers in zip(weights, loc, factor, strict=True):
        lower = np.diag(np.exp(numbers[:3]))
        if name == "mixture-full":
            lower[np.tril_indices(3, -1)] = numbers[3:]
        sigma = torch.from_numpy(lower @ lower.T)
        density = density + weight * MultivariateNormal(torch.from_numpy(mean), sigma).log_prob(z).exp()
        marginals = torch.distributions.Normal(torch.from_numpy(mean), sigma.diagonal().sqrt())
        each = each + weight * marginals.log_prob(z).exp()
    assert torch.allclose(found, density.log(), rtol=1e-10)
    assert not torch.allclose(found, each.log().sum(-1), atol=0.1)  # the mistake of mixing each dimension by itself


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_a_mixture_of_one_is_a_gaussian(covariance, mean_is):
    prior = Mixture(3, components=1, covariance=covariance).double()
    standard = Isotropic(3).double()()
    z = torch.randn(7, 3, dtype=torch.float64)
    assert torch.allclose(prior().log_prob(z), standard.log_prob(z))
    with torch.no_grad():
        prior.loc.add_(torch.randn_like(prior.loc))
        prior.factor.add_(0.3 * torch.randn_like(prior.factor))
    single = Learned(3).double()
    numbers = torch.zeros(6, dtype=torch.float64)
    numbers[: prior.factor.shape[1]] = prior.factor[0].detach()
    single.load_state_dict({"loc": prior.loc[0], "factor": numbers})
    assert torch.allclose(prior().log_prob(z), single().log_prob(z))
    q = DiagonalNormal(torch.randn(3, dtype=torch.float64), torch.tensor([0.3, 0.5, 1.2], dtype=torch.float64))
    mean_is(kl(q, prior(), q.sample((10_000,))), kl(q, single(), q.mean))


def test_the_components_of_a_mixture_begin_apart():
    distances = torch.pdist(Mixture(2, components=10, covariance="full").loc)
    assert distances.min() > 0.01 and distances.max() > 1


# Flow -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_without_layers_is_standard_and_others_are_not(name):
    p, z = trained(name)(), torch.randn(7, 2, dtype=torch.float64)
    standard = -0.5 * (z**2).sum(-1) - math.log(2 * math.pi)
    assert torch.allclose(p.log_prob(z), standard) == name.endswith("-0")
    assert isinstance(p, DiagonalNormal) == name.endswith("-0")


@pytest.mark.parametrize("kind", ["nsf", "maf"])
def test_a_flow_learns_a_density_that_is_no_gaussian(kind):
    angle = 2 * math.pi * torch.rand(500, dtype=torch.float64)
    ring = 2 * torch.stack([angle.cos(), angle.sin()], -1) + 0.2 * torch.randn(500, 2, dtype=torch.float64)
    prior = Flow(2, kind=kind, layers=3, hidden=[16]).double()
    gaussian = MultivariateNormal(ring.mean(0), ring.T.cov()).log_prob(ring).mean()
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        loss = -prior().log_prob(ring).mean()
        loss.backward()
        optimizer.step()
    assert -loss > gaussian + 0.2
