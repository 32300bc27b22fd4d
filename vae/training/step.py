"""One step of training: an update by every player from one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vae.common.types import KL_OF_LEVEL
from vae.model.annealing import Count
from vae.model.objectives import Batch, Loss, Objective, Player
from vae.model.vae import VAE, Terms


class Means(NamedTuple):
    """What is logged of a batch, on the device; the model's loss first."""

    names: tuple[str, ...]
    values: Tensor  # (names,); of several runs (runs, names)


class Step(Protocol):
    """Takes the step after `step` others; returns what is logged of it."""

    def __call__(self, batch: Batch, step: Count) -> Means: ...


class Update(Protocol):
    """Changes a player's weights by the gradient of a loss."""

    def __call__(self, loss: Tensor, weights: Sequence[nn.Parameter] | None) -> None:
        """`weights` are the only ones to get a gradient; None: all that the loss depends on."""


class Descent:
    """An update by an optimiser, at the rate that it has."""

    def __init__(self, optimizer: Optimizer, clip: Callable[[Optimizer], None] | None = None) -> None:
        self.optimizer = optimizer
        self.clip = clip
        self.take: Callable[[], object] = optimizer.step  # may be replaced by what does the same
        self.weights = [weight for group in optimizer.param_groups for weight in group["params"]]

    def __call__(self, loss: Tensor, weights: Sequence[nn.Parameter] | None) -> None:
        for weight in self.weights:  # optimizer.zero_grad() in a tenth of its time
            weight.grad = None
        loss.backward(inputs=weights)
        self.apply()

    def apply(self) -> None:
        """Change the weights by the gradients that they have."""
        if self.clip is not None:
            self.clip(self.optimizer)
        self.take()


def eager(model: VAE, objective: Objective, updates: Mapping[str, Update]) -> Step:
    """Forward; each player's gradient and update, by name; observe."""
    players = objective.players(model)
    is_alone = len(players) == 1  # then no other weights get a gradient that nobody clears

    def take(batch: Batch, step: Count) -> Means:
        terms = objective.terms_of(model, batch)
        losses = losses_of(players, terms, batch, step)  # all of them at the weights before the step
        for player in players:
            loss = losses[player.name]
            for update in range(player.updates):
                loss = player.loss(terms, batch, step) if update else loss
                value = loss.value if batch.weight is None else loss.value * batch.weight
                updates[player.name](value, None if is_alone else player.weights)
        model.observe(terms)
        return means_of(objective, terms, losses)

    return take


def without_update(model: VAE, objective: Objective) -> Step:
    """Forward, and every player's loss."""

    def take(batch: Batch, step: Count) -> Means:
        terms = objective.terms_of(model, batch)
        return means_of(objective, terms, losses_of(objective.players(model), terms, batch, step))

    return take


def losses_of(players: Sequence[Player], terms: Terms, batch: Batch, step: Count) -> dict[str, Loss]:
    """Every player's loss by name."""
    return {player.name: player.loss(terms, batch, step) for player in players}


@torch.no_grad()
def means_of(objective: Objective, terms: Terms, losses: Mapping[str, Loss]) -> Means:
    """What is logged of a batch: the model's loss, the terms that apply, the losses of others and all parts."""
    recon, kl = terms.recon.mean(), terms.kl.mean()
    every = {"total": recon + kl, "recon": recon, "kl": kl}
    (_, loss), *others = losses.items()
    means = {"loss": loss.value, **{name: every[name] for name in objective.terms}, **loss.parts}
    if len(terms.latents) > 1 and "kl" in means:
        means |= {KL_OF_LEVEL.format(place): latent.kl.mean() for place, latent in enumerate(terms.latents, 1)}
    for latent in terms.latents:
        means |= latent.parts
    for name, other in others:
        means |= {f"{name}/{part}": value for part, value in {"loss": other.value, **other.parts}.items()}
    return Means(tuple(means), torch.stack(list(means.values())))
