import itertools

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from vae.distributions import DiagonalNormal, FullNormal, kl
from vae.priors import Correlated, Isotropic, default_covariance

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
