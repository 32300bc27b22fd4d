import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, MultivariateNormal

from vae.model.backbones import Dense
from vae.model.distributions import DiagonalNormal, FullNormal, kl
from vae.model.levels import Level
from vae.model.likelihoods import Bernoulli
from vae.model.posteriors import Diagonal, Full, Tied
from vae.model.priors import Correlated, Flow, Isotropic, Learned, Mixture, Vamp
from vae.model.vae import VAE

BATCH, FEATURES, N = 4, 6, 3
SIGMA = np.array([[2.0, -0.7, 0.1], [-0.7, 1.5, 0.3], [0.1, 0.3, 0.2]])
PRIORS = {  # prior, its Σ
    "isotropic": (lambda: Isotropic(N), np.eye(N)),
    "correlated": (lambda: Correlated(N, SIGMA.tolist()), SIGMA),
}
POSTERIORS = {"diagonal": Diagonal, "tied": Tied, "full": Full}
PAIRS = [(prior, posterior) for prior in PRIORS for posterior in POSTERIORS]


def made(prior: str, posterior: str) -> tuple[Distribution, Distribution, Tensor, np.ndarray]:
    """q, p, the covariance that q's weights say of each image, and p's Σ; all in float64."""
    make, sigma = PRIORS[prior]
    p = make().double()()
    module = POSTERIORS[posterior](FEATURES, N).double()
    features = torch.randn(BATCH, FEATURES, dtype=torch.float64)
    return module.q(features, p), p, covariance(module, features, sigma), sigma


@torch.no_grad()
def covariance(module: nn.Module, features: Tensor, sigma: np.ndarray) -> Tensor:
    """diag σ², D C D or L Lᵀ, by numpy."""
    if isinstance(module, Full):
        numbers = (features @ module.factor.weight.T + module.factor.bias).numpy()
        factors = np.zeros((len(features), N, N))
        factors[:, range(N), range(N)] = np.exp(numbers[:, :N])
        factors[:, *np.tril_indices(N, -1)] = numbers[:, N:]
        return torch.from_numpy(factors @ factors.transpose(0, 2, 1))
    deviations = np.sqrt(np.diag(sigma))
    correlation = sigma / np.outer(deviations, deviations) if isinstance(module, Tied) else np.eye(N)
    scales = np.exp((features @ module.log_var.weight.T + module.log_var.bias).numpy()) ** 0.5  # log of a variance
    return torch.from_numpy(np.stack([np.diag(s) @ correlation @ np.diag(s) for s in scales]))


@pytest.mark.parametrize(("prior", "posterior"), PAIRS)
def test_samples_and_density_are_those_of_the_stated_covariance(prior, posterior, mean_is):
    q, _, expected, _ = made(prior, posterior)
    assert (q.batch_shape, q.event_shape) == ((BATCH,), (N,))
    assert torch.allclose(q.covariance_matrix, expected, rtol=1e-6)
    z = q.sample((50_000,))
    centred = z - q.loc
    mean_is(z, q.mean)
    mean_is(centred.unsqueeze(-1) * centred.unsqueeze(-2), expected)
    assert torch.allclose(q.log_prob(z), MultivariateNormal(q.mean, expected).log_prob(z), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("prior", "posterior"), PAIRS)
def test_the_kl_is_that_of_the_samples(prior, posterior, mean_is):
    q, p, expected, sigma = made(prior, posterior)
    z = q.sample((50_000,))
    of_q = MultivariateNormal(q.mean, expected)
    of_p = MultivariateNormal(torch.zeros(N, dtype=torch.float64), torch.from_numpy(sigma))
    found = kl(q, p, z)
    assert found.shape == (BATCH,)  # exact: the 50,000 samples were not looked at
    mean_is(of_q.log_prob(z) - of_p.log_prob(z), found)


OTHERS = {  # priors whose Σ is learned, or that have none
    "learned": lambda: Learned(N),
    "mixture": lambda: Mixture(N, components=3, covariance="full"),
    "mixture-diagonal": lambda: Mixture(N, components=3, covariance="diagonal"),
    "vamp": lambda: Vamp(N, components=3, init="random"),
    "nsf": lambda: Flow(N, kind="nsf", layers=2, hidden=[16]),
    "maf": lambda: Flow(N, kind="maf", layers=2, hidden=[16]),
    "flow-without-layers": lambda: Flow(N, kind="nsf", layers=0, hidden=[16]),
}
GAUSSIAN = ("learned", "flow-without-layers")


@torch.no_grad()
def encoded(prior: str, posterior: str) -> tuple[Distribution, Distribution, Tensor]:
    """q, p, and q's covariances, where both have seen some training."""
    module, p = POSTERIORS[posterior](FEATURES, N).double(), OTHERS[prior]().double()
    if isinstance(p, Vamp):
        VAE(Dense((1, 2, 2), N, hidden=[FEATURES]).double(), [Level(p, module, N)], Bernoulli())
    for weight in p.double().parameters():
        weight.add_(0.2 * torch.randn_like(weight))
    features, p_z = torch.randn(BATCH, FEATURES, dtype=torch.float64), p()
    sigma = p_z.covariance_matrix.numpy() if prior in GAUSSIAN else np.eye(N)
    return module.q(features, p_z), p_z, covariance(module, features, sigma)


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("prior", OTHERS)
def test_the_kl_to_any_other_prior_is_exact_or_estimated_without_bias(prior, posterior):
    if posterior == "tied" and prior not in GAUSSIAN:
        with pytest.raises(
            ValueError, match=r"^posterior=tied takes its correlations from a Gaussian prior, not from "
        ):
            encoded(prior, posterior)
        return
    q, p, sigma = encoded(prior, posterior)
    z = q.sample((10_000,))
    estimates = kl(q, p, z)
    assert estimates.shape == ((BATCH,) if prior in GAUSSIAN else (10_000, BATCH))
    assert kl(q, p, z[0]).shape == (BATCH,)
    # Independent: other samples, of the covariance that the weights say, and −log p less the entropy's formula.
    of_q = MultivariateNormal(q.mean, sigma)
    others = -p.log_prob(of_q.sample((10_000,))) - of_q.entropy()
    spread = (others.var(0) / 10_000).sqrt()
    if prior not in GAUSSIAN:
        spread, estimates = torch.hypot(spread, (estimates.var(0) / 10_000).sqrt()), estimates.mean(0)
    assert ((estimates - others.mean(0)).abs() < 6 * spread).all() and (estimates > 0).all()


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_mean_and_scale_are_linear_in_the_features(posterior):
    q, _, _, _ = made("correlated", posterior)
    assert isinstance(q, DiagonalNormal if posterior == "diagonal" else FullNormal)
    module = POSTERIORS[posterior](FEATURES, N)
    p = Isotropic(N)()
    x, y = torch.randn(2, BATCH, FEATURES)
    assert torch.allclose(module.q(x, p).mean, x @ module.mean.weight.T + module.mean.bias, atol=1e-6)
    if posterior == "full":  # its L is checked above
        return
    a, b, middle = (module.q(features, p).variance.log() for features in (x, y, (x + y) / 2))
    assert torch.allclose((a + b) / 2, middle, atol=1e-5)


def test_tied_samples_are_scaled_draws_with_the_prior_s_correlations():
    """z = μ + σ ⊙ (L_C ε)."""
    q, _, expected, sigma = made("correlated", "tied")
    scale = expected.diagonal(dim1=1, dim2=2).sqrt()
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
    a, b = diagonal.q(features, p), tied.q(features, p)
    z = a.sample()
    assert torch.allclose(kl(a, p, z), kl(b, p, z)) and torch.allclose(a.log_prob(z), b.log_prob(z))


def test_tied_takes_correlations_only_not_the_scale_of_the_prior():
    tied, features = Tied(FEATURES, N).double(), torch.randn(BATCH, FEATURES, dtype=torch.float64)
    a, b = (tied.q(features, Correlated(N, (c * SIGMA).tolist()).double()()) for c in (1, 25))
    assert torch.allclose(a.covariance_matrix, b.covariance_matrix, rtol=1e-6)
    scaled_diagonal = DiagonalNormal(torch.zeros(N).double(), torch.tensor([0.1, 1.0, 10.0]).double())
    assert torch.allclose(
        tied.q(features, scaled_diagonal).covariance_matrix, tied.q(features, Isotropic(N)()).variance.diag_embed()
    )


def test_tied_refuses_a_prior_without_correlations():
    components = DiagonalNormal(torch.zeros(2, N), torch.ones(2, N))
    with pytest.raises(ValueError, match=r"tied.*Gaussian prior, not from MixtureSameFamily"):
        Tied(FEATURES, N).q(torch.zeros(BATCH, FEATURES), MixtureSameFamily(Categorical(torch.ones(2)), components))


@pytest.mark.parametrize("n", [1, 2, 16])
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_any_number_of_latents(posterior, n):
    q = POSTERIORS[posterior](FEATURES, n).q(torch.randn(BATCH, FEATURES), Correlated(n)())
    assert q.rsample().shape == (BATCH, n) and kl(q, Correlated(n)(), q.mean).shape == (BATCH,)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_factor_of_a_full_posterior_is_lower_triangular_with_a_positive_diagonal(n):
    module = Full(FEATURES, n)
    q = module.q(3 * torch.randn(BATCH, FEATURES), Isotropic(n)())
    assert isinstance(q, FullNormal)
    assert (q.scale_tril.triu(1) == 0).all() and (q.scale_tril.diagonal(dim1=1, dim2=2) > 0).all()
    for weight in module.parameters():
        nn.init.zeros_(weight)
    q = module.q(torch.randn(BATCH, FEATURES), Isotropic(n)())
    assert torch.equal(q.scale_tril, torch.eye(n).expand(BATCH, n, n))


def test_a_full_posterior_has_correlations_of_its_own_for_each_image():
    q, _, expected, _ = made("isotropic", "full")
    assert (expected[:, 0, 1].unique().numel(), q.covariance_matrix[:, 0, 1].unique().numel()) == (BATCH, BATCH)


def test_tied_takes_the_correlations_that_are_learned():
    prior, tied = Learned(N).double(), Tied(FEATURES, N).double()
    with torch.no_grad():
        prior.factor.add_(torch.randn_like(prior.factor))
    q = tied.q(torch.randn(BATCH, FEATURES, dtype=torch.float64), prior())
    sigmas = q.covariance_matrix[0].detach().numpy(), prior().covariance_matrix.detach().numpy()
    found, expected = (sigma / np.sqrt(np.outer(sigma.diagonal(), sigma.diagonal())) for sigma in sigmas)
    assert np.allclose(found, expected)
    q.rsample().sum().backward()
    assert prior.factor.grad.any()


def test_tied_says_that_a_vamp_prior_has_no_correlations():
    prior = Vamp(N, components=3, init="random")
    VAE(Dense((1, 2, 2), N, hidden=[FEATURES]), [Level(prior, Tied(FEATURES, N), N)], Bernoulli())
    with pytest.raises(ValueError, match=r"^posterior=tied takes .* Gaussian prior, not from a mixture of posteriors$"):
        prior()
