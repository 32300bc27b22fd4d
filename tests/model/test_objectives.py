import math
from collections.abc import Callable

import pytest
import torch
from models import terms
from posteriors import KINDS, UNREAD, N, encoded, gaussian

from vae.model.backbones import Dense
from vae.model.batchwise import DIP, MMD, TC
from vae.model.bounds import IWAE
from vae.model.distributions import DiagonalNormal
from vae.model.levels import Level
from vae.model.likelihoods import Bernoulli, Gaussian
from vae.model.objectives import ELBO, Autoencoder, Batch, Objective
from vae.model.posteriors import Diagonal, Full
from vae.model.priors import Correlated, Isotropic, Learned, Mixture
from vae.model.vae import VAE

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
    return VAE(backbone, [Level(prior, q, N)], Gaussian("learned")).double()


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
    vae = VAE(backbone, [Level(Isotropic(N), Diagonal(backbone.features, N), N)], Bernoulli())
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
