"""A step by one player or two, beside the same written out by hand."""

import copy

import pytest
import torch
from models import PIXELS, SHAPE, linear_gaussian
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from vae.model.annealing import Count
from vae.model.objectives import ELBO, Batch, Loss, Player
from vae.model.posteriors import Diagonal
from vae.model.vae import VAE, Terms
from vae.training.step import Descent, Means, eager, without_update

RATE = 0.01


class Adversarial(ELBO):
    """A critic tells decoded images from true ones; the model is paid for those that it takes for true ones."""

    def __init__(self) -> None:
        super().__init__(beta=1.0)
        self.critic = nn.Linear(PIXELS, 1).double()

    def players(self, vae: VAE) -> tuple[Player, ...]:
        return *super().players(vae), Player("critic", list(self.critic.parameters()), self.told_apart)

    def loss(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        fooled = F.softplus(-self.critic(terms.p_x.mean.flatten(1))).mean()
        return Loss(super().loss(terms, batch, step).value + fooled, {"fooled": fooled})

    def told_apart(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        false, true = terms.p_x.mean.detach().flatten(1), batch.images.flatten(1)
        return Loss(F.softplus(self.critic(false)).mean() + F.softplus(-self.critic(true)).mean())


def made(objective: ELBO, clip: float | None = None) -> tuple[VAE, dict[str, Descent]]:
    """A model, and for each player plain gradient descent."""
    model, _, _ = linear_gaussian("isotropic", "diagonal")

    def clipped(optimizer: torch.optim.Optimizer) -> None:
        assert clip is not None
        nn.utils.clip_grad_norm_([weight for group in optimizer.param_groups for weight in group["params"]], clip)

    updates = {}
    for player in objective.players(model):
        optimizer = SGD(player.weights, RATE)
        updates[player.name] = Descent(optimizer, None if clip is None else clipped)
    return model, updates


def batches(count: int) -> list[Batch]:
    return [Batch(torch.rand(5, *SHAPE, dtype=torch.float64)) for _ in range(count)]


def by_name(means: Means) -> dict[str, Tensor]:
    return dict(zip(means.names, means.values.unbind(), strict=True))


def descend(weights: list[Tensor], loss: Tensor, rate: float, clip: float | None = None) -> None:
    """By formula."""
    gradients = torch.autograd.grad(loss, weights)
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    factor = 1.0 if clip is None else min(1.0, clip / norm.item())
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight -= rate * factor * gradient


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("objective", [ELBO(2.0), Adversarial()], ids=["alone", "with a critic"])
def test_each_player_descends_its_own_loss_in_its_own_weights(objective: ELBO, clip: float | None) -> None:
    model, updates = made(objective, clip)
    other, other_objective = copy.deepcopy((model, objective))
    step = eager(model, objective, updates)
    for count, batch in enumerate(batches(3)):
        torch.manual_seed(count)
        step(batch, count)
        torch.manual_seed(count)
        terms = other(batch.images)
        for player in other_objective.players(other):
            loss = player.loss(terms, batch, count).value
            descend(list(player.weights), loss, RATE, clip)
    for mine, theirs in ((model, other), (objective, other_objective)):
        for name, weight in mine.state_dict().items():
            assert torch.allclose(weight, theirs.state_dict()[name], rtol=1e-6), name


def test_what_is_logged_is_of_the_weights_before_the_step() -> None:
    objective = Adversarial()
    model, updates = made(objective)
    (batch,) = batches(1)
    torch.manual_seed(0)
    before = by_name(without_update(model, objective)(batch, 0))
    assert list(before) == ["loss", "total", "recon", "kl", "fooled", "critic/loss"]
    torch.manual_seed(0)
    after = by_name(eager(model, objective, updates)(batch, 0))
    assert after.pop("critic/loss") == pytest.approx(before.pop("critic/loss").item())
    assert after == before and not any(value.requires_grad for value in after.values())
    assert before["loss"].item() == pytest.approx((before["recon"] + before["kl"] + before["fooled"]).item())


def test_shares_add_up_to_the_step_of_the_whole_batch() -> None:
    """Of plain gradient descent: the average of the steps is the step by the average."""
    (batch,) = batches(1)

    def moved(images: Tensor, weight: float | None) -> list[Tensor]:
        torch.manual_seed(0)
        model, updates = made(ELBO(1.0))
        assert isinstance(model.posterior, Diagonal)
        nn.init.zeros_(model.posterior.log_var.weight)
        nn.init.constant_(model.posterior.log_var.bias, -100.0)  # without noise
        before = [value.clone() for value in model.parameters()]
        eager(model, ELBO(1.0), updates)(Batch(images, weight=weight), 0)
        return [value - start for value, start in zip(model.parameters(), before, strict=True)]

    whole = moved(batch.images, None)
    shares = [moved(batch.images[:3], 2 * 3 / 5), moved(batch.images[3:], 2 * 2 / 5)]
    for step, parts in zip(whole, zip(*shares, strict=True), strict=True):
        assert torch.allclose(step, sum(parts) / 2, atol=1e-12)


def test_the_model_learns_from_a_step_what_gradients_do_not_teach(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = ELBO(1.0)
    model, updates = made(objective)
    seen: list[tuple[Terms, list[Tensor]]] = []
    start = [weight.clone() for weight in model.parameters()]
    monkeypatch.setattr(model, "observe", lambda terms: seen.append((terms, [*map(torch.clone, model.parameters())])))
    eager(model, objective, updates)(batches(1)[0], 0)
    ((terms, weights),) = seen
    assert terms.recon.shape == (5,)
    assert not all(torch.equal(*pair) for pair in zip(weights, start, strict=True))  # after the updates
