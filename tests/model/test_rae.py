"""The regularised autoencoder, and priors that are fitted to codes."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch.distributions import MultivariateNormal

from vae.model.backbones import Dense
from vae.model.distributions import CholeskyFactor
from vae.model.levels import Level
from vae.model.likelihoods import Bernoulli
from vae.model.objectives import Batch
from vae.model.posteriors import Diagonal
from vae.model.priors import Learned, Mixture, Prior
from vae.model.rae import RAE
from vae.model.vae import VAE

SHAPE = (1, 4, 5)


def test_the_loss_is_its_formula() -> None:
    backbone = Dense(SHAPE, 3, hidden=[8])
    vae = VAE(backbone, [Level(Learned(3), Diagonal(backbone.features, 3), 3)], Bernoulli()).double()
    objective, x = RAE(0.3, 0.2), torch.rand(5, *SHAPE, dtype=torch.float64)
    objective.attach(vae)
    found, _ = objective(vae, Batch(x), 0)
    z = vae.encode(x).mean
    first, second = (backbone.decoder[place].weight for place in (0, 2))
    squares = first.square().sum() + second.square().sum()
    recon = -vae.decode(z).log_prob(x).mean()
    assert torch.allclose(found.value, recon + 0.3 * 0.5 * z.square().sum() / 5 + 0.2 * 0.5 * squares)
    assert set(found.parts) == {"codes", "decoder"} and objective.terms == ("recon",)


def clusters() -> torch.Tensor:
    one = torch.randn(300, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.4]]) + 4
    return torch.cat([one, 0.5 * torch.randn(100, 2) - 3])


def test_a_learned_prior_has_the_codes_mean_and_covariance() -> None:
    prior, z = Learned(2), clusters()
    prior.fit(z)
    expected = MultivariateNormal(z.mean(0), torch.from_numpy(np.cov(z.numpy().T, bias=True)).float())
    assert torch.allclose(prior().log_prob(z), expected.log_prob(z), atol=1e-3)
    one = Learned(1)
    one.fit(z[:, :1])
    assert one().stddev.item() == pytest.approx(z[:, 0].std(correction=0).item(), rel=1e-5)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_a_mixture_is_that_of_expectation_maximisation(covariance: str) -> None:
    prior, z = Mixture(2, components=2, covariance=covariance), clusters()
    prior.fit(z)
    kind = {"full": "full", "diagonal": "diag"}[covariance]
    expected = GaussianMixture(2, covariance_type=kind, random_state=3).fit(z.double().numpy())
    assert torch.allclose(prior().log_prob(z).double(), torch.from_numpy(expected.score_samples(z.numpy())), atol=0.02)
    assert sorted(prior().mixture_distribution.probs.tolist()) == pytest.approx([0.25, 0.75], abs=0.01)
    again = Mixture(2, components=2, covariance=covariance)
    again.fit(z)
    assert all(torch.equal(*pair) for pair in zip(prior.parameters(), again.parameters(), strict=True))


def test_more_components_than_codes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^prior\.components=4: must be at most 3, the codes"):
        Mixture(2, components=4, covariance="full").fit(torch.randn(3, 2))


def test_numbers_of_a_factor_give_it_back() -> None:
    free = torch.randn(4, CholeskyFactor.numbers(3), dtype=torch.float64)
    assert torch.allclose(CholeskyFactor.free(CholeskyFactor.of(free)), free)


def test_other_priors_cannot_be_fitted() -> None:
    with pytest.raises(NotImplementedError):
        Prior().fit(clusters())
