"""Objectives of a whole batch, against quadrature, double loops and numpy."""

import math

import numpy as np
import pytest
import torch
from posteriors import BATCH, KINDS, UNREAD, N, encoded, gaussian
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from vae.model.batchwise import DIP, MMD, TC, decomposed
from vae.model.distributions import DiagonalNormal, FullNormal
from vae.model.priors import Correlated, Isotropic, Learned


def one(q: DiagonalNormal | FullNormal, i: int) -> MultivariateNormal:
    """The posterior of image i as torch writes it."""
    return MultivariateNormal(q.loc[i], q.covariance_matrix[i])


# Total correlation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_are_the_sampled_kl_of_each_image(kind):
    batch = encoded(gaussian(kind))
    expected = batch.latent.q.log_prob(batch.latent.z) - batch.latent.p.log_prob(batch.latent.z)
    parts = decomposed(batch)
    assert all(part.shape == (BATCH,) for part in parts) and torch.allclose(sum(parts), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_are_those_of_the_batch_s_mixture(kind):
    """q(z) is the mixture of all posteriors, and its marginals are mixtures of theirs."""
    batch = encoded(gaussian(kind))
    found = decomposed(batch)
    for i, z in enumerate(batch.latent.z):
        joint = np.mean([one(batch.latent.q, j).log_prob(z).exp().item() for j in range(BATCH)])
        margins = 1.0
        for d in range(N):
            deviations = batch.latent.q.covariance_matrix[:, d, d].sqrt()
            margins *= np.mean(
                [Normal(batch.latent.q.loc[j, d], deviations[j]).log_prob(z[d]).exp().item() for j in range(BATCH)]
            )
        own, prior = one(batch.latent.q, i).log_prob(z).item(), batch.latent.p.log_prob(z).item()
        expected = (own - math.log(joint), math.log(joint) - math.log(margins), math.log(margins) - prior)
        assert [part[i].item() for part in found] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_are_divergences_of_mixtures_by_quadrature(kind):
    """Their means over z are I(x; z), KL(q(z) ‖ Πⱼ q(zⱼ)) and KL(Πⱼ q(zⱼ) ‖ p(z)), the last under q(z)."""
    q = gaussian(kind, batch=3, n=2)
    p = Isotropic(2).double()()
    side = torch.linspace(-12, 12, 800, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1)  # (800, 800, 2)
    step = side[1] - side[0]
    cell = step**2
    densities = torch.stack([one(q, i).log_prob(grid).exp() for i in range(3)])
    joint = densities.mean(0)
    product = torch.outer(joint.sum(1) * step, joint.sum(0) * step)
    entropies = -torch.special.xlogy(densities, densities).sum((1, 2)).mean() * cell

    def mean_log(density: Tensor) -> Tensor:
        return torch.special.xlogy(joint, density).sum() * cell

    expected = [
        -entropies - mean_log(joint),
        mean_log(joint) - mean_log(product),
        mean_log(product) - (joint * p.log_prob(grid)).sum() * cell,
    ]
    assert (joint.sum() * cell - 1).abs() < 1e-6 and min(expected) >= -1e-9
    draws = torch.stack([torch.stack(decomposed(encoded(q, p=p, z=q.sample()))).mean(1) for _ in range(4000)])
    error = draws.std(0) / 4000**0.5
    assert ((draws.mean(0) - torch.stack(expected)).abs() < 6 * error).all()


def test_independent_dimensions_have_no_total_correlation_and_others_have():
    grid = torch.cartesian_prod(torch.tensor([-1.0, 0.3, 2.0]), torch.tensor([-2.0, 1.0])).double()
    scale = torch.tensor([0.5, 0.8], dtype=torch.float64).expand(6, 2)
    _, tc, _ = decomposed(encoded(DiagonalNormal(grid, scale)))
    assert tc.abs().max() < 1e-12
    line = torch.linspace(-3, 3, 6, dtype=torch.float64).unsqueeze(1).expand(6, 2)
    _, tc, _ = decomposed(encoded(DiagonalNormal(line, 0.3 * scale)))
    assert tc.mean() > 0.5
    assert tc.mean() < math.log(6)  # what one dimension can know of the other


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_one_image_says_nothing_of_others(kind):
    """As the last batch of an epoch may be."""
    batch = encoded(gaussian(kind, batch=1))
    mi, tc, dwkl = decomposed(batch)
    assert mi.abs() < 1e-12 and (tc.abs() < 1e-12) == (kind == "diagonal")
    assert torch.allclose(
        mi + tc + dwkl, batch.latent.q.log_prob(batch.latent.z) - batch.latent.p.log_prob(batch.latent.z)
    )


@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_beta_weighs_the_total_correlation_alone(beta):
    objective, batch = TC(beta), encoded(gaussian("diagonal"))
    loss = objective.loss(batch, UNREAD, 0)
    mi, tc, dwkl = (part.mean() for part in decomposed(batch))
    assert torch.allclose(loss.value, batch.recon.mean() + mi + beta * tc + dwkl)
    assert loss.parts == {"batch_mi": mi, "batch_tc": tc, "batch_dwkl": dwkl}


@pytest.mark.parametrize("kind", KINDS)
def test_a_correlated_prior_s_parts_are_those_of_its_own_coordinates(kind):
    """As if z = m + L u had been u all along, by matrices that are inverted here."""
    prior = Learned(N).double()
    torch.nn.init.normal_(prior.loc)
    torch.nn.init.normal_(prior.factor)
    p = prior()
    batch = encoded(gaussian(kind), p=p)
    inverse = torch.linalg.inv(p.scale_tril)
    q = MultivariateNormal(
        (batch.latent.q.mean - p.mean) @ inverse.T, inverse @ batch.latent.q.covariance_matrix @ inverse.T
    )
    moved = encoded(FullNormal(q.loc, q.scale_tril), z=(batch.latent.z - p.mean) @ inverse.T)
    for found, expected in zip(decomposed(batch), decomposed(moved), strict=True):
        assert torch.allclose(found, expected)


def test_codes_that_follow_a_correlated_prior_are_not_dependent():
    """Posteriors that are the prior, whatever the image."""
    p = Correlated(N).double()()
    q = FullNormal(p.loc.expand(BATCH, N), p.scale_tril.expand(BATCH, N, N))
    for part in decomposed(encoded(q, p=p)):
        assert torch.allclose(part, torch.zeros(BATCH, dtype=torch.float64), atol=1e-6)
    assert DIP(1.0, 2, 10.0, 10.0).loss(encoded(q, p=p), UNREAD, 0).parts["dip"].item() == pytest.approx(0, abs=1e-6)


# MMD ------------------------------------------------------------------------------------------------------------------


def brute_mmd(a: Tensor, b: Tensor) -> float:
    n, dim = a.shape

    def kernel(u: Tensor, v: Tensor) -> float:
        squared = sum((x - y) ** 2 for x, y in zip(u.tolist(), v.tolist(), strict=True))
        return sum(2 * dim * s / (2 * dim * s + squared) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10))

    pairs = [(i, j) for i in range(n) for j in range(n)]
    within = sum(kernel(c[i], c[j]) for c in (a, b) for i, j in pairs if i != j) / (n * (n - 1))
    return within - 2 * sum(kernel(a[i], b[j]) for i, j in pairs) / n**2


def test_mmd_is_the_double_loop():
    a, b = torch.randn(6, N, dtype=torch.float64), 2 * torch.randn(6, N, dtype=torch.float64) + 1
    assert MMD(1, 10).mmd(a, b).item() == pytest.approx(brute_mmd(a, b), rel=1e-10)


def test_mmd_is_zero_on_average_for_equal_distributions_and_positive_for_others(mean_is):
    def many(shift: float, scale: float) -> Tensor:
        draws = torch.randn(500, 2, 8, N, dtype=torch.float64)
        return torch.stack([MMD(1, 10).mmd(a, scale * b + shift) for a, b in draws])

    equal = many(0, 1)
    mean_is(equal, torch.zeros((), dtype=torch.float64))
    assert equal.min() < 0  # unbiased, therefore at times negative
    for others in (many(0.5, 1), many(0, 2)):
        assert others.mean() > 6 * others.std() / 500**0.5


@pytest.mark.parametrize(("alpha", "weight"), [(1.0, 100.0), (0.0, 1.0), (0.3, 5.0), (-2.0, 3.5)])
def test_infovae_weighs_kl_and_mmd(alpha, weight):
    batch = encoded(gaussian("diagonal"))
    torch.manual_seed(1)
    loss = MMD(alpha, weight).loss(batch, UNREAD, 0)
    torch.manual_seed(1)
    mmd = brute_mmd(batch.latent.z, batch.latent.p.sample((BATCH,)))
    expected = batch.recon.mean().item() + (1 - alpha) * batch.kl.mean().item() + (alpha + weight - 1) * mmd
    assert loss.value.item() == pytest.approx(expected) and loss.parts["mmd"].item() == pytest.approx(mmd)


def test_one_image_has_no_mmd():
    batch = encoded(gaussian("diagonal", batch=1))
    assert torch.allclose(MMD(0.5, 10).loss(batch, UNREAD, 0).value, batch.recon.mean() + 0.5 * batch.kl.mean())


# DIP ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize("posterior", KINDS)
def test_dip_is_numpy_s_covariance(posterior, kind):
    batch = encoded(gaussian(posterior))
    c = np.cov(batch.latent.q.loc.numpy().T, bias=True)
    if kind == 2:  # the law of total covariance
        c = c + batch.latent.q.covariance_matrix.mean(0).numpy()
    penalty = sum((7.0 if i != j else 3.0) * (c[i, j] - (i == j)) ** 2 for i in range(N) for j in range(N))
    loss = DIP(2.0, kind, off_diagonal=7.0, diagonal=3.0).loss(batch, UNREAD, 0)
    assert loss.value.item() == pytest.approx(batch.recon.mean().item() + 2 * batch.kl.mean().item() + penalty)
    assert loss.parts["dip"].item() == pytest.approx(penalty)


def test_dip_pulls_to_the_covariance_of_a_correlated_prior():
    p = Correlated(N).double()()
    batch = encoded(gaussian("full"), p=p)
    inverse = np.linalg.inv(np.linalg.cholesky(p.covariance_matrix.numpy()))
    c = np.cov(batch.latent.q.loc.numpy().T, bias=True) + batch.latent.q.covariance_matrix.mean(0).numpy()
    c = inverse @ c @ inverse.T
    penalty = sum((7.0 if i != j else 3.0) * (c[i, j] - (i == j)) ** 2 for i in range(N) for j in range(N))
    assert DIP(2.0, 2, 7.0, 3.0).loss(batch, UNREAD, 0).parts["dip"].item() == pytest.approx(penalty)


def test_the_covariance_of_dip_is_that_of_the_samples(mean_is):
    """Kind 2 has the moments of z from the whole batch."""
    q = gaussian("full")
    z = q.sample((20_000,)).flatten(0, 1)
    centred = z - q.loc.mean(0)
    penalty = DIP(1.0, 2, off_diagonal=1.0, diagonal=1.0).loss(encoded(q), UNREAD, 0).parts["dip"]
    c = (centred.unsqueeze(-1) * centred.unsqueeze(-2)).mean(0)
    assert penalty.item() == pytest.approx(((c - torch.eye(N)) ** 2).sum().item(), rel=0.02)
