"""Critics and the objectives that have one, against known densities, and by hand."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import terms
from posteriors import BATCH, N, encoded, gaussian
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal
from torch.nn.functional import softplus

from vae.model.adversarial import Adversarial, Factor, VaeGan, WaeGan, permuted
from vae.model.backbones import Dense
from vae.model.critics import Critic, OfImages, OfVectors
from vae.model.distributions import DiagonalNormal
from vae.model.levels import Level
from vae.model.likelihoods import Bernoulli
from vae.model.noise import FRESH
from vae.model.objectives import Batch, Loss
from vae.model.posteriors import Diagonal
from vae.model.priors import Correlated, Isotropic
from vae.model.vae import VAE, Terms

SHAPE = (1, 6, 5)
RATES = {"lr": 1e-3, "betas": [0.5, 0.9], "updates": 1}
OF_VECTORS: dict[str, Any] = {"hidden": [16, 16], **RATES}
OF_IMAGES: dict[str, Any] = {"channels": [4, 6], "r1": 3.0, **RATES}
MADE: dict[str, Callable[[], Adversarial]] = {
    "factor": lambda: Factor(5.0, OF_VECTORS),
    "wae_gan": lambda: WaeGan(5.0, OF_VECTORS),
    "vae_gan": lambda: VaeGan(2.0, 5.0, 0.5, OF_IMAGES),
}


def model() -> VAE:
    backbone = Dense(SHAPE, N, hidden=[12])
    return VAE(backbone, [Level(Isotropic(N), Diagonal(backbone.features, N), N)], Bernoulli()).double()


def attached(name: str) -> tuple[Adversarial, VAE, Batch]:
    objective, vae = MADE[name](), model()
    objective.attach(vae)
    return objective.double(), vae, Batch(torch.rand(BATCH, *SHAPE, dtype=torch.float64))


def of(z: Tensor, p: Any = None) -> Terms:
    """Terms of these z."""
    q = DiagonalNormal(z, torch.full_like(z, 1e-3))
    return terms(torch.zeros(len(z)), torch.zeros(len(z)), z, q, Isotropic(z.shape[1])() if p is None else p)


def learned(critic: nn.Module, steps: int, loss: Callable[[], Tensor]) -> None:
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()


# Critics --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_critic_learns_the_ratio_of_two_densities() -> None:
    first, second = Normal(0.0, 1.0), Normal(1.0, 1.5)
    critic = OfVectors(1, [32, 32])

    def loss() -> Tensor:
        a, b = (critic(p.sample(torch.Size([1000, 1]))).logit for p in (first, second))
        return softplus(-a).mean() + softplus(b).mean()

    learned(critic, 600, loss)
    z = torch.linspace(-2, 3, 41)
    expected = first.log_prob(z) - second.log_prob(z)
    assert (critic(z[:, None]).logit - expected).abs().max() < 0.25


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 8), (2, 1, 1)])
def test_a_critic_takes_images_of_any_size(shape: tuple[int, int, int]) -> None:
    logit, features = OfImages(shape, [4, 6, 8])(torch.rand(5, *shape))
    assert logit.shape == (5,) and features.shape == (5, 8 * math.ceil(shape[1] / 8) * math.ceil(shape[2] / 8))


# FactorVAE ------------------------------------------------------------------------------------------------------------


def test_permuted_dimensions_keep_their_numbers_and_lose_their_dependence() -> None:
    z = MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]])).sample(torch.Size([20_000]))
    found = permuted(z, FRESH)
    assert torch.equal(found.sort(0).values, z.sort(0).values)
    assert z.T.corrcoef()[0, 1] > 0.89 and abs(found.T.corrcoef()[0, 1].item()) < 6 / math.sqrt(len(z))


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["isotropic", "correlated"])
def test_the_critic_s_mean_is_the_total_correlation(prior: str) -> None:
    """Of a Gaussian it is −½ log det of the correlations, in coordinates in which the prior is N(0, I)."""
    p = Isotropic(2)() if prior == "isotropic" else Correlated(2, [[2.0, -0.7], [-0.7, 1.5]])()
    aggregate = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    factor = torch.eye(2) if prior == "isotropic" else p.scale_tril
    draws = MultivariateNormal(torch.zeros(2), factor @ aggregate @ factor.T)
    objective = Factor(1.0, OF_VECTORS | {"hidden": [64, 64]})
    objective.critic = OfVectors(2, [64, 64])

    def loss() -> Tensor:
        return objective.told_apart(of(draws.sample(torch.Size([1000])), p), Batch(torch.empty(0)), 0).value

    learned(objective.critic, 600, loss)
    found = objective.loss(of(draws.sample(torch.Size([20_000])), p), Batch(torch.empty(0)), 0).parts["critic_tc"]
    assert found.item() == pytest.approx(-0.5 * math.log(1 - 0.8**2), abs=0.06)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_both_halves_of_a_batch_have_as_many(count: int) -> None:
    objective = Factor(1.0, OF_VECTORS)
    batch = encoded(gaussian("diagonal", batch=count))
    first, second = objective.kinds(batch, Batch(torch.empty(0)))
    assert len(first) == len(second) == -(-count // 2)
    assert torch.equal(first, batch.latent.z[: len(first)])
    assert torch.equal(second.sort(0).values, batch.latent.z[-len(first) :].sort(0).values)


# Losses by hand -------------------------------------------------------------------------------------------------------


def with_draws(
    objective: Adversarial, vae: VAE, batch: Batch, loss: Callable[[Terms, Batch, int], Loss]
) -> tuple[Terms, Loss, Tensor]:
    """Terms of a batch, a loss of them, and the draws of N(0, I) that it took."""
    batch_terms = objective.terms_of(vae, batch)
    state = torch.get_rng_state()
    found = loss(batch_terms, batch, 0)
    torch.set_rng_state(state)
    return batch_terms, found, torch.randn(BATCH, N, dtype=torch.float64)


def test_losses_are_their_formulas() -> None:
    for name in ("factor", "wae_gan"):
        objective, vae, batch = attached(name)
        found, batch_terms = objective(vae, batch, 0)
        logits = objective.critic(batch_terms.latent.z).logit
        kl, recon = batch_terms.kl.mean(), batch_terms.recon.mean()
        expected = {"factor": recon + kl + 5 * logits.mean(), "wae_gan": recon - 5 * logits.sigmoid().log().mean()}
        assert torch.allclose(found.value, expected[name])


def test_the_loss_of_a_vae_gan_is_its_formula() -> None:
    objective, vae, batch = attached("vae_gan")
    batch_terms, found, z = with_draws(objective, vae, batch, objective.loss)
    drawn = vae.decode(z).mean
    true, made = (objective.critic(images).features for images in (batch.images, batch_terms.p_x.mean))
    likeness = ((true - made) ** 2).sum() / 2 / BATCH
    fooling = -objective.critic(drawn).logit.sigmoid().log().mean()
    kl, recon = batch_terms.kl.mean(), batch_terms.recon.mean()
    assert torch.allclose(found.value, 2 * kl + likeness + 0.5 * recon + 5 * fooling)


def test_the_critic_s_loss_is_a_cross_entropy_and_its_accuracy_a_share() -> None:
    objective, vae, batch = attached("wae_gan")
    batch_terms, found, z = with_draws(objective, vae, batch, objective.told_apart)
    points = torch.cat([z, batch_terms.latent.z])
    logits, kinds = objective.critic(points).logit, torch.arange(2 * BATCH) < BATCH
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, kinds.double())
    assert torch.allclose(found.value, 2 * entropy)
    assert found.parts["accuracy"].item() == pytest.approx(((logits > 0) == kinds).float().mean().item())


class Plane(Critic):
    """D(x) = wᵀx + b, whose slope is w everywhere."""

    def __init__(self) -> None:
        super().__init__([], math.prod(SHAPE))


def test_r1_is_the_square_of_the_slope_at_true_images() -> None:
    objective, vae, batch = attached("vae_gan")
    objective.critic = Plane().double()
    torch.manual_seed(0)
    batch_terms = objective.terms_of(vae, batch)
    losses = []
    for r1 in (0.0, 3.0):
        objective.of_critic["r1"] = r1
        torch.manual_seed(1)
        losses.append(objective.told_apart(batch_terms, batch, 0).value)
    assert torch.allclose(losses[1] - losses[0], 1.5 * objective.critic.last.weight.square().sum())


# Players --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
def test_each_weight_has_a_gradient_of_its_own_player_s_loss_alone(name: str) -> None:
    objective, vae, batch = attached(name)
    batch_terms = objective.terms_of(vae, batch)
    (own, critic) = objective.players(vae)
    critic.loss(batch_terms, batch, 0).value.backward()
    assert all(weight.grad is None for weight in vae.parameters())
    assert all(weight.grad is not None and weight.grad.any() for weight in critic.weights)
    objective.critic.zero_grad(set_to_none=True)
    own.loss(batch_terms, batch, 0).value.backward()
    assert all(weight.grad is None for weight in critic.weights)
    assert all(weight.grad is not None and weight.grad.any() for weight in vae.parameters())
    assert {*own.weights} == {*vae.parameters()} and {*critic.weights} == {*objective.critic.parameters()}


@pytest.mark.parametrize("name", MADE)
def test_no_gradients_are_needed_to_know_all_losses(name: str) -> None:
    objective, vae, batch = attached(name)
    with torch.inference_mode():
        batch_terms = objective.terms_of(vae, batch)
        losses = [player.loss(batch_terms, batch, 0) for player in objective.players(vae)]
    assert all(loss.value.isfinite() for loss in losses)


@pytest.mark.parametrize("name", MADE)
def test_the_ledger_has_both_losses(name: str) -> None:
    objective, _, _ = attached(name)
    entries = objective.ledger()
    assert [entry.term for entry in entries if "alone" in entry.formula] == ["critic/loss"]
    assert len(entries) >= 3 and all(all(entry) for entry in entries)


def test_a_critic_of_z_brings_a_shifted_aggregate_to_the_prior() -> None:
    objective = WaeGan(1.0, OF_VECTORS | {"hidden": [32, 32]})
    objective.critic = OfVectors(2, [32, 32])
    shift = nn.Parameter(torch.tensor([3.0, -2.0]))
    mover, critic = (
        torch.optim.Adam([shift], 0.02, betas=(0.5, 0.9)),
        torch.optim.Adam(objective.critic.parameters(), 3e-3, betas=(0.5, 0.9)),
    )
    path = []
    for _ in range(700):
        batch_terms = of(shift + torch.randn(200, 2))
        for optimizer, loss in ((mover, objective.loss), (critic, objective.told_apart)):
            optimizer.zero_grad()
            loss(batch_terms, Batch(torch.empty(0)), 0).value.backward(
                inputs=[weight for group in optimizer.param_groups for weight in group["params"]]
            )
            optimizer.step()
        path.append(shift.detach().clone())
    assert torch.stack(path[-100:]).mean(0).abs().max() < 0.3
