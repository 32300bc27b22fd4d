import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from models import terms
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, Normal

from vae.model.backbones import Dense
from vae.model.distributions import DiagonalNormal, FullNormal, kl
from vae.model.levels import Level
from vae.model.likelihoods import Bernoulli, Gaussian
from vae.model.objectives import DIP, ELBO, IWAE, MMD, TC, Autoencoder, Batch, Objective, decomposed
from vae.model.posteriors import Diagonal, Full
from vae.model.priors import Correlated, Isotropic, Learned, Mixture
from vae.model.vae import VAE, Terms

BATCH, N = 7, 3
KINDS = ("diagonal", "full")

UNREAD = Batch(torch.empty(0))  # by most losses, which the terms are enough for


def gaussian(kind: str, batch: int = BATCH, n: int = N) -> DiagonalNormal | FullNormal:
    """A batch of posteriors that are clearly apart, in float64."""
    loc, scale = 1.5 * torch.randn(batch, n, dtype=torch.float64), torch.rand(batch, n, dtype=torch.float64) + 0.3
    if kind == "diagonal":
        return DiagonalNormal(loc, scale)
    return FullNormal(loc, torch.randn(batch, n, n, dtype=torch.float64).tril(-1) + scale.diag_embed())


def encoded(q: Distribution, p: Distribution | None = None, z: Tensor | None = None) -> Terms:
    """Terms of posteriors, with any recon."""
    p = Isotropic(q.event_shape[0]).double()() if p is None else p
    z = q.rsample() if z is None else z
    return terms(torch.rand(q.batch_shape, dtype=torch.float64), kl(q, p, z), z, q, p)


def one(q: Distribution, i: int) -> MultivariateNormal:
    """The posterior of image i as torch writes it."""
    return MultivariateNormal(q.loc[i], q.covariance_matrix[i])


# ELBO -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 4.0])
def test_beta_scales_the_kl_alone_and_images_are_averaged_last(beta):
    recon, kl = torch.rand(2, 7, dtype=torch.float64, requires_grad=True).unbind()
    loss = ELBO(beta).loss(terms(recon, kl), UNREAD, 0).value
    assert loss.shape == ()
    assert loss.item() == pytest.approx(sum(r + beta * k for r, k in zip(recon.tolist(), kl.tolist(), strict=True)) / 7)
    by_recon, by_kl = torch.autograd.grad(loss, (recon, kl))
    assert torch.allclose(by_recon, torch.full((7,), 1 / 7).double())
    assert torch.allclose(by_kl, torch.full((7,), beta / 7).double())


def test_beta_one_is_the_total_and_the_total_knows_no_beta():
    batch = terms(torch.rand(7), torch.rand(7))
    assert torch.allclose(ELBO(1.0).loss(batch, UNREAD, 0).value, batch.total.mean())
    assert torch.equal(batch.total, batch.recon + batch.kl)


@pytest.mark.parametrize(("step", "weight"), [(0, 0), (5, 0.25), (20, 1), (39, 1)])
def test_annealing_weighs_the_kl_alone(step, weight):
    objective, batch = ELBO(3.0, annealing="linear", warmup=5), terms(torch.rand(7), torch.rand(7))
    objective.prepare(steps=40, epochs=10)
    assert torch.allclose(objective.loss(batch, UNREAD, step).value, batch.recon.mean() + 3 * weight * batch.kl.mean())


@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_free_bits_of_each_dimension_are_not_charged(beta):
    """max(λ, KL) of each dimension, the KL being the mean over images of ½ (μ² + σ² − 1 − log σ²)."""
    loc = torch.tensor([[0.1, 2.0, 0.0], [-0.2, 1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([[0.9, 0.5, 1.0], [1.0, 0.1, 1.0]], dtype=torch.float64, requires_grad=True)
    batch = encoded(DiagonalNormal(loc, scale))
    each = [
        sum(0.5 * (m**2 + s**2 - 1 - math.log(s**2)) for m, s in zip(*column, strict=True)) / 2
        for column in zip(loc.T.tolist(), scale.T.tolist(), strict=True)
    ]
    assert each[0] < 0.2 < each[2] < 0.3 < each[1]  # the last has one image above 0.3 and one below 0.2
    for bits, charged in [(0.2, [0.2, each[1], each[2]]), (0.3, [0.3, each[1], 0.3])]:
        loss = ELBO(beta, free_bits=bits).loss(batch, UNREAD, 0).value
        assert loss.item() == pytest.approx(batch.recon.mean().item() + beta * sum(charged))
        found = torch.autograd.grad(loss, (loc, scale), retain_graph=True)
        full = torch.autograd.grad(beta * batch.kl.mean(), (loc, scale), retain_graph=True)
        above = torch.tensor([kl > bits for kl in each])
        for gradient, expected in zip(found, full, strict=True):
            assert torch.allclose(gradient, expected * above)


def test_free_bits_in_total():
    recon, kl = torch.rand(2, 4, dtype=torch.float64, requires_grad=True).unbind()
    mean = kl.mean().item()
    for bits, charged in [(mean - 0.1, mean), (mean + 0.1, mean + 0.1)]:
        loss = ELBO(2.0, free_bits=bits, free_bits_per="total").loss(terms(recon, kl), UNREAD, 0).value
        assert loss.item() == pytest.approx(recon.mean().item() + 2 * charged)
        (gradient,) = torch.autograd.grad(loss, kl)
        assert torch.allclose(gradient, torch.full((4,), 2 / 4 * (bits < mean)).double())


@pytest.mark.parametrize(
    ("kind", "prior"),
    [
        ("full", Isotropic(N)),
        ("diagonal", Correlated(N)),
        ("diagonal", Learned(N)),
        ("diagonal", Mixture(N, 1, "full")),
    ],
)
def test_free_bits_of_each_dimension_need_a_kl_of_each(kind, prior):
    batch = encoded(gaussian(kind), prior.double()())
    with pytest.raises(ValueError, match=r"^objective\.free_bits_per=dimension: needs a KL that is a sum .*=total$"):
        ELBO(1.0, free_bits=0.1).loss(batch, UNREAD, 0)
    ELBO(1.0, free_bits=0.1, free_bits_per="total").loss(batch, UNREAD, 0)


def test_the_kl_is_pulled_to_the_capacity_from_both_sides():
    recon, kl = torch.rand(2, 4, dtype=torch.float64, requires_grad=True).unbind()
    mean = kl.mean().item()
    objective = ELBO(5.0, annealing="linear", warmup=10, capacity=2 * mean)
    objective.prepare(steps=40, epochs=10)
    for step, capacity, sign in [(0, 0, 1), (10, mean / 2, 1), (30, 1.5 * mean, -1), (40, 2 * mean, -1)]:
        loss = objective.loss(terms(recon, kl), UNREAD, step).value
        assert loss.item() == pytest.approx(recon.mean().item() + 5 * abs(mean - capacity))  # 5 in every step
        (gradient,) = torch.autograd.grad(loss, kl)
        assert torch.allclose(gradient, torch.full((4,), sign * 5 / 4).double())


# IWAE, on a linear-Gaussian model -------------------------------------------------------------------------------------

NOISE = 0.5


class Linear:
    """p(z) = N(0, I), p(x|z) = N(W z, NOISE²), one x, and a posterior that is not the exact one."""

    def __init__(self, dim: int = 2, pixels: int = 3):
        self.w = torch.randn(pixels, dim, dtype=torch.float64, requires_grad=True)
        noise = NOISE**2 * torch.eye(pixels, dtype=torch.float64)
        marginal = MultivariateNormal(
            torch.zeros(pixels, dtype=torch.float64), self.w.detach() @ self.w.detach().T + noise
        )
        self.x = marginal.sample()
        self.log_p = marginal.log_prob(self.x).item()
        self.p = Isotropic(dim).double()()
        precision = torch.eye(dim, dtype=torch.float64) + self.w.detach().T @ self.w.detach() / NOISE**2
        self.exact = MultivariateNormal(
            precision.inverse() @ self.w.detach().T @ self.x / NOISE**2, precision.inverse()
        )
        self.loc = self.exact.mean + 0.2
        self.scale = 1.3 * self.exact.stddev

    def terms(self, samples: int, images: int = 1, q: Distribution | None = None) -> Terms:
        """As of a batch that has x many times, with parameters of its own for each."""
        if q is None:
            q = DiagonalNormal(*(a.expand(images, -1).clone().requires_grad_() for a in (self.loc, self.scale)))
        z = q.rsample((samples,))
        recon = -Normal(z @ self.w.T, NOISE).log_prob(self.x).sum(-1)
        return terms(recon, kl(q, self.p, z), z, q, self.p)


def changed(batch: Terms, **of_latent: Any) -> Terms:
    return batch._replace(latents=(batch.latent._replace(**of_latent),))


def log_weights(batch: Terms) -> Tensor:
    """log p(x, z) / q(z|x) by torch's own normals, (samples, images)."""
    standard = Normal(0, 1).log_prob(batch.latent.z).sum(-1)
    return -batch.recon + standard - Normal(batch.latent.q.loc, batch.latent.q.scale).log_prob(batch.latent.z).sum(-1)


def gradients(objective: Objective, batch: Terms, of: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    value = objective.loss(batch, UNREAD, 0).value
    return value, list(torch.autograd.grad(value, of, retain_graph=True))


@pytest.mark.parametrize("k", [1, 2, 20])
def test_iwae_is_the_mean_weight_in_value_and_gradient(k):
    model = Linear()
    batch = model.terms(k, images=5)
    of = [model.w, batch.latent.q.loc, batch.latent.q.scale]
    expected = -log_weights(batch).exp().mean(0).log().mean()  # brute force: with the weights themselves
    by_hand = torch.autograd.grad(expected, of, retain_graph=True)
    value, found = gradients(IWAE(k), batch, of)
    assert torch.allclose(value, expected)
    for a, b in zip(found, by_hand, strict=True):
        assert torch.allclose(a, b) and a.any()


def test_iwae_of_one_sample_is_the_elbo_with_a_sampled_kl():
    batch = Linear().terms(1, images=5)
    sampled = batch.latent.q.log_prob(batch.latent.z) - batch.latent.p.log_prob(batch.latent.z)
    plain = ELBO(1.0).loss(terms(batch.recon[0], sampled[0]), UNREAD, 0).value
    assert torch.allclose(IWAE(1).loss(batch, UNREAD, 0).value, plain)
    assert torch.allclose(IWAE(1, dreg=True).loss(batch, UNREAD, 0).value, plain)


@torch.no_grad()
def test_the_bound_rises_with_the_samples_up_to_the_evidence():
    model = Linear()
    bounds = []
    for k in (1, 3, 30, 1000):
        each = torch.stack([-IWAE(k).loss(model.terms(k, images=50), UNREAD, 0).value for _ in range(40)])
        bounds.append((each.mean().item(), 6 * each.std().item() / 40**0.5))
    for (low, error), (high, error_too) in itertools.pairwise(bounds):
        assert low + error < high - error_too < model.log_p or high == pytest.approx(model.log_p, abs=0.01)
    assert bounds[-1][0] == pytest.approx(model.log_p, abs=0.01)


@pytest.mark.parametrize("dreg", [False, True])
def test_with_the_exact_posterior_every_weight_is_the_evidence(dreg):
    model = Linear()
    q = FullNormal(model.exact.loc[None], model.exact.scale_tril[None])
    batch = model.terms(5, q=q)
    assert torch.allclose(IWAE(5, dreg).loss(batch, UNREAD, 0).value, torch.tensor(-model.log_p, dtype=torch.float64))


@pytest.mark.parametrize("k", [1, 2, 20])
def test_dreg_has_the_value_of_iwae_and_the_decoder_s_gradient(k):
    model = Linear()
    batch = model.terms(k, images=5)
    value, (by_w,) = gradients(IWAE(k), batch, [model.w])
    batch = changed(batch, z=batch.latent.z.detach().requires_grad_())
    batch = batch._replace(recon=-Normal(batch.latent.z @ model.w.T, NOISE).log_prob(model.x).sum(-1))
    doubly, (doubly_by_w,) = gradients(IWAE(k, dreg=True), batch, [model.w])
    assert torch.allclose(value, doubly) and torch.allclose(by_w, doubly_by_w)
    with torch.no_grad():
        assert torch.allclose(IWAE(k, dreg=True).loss(batch, UNREAD, 0).value, value)


def each_gradient(model: Linear, k: int, dreg: bool, images: int) -> Tensor:
    """Independent estimates of the encoder's gradient, (images, 2 latent_dim)."""
    batch = model.terms(k, images)
    _, found = gradients(IWAE(k, dreg), batch, [batch.latent.q.loc, batch.latent.q.scale])
    return images * torch.cat(found, -1)


def test_dreg_has_the_encoder_s_gradient_of_iwae_in_expectation_with_less_noise():
    model = Linear()
    for k in (1, 3, 30):
        plain, doubly = (each_gradient(model, k, dreg, images=20_000) for dreg in (False, True))
        error = ((plain.var(0) + doubly.var(0)) / 20_000).sqrt()
        assert ((plain.mean(0) - doubly.mean(0)).abs() < 6 * error).all()
        assert (plain.mean(0).abs() > 20 * error).any()  # there is something to agree on
    assert (doubly.var(0) < 0.5 * plain.var(0)).all()


def test_the_gradient_of_dreg_is_its_formula():
    """Σ (wᵢ / Σ w)² ∂ log wᵢ / ∂zᵢ ∂zᵢ / ∂φ, the density's own parameters held."""
    model = Linear()
    batch = model.terms(4)
    z, w = batch.latent.z.detach().requires_grad_(), log_weights(batch).detach().softmax(0)
    _, found = gradients(IWAE(4, dreg=True), batch, [batch.latent.q.loc, batch.latent.q.scale])
    held = DiagonalNormal(batch.latent.q.loc.detach(), batch.latent.q.scale.detach())
    recon = -Normal(z @ model.w.T, NOISE).log_prob(model.x).sum(-1)
    (by_z,) = torch.autograd.grad(log_weights(changed(batch._replace(recon=recon), z=z, q=held)).sum(), z)
    epsilon = ((z - held.loc) / held.scale).detach()
    by_loc, by_scale = (-(w.unsqueeze(-1) ** 2 * by_z * by).sum(0) for by in (1, epsilon))  # z = loc + scale epsilon
    assert torch.allclose(found[0], by_loc) and torch.allclose(found[1], by_scale)


# Total correlation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_are_the_sampled_kl_of_each_image(kind):
    batch = encoded(gaussian(kind))
    expected = batch.latent.q.log_prob(batch.latent.z) - batch.latent.p.log_prob(batch.latent.z)
    parts = decomposed(batch)
    assert all(part.shape == (BATCH,) for part in parts) and torch.allclose(torch.stack(parts).sum(0), expected)


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
            each = [Normal(batch.latent.q.loc[j, d], deviations[j]).log_prob(z[d]).exp().item() for j in range(BATCH)]
            margins *= math.fsum(each) / BATCH
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


# Whole models ---------------------------------------------------------------------------------------------------------

SHAPE = (1, 4, 5)
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "elbo": lambda: ELBO(2.0),
    "annealed": lambda: ELBO(2.0, annealing="cyclical", cycles=2),
    "free": lambda: ELBO(2.0, free_bits=0.01, free_bits_per="total"),
    "capacity": lambda: ELBO(2.0, capacity=25.0),
    "iwae": lambda: IWAE(3),
    "dreg": lambda: IWAE(3, dreg=True),
    "tc": lambda: TC(2.0),
    "infovae": lambda: MMD(0.5, 10.0),
    "wae": lambda: MMD(1.0, 10.0),
    "dip-1": lambda: DIP(2.0, 1, 10.0, 10.0),
    "dip-2": lambda: DIP(2.0, 2, 10.0, 10.0),
    "autoencoder": Autoencoder,
}
UNTRAINED = {
    "autoencoder": ("levels.0.prior.", "levels.0.encoding.log_var.", "levels.0.encoding.factor."),
    "wae": ("levels.0.prior.",),
}


def model(posterior: str) -> VAE:
    backbone = Dense(SHAPE, N, hidden=[32, 16])
    prior = Learned(N)
    torch.nn.init.normal_(prior.factor, std=0.3)
    q = (Diagonal if posterior == "diagonal" else Full)(backbone.features, N)
    return VAE(backbone, [Level(prior, q)], Gaussian("learned")).double()


@pytest.mark.parametrize("posterior", KINDS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_trains_every_weight_that_it_should(name, posterior):
    vae, objective, x = model(posterior), OBJECTIVES[name](), torch.rand(8, *SHAPE, dtype=torch.float64)
    objective.prepare(steps=40, epochs=10)
    loss, terms = objective(vae, Batch(x), 5)
    assert loss.value.shape == () and loss.value.isfinite() and loss.value.dtype == torch.float64
    assert all(part.shape == () for part in loss.parts.values())
    k = (3,) if isinstance(objective, IWAE) else ()
    assert terms.recon.shape == (*k, 8) and terms.latent.z.shape == (*k, 8, N)
    loss.value.backward()
    for weight_name, weight in vae.named_parameters():
        moved = weight.grad is not None and bool(weight.grad.any())
        assert moved != weight_name.startswith(UNTRAINED.get(name, ())), weight_name
    with torch.no_grad():
        assert objective(vae.eval(), Batch(x), 5)[0].value.isfinite()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_works_in_mixed_precision(name):
    vae, objective = model("diagonal").float(), OBJECTIVES[name]()
    objective.prepare(steps=40, epochs=10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = objective(vae, Batch(torch.rand(8, *SHAPE)), 5)
    loss.value.backward()
    assert loss.value.isfinite() and all(w.grad.isfinite().all() for w in vae.parameters() if w.grad is not None)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_has_no_weights_and_says_what_it_is(name):
    objective = OBJECTIVES[name]()
    assert not list(objective.parameters()) and not objective.state_dict()
    assert objective.ledger() and all(all(entry) for entry in objective.ledger())


def test_an_autoencoder_is_deterministic():
    vae, x = model("diagonal"), torch.rand(8, *SHAPE, dtype=torch.float64)
    (first, terms), (second, _) = Autoencoder()(vae, Batch(x), 0), Autoencoder()(vae, Batch(x), 1)
    assert torch.equal(first.value, second.value) and torch.equal(terms.latent.z, vae.encode(x).mean)
    assert torch.allclose(first.value, -vae.decode(vae.encode(x).mean).log_prob(x).mean())
    with torch.no_grad():
        vae.posterior.log_var.bias += 3
    assert torch.equal(Autoencoder()(vae, Batch(x), 0)[0].value, first.value)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_lowers_its_own_loss(name):
    backbone = Dense(SHAPE, N, hidden=[32])
    vae = VAE(backbone, [Level(Isotropic(N), Diagonal(backbone.features, N))], Bernoulli())
    objective, x = OBJECTIVES[name](), (torch.rand(16, *SHAPE) > 0.5).float()
    objective.prepare(steps=60, epochs=60)
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss, _ = objective(vae, Batch(x), 15)  # at one weight all the time
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        losses.append(loss.value.item())
    assert sum(losses[-5:]) < sum(losses[:5])
