import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, MixtureSameFamily, MultivariateNormal

from vae.distributions import DiagonalNormal, FullNormal, kl
from vae.posteriors import Diagonal, Tied
from vae.priors import Correlated, Isotropic

BATCH, FEATURES, N = 4, 6, 3
SIGMA = np.array([[2.0, -0.7, 0.1], [-0.7, 1.5, 0.3], [0.1, 0.3, 0.2]])
PRIORS = {  # prior, its Σ
    "isotropic": (lambda: Isotropic(N), np.eye(N)),
    "correlated": (lambda: Correlated(N, SIGMA.tolist()), SIGMA),
}
POSTERIORS = {"diagonal": Diagonal, "tied": Tied}
PAIRS = [(prior, posterior) for prior in PRIORS for posterior in POSTERIORS]


def made(prior: str, posterior: str) -> tuple[Distribution, Distribution, Tensor, np.ndarray]:
    """q, p, the standard deviations that q's weights say, and p's Σ; all in float64."""
    make, sigma = PRIORS[prior]
    p = make().double()()
    module = POSTERIORS[posterior](FEATURES, N).double()
    features = torch.randn(BATCH, FEATURES, dtype=torch.float64)
    log_var = features @ module.log_var.weight.T + module.log_var.bias
    return module(features, p), p, log_var.exp().sqrt().detach(), sigma


def covariance(posterior: str, scale: Tensor, sigma: np.ndarray) -> Tensor:
    """diag σ² or D C D, by numpy, of each image."""
    deviations = np.sqrt(np.diag(sigma))
    correlation = sigma / np.outer(deviations, deviations) if posterior == "tied" else np.eye(N)
    return torch.from_numpy(np.stack([np.diag(s) @ correlation @ np.diag(s) for s in scale.numpy()]))


@pytest.mark.parametrize(("prior", "posterior"), PAIRS)
def test_samples_and_density_are_those_of_the_stated_covariance(prior, posterior, mean_is):
    q, _, scale, sigma = made(prior, posterior)
    expected = covariance(posterior, scale, sigma)
    assert (q.batch_shape, q.event_shape) == ((BATCH,), (N,))
    assert torch.allclose(q.covariance_matrix, expected, rtol=1e-6)
    z = q.sample((50_000,))
    centred = z - q.loc
    mean_is(z, q.mean)
    mean_is(centred.unsqueeze(-1) * centred.unsqueeze(-2), expected)
    mean_is(centred**2, scale**2)  # log_var is the logarithm of a variance
    assert torch.allclose(q.log_prob(z), MultivariateNormal(q.mean, expected).log_prob(z), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("prior", "posterior"), PAIRS)
def test_the_kl_is_that_of_the_samples(prior, posterior, mean_is):
    q, p, scale, sigma = made(prior, posterior)
    z = q.sample((50_000,))
    of_q = MultivariateNormal(q.mean, covariance(posterior, scale, sigma))
    of_p = MultivariateNormal(torch.zeros(N, dtype=torch.float64), torch.from_numpy(sigma))
    found = kl(q, p, z)
    assert found.shape == (BATCH,)  # exact: the 50,000 samples were not looked at
    mean_is(of_q.log_prob(z) - of_p.log_prob(z), found)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_mean_and_scale_are_linear_in_the_features(posterior):
    q, _, _, _ = made("correlated", posterior)
    assert isinstance(q, DiagonalNormal if posterior == "diagonal" else FullNormal)
    module = POSTERIORS[posterior](FEATURES, N)
    p = Isotropic(N)()
    x, y = torch.randn(2, BATCH, FEATURES)
    means = [module(features, p).mean for features in (x, y, (x + y) / 2)]
    log_vars = [module(features, p).variance.log() for features in (x, y, (x + y) / 2)]
    for a, b, middle in (means, log_vars):
        assert torch.allclose((a + b) / 2, middle, atol=1e-5)


def test_tied_samples_are_scaled_draws_with_the_prior_s_correlations():
    """z = μ + σ ⊙ (L_C ε)."""
    q, _, scale, sigma = made("correlated", "tied")
    deviations = np.sqrt(np.diag(sigma))
    factor = torch.from_numpy(np.linalg.cholesky(sigma / np.outer(deviations, deviations)))
    torch.manual_seed(7)
    z = q.rsample((10,))
    torch.manual_seed(7)
    epsilon = torch.randn(10, BATCH, N, dtype=torch.float64)
    assert torch.allclose(z, q.mean + scale * (epsilon @ factor.T), rtol=1e-6)


def test_tied_to_an_isotropic_prior_is_diagonal():
    p = Isotropic(N).double()()
    diagonal, tied = Diagonal(FEATURES, N).double(), Tied(FEATURES, N).double()
    tied.load_state_dict(diagonal.state_dict())
    features = torch.randn(BATCH, FEATURES, dtype=torch.float64)
    a, b = diagonal(features, p), tied(features, p)
    z = a.sample()
    assert torch.allclose(kl(a, p, z), kl(b, p, z)) and torch.allclose(a.log_prob(z), b.log_prob(z))


def test_tied_takes_correlations_only_not_the_scale_of_the_prior():
    tied, features = Tied(FEATURES, N).double(), torch.randn(BATCH, FEATURES, dtype=torch.float64)
    a, b = (tied(features, Correlated(N, (c * SIGMA).tolist()).double()()) for c in (1, 25))
    assert torch.allclose(a.covariance_matrix, b.covariance_matrix, rtol=1e-6)
    scaled_diagonal = DiagonalNormal(torch.zeros(N).double(), torch.tensor([0.1, 1.0, 10.0]).double())
    assert torch.allclose(
        tied(features, scaled_diagonal).covariance_matrix, tied(features, Isotropic(N)()).variance.diag_embed()
    )


def test_tied_refuses_a_prior_without_correlations():
    components = DiagonalNormal(torch.zeros(2, N), torch.ones(2, N))
    with pytest.raises(ValueError, match=r"tied.*Gaussian prior, not from MixtureSameFamily"):
        Tied(FEATURES, N)(torch.zeros(BATCH, FEATURES), MixtureSameFamily(Categorical(torch.ones(2)), components))


@pytest.mark.parametrize("n", [1, 2, 16])
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_any_number_of_latents(posterior, n):
    q = POSTERIORS[posterior](FEATURES, n)(torch.randn(BATCH, FEATURES), Correlated(n)())
    assert q.rsample().shape == (BATCH, n) and kl(q, Correlated(n)(), q.mean).shape == (BATCH,)
