import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import terms
from posteriors import KINDS, UNREAD, N, encoded, gaussian
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, Normal

from vae.model.backbones import Dense
from vae.model.batchwise import DIP, MMD, TC
from vae.model.distributions import DiagonalNormal, FullNormal, kl
from vae.model.levels import Level
from vae.model.likelihoods import Bernoulli, Gaussian
from vae.model.objectives import ELBO, IWAE, Autoencoder, Batch, Objective
from vae.model.posteriors import Diagonal, Full
from vae.model.priors import Correlated, Isotropic, Learned, Mixture
from vae.model.vae import VAE, Terms

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
