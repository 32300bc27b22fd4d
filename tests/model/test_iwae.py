"""IWAE and its doubly reparameterised gradient, on a linear-Gaussian model."""

import itertools
from typing import Any

import pytest
import torch
from models import terms
from posteriors import UNREAD
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, Normal

from vae.model.bounds import IWAE
from vae.model.distributions import DiagonalNormal, FullNormal, kl
from vae.model.objectives import ELBO, Objective
from vae.model.priors import Isotropic
from vae.model.vae import Terms

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
