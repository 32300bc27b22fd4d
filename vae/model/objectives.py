"""Objectives: what a training step asks of the model, and how its terms become the loss that is minimised.

A new one is a subclass with `loss` and `ledger`; the forward pass is the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vae.common.types import TERMS
from vae.model.annealing import Annealing, Count
from vae.model.distributions import DiagonalNormal, kl
from vae.model.noise import FRESH, Draw, Noise, sampled
from vae.model.vae import VAE, Terms

OVER_PIXELS = "summed over channels and pixels, mean over images"
OVER_LATENTS = "summed over latent dimensions, mean over images"
OVER_BATCH = "of the batch"
EVEN = 0.01  # nats that a level has at the least where levels are balanced


class Entry(NamedTuple):
    """One term of the loss, as the run's ledger has it."""

    term: str
    formula: str
    weight: str  # over time
    reduction: str = OVER_LATENTS
    unit: str = "nats"


RECON = Entry("recon", "−E_q[log p(x|z)]", "1", OVER_PIXELS)


class Loss(NamedTuple):
    """What is minimised, and further figures worth logging, by name."""

    value: Tensor
    parts: Mapping[str, Tensor] = {}


class Batch(NamedTuple):
    """What one step sees."""

    images: Tensor  # (batch, channels, height, width) in [0, 1]
    labels: Tensor | None = None  # (batch,)
    noise: Noise = FRESH
    weight: float | None = None  # of a share's mean, where the average over the shares is to be the batch's mean


class Player(NamedTuple):
    """Who is optimised, and for what: each takes an update in every step, with an optimiser of its own."""

    name: str
    weights: Sequence[nn.Parameter]
    loss: Callable[[Terms, Batch, Count], Loss]  # without a gradient in the weights of other players
    rates: Mapping[str, Any] = {}  # arguments of its optimiser, in place of the configuration's
    updates: int = 1  # in a step, each by a loss of its own


class Needs(NamedTuple):
    """What an objective asks for."""

    samples: int | None = None  # of z an image; None: one, without a dimension of its own
    mean: bool = False  # z is the posterior's mean instead of a sample
    whole_batch: bool = False  # the loss of a batch is no mean over its images, so that processes cannot share it
    fitted_prior: bool = False  # after each epoch the prior is fitted to the training images' z


class Objective(nn.Module):
    """Base: one sample of z an image, whose mean −ELBO is to be minimised in some variation."""

    needs = Needs()
    steps = 1  # of the whole training; in the step after so many, all that is annealed has its final value

    @property
    def terms(self) -> tuple[str, ...]:
        """What is reported of the model: at the mean nobody trains σ, so that its KL means nothing."""
        return ("recon",) if self.needs.mean else TERMS

    def attach(self, vae: VAE) -> None:
        """Take note of the model, once it is there."""

    def prepare(self, steps: int, epochs: int) -> None:
        """Take note of how long the training is, before it begins."""
        self.steps = steps

    def annealed(self, step: int) -> float | None:
        """The weight of what is annealed in the step after `step` others; None where nothing is."""
        return None

    def players(self, vae: VAE) -> tuple[Player, ...]:
        """All who are optimised in a step, in this order; the first is the model."""
        others = [part for part in vae.parts if part.player]
        theirs = {weight for part in others for weight in part.parameters()}
        own = [weight for weight in vae.parameters() if weight.requires_grad and weight not in theirs]
        return (
            Player("model", own, self._loss_beside_others if others else self.loss),
            *(Player(str(part.player), list(part.parameters()), _length_of_codes) for part in others),
        )

    def _loss_beside_others(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        """The model's loss where the KL is another's to change: every weight has a gradient of one loss alone."""
        latents = tuple(latent._replace(kl=latent.kl.detach()) for latent in terms.latents)
        return self.loss(terms._replace(latents=latents), batch, step)

    def terms_of(self, vae: VAE, batch: Batch) -> Terms:
        """The forward pass, with z drawn as this objective needs it."""
        return vae(batch.images, batch.labels, Draw(batch.noise, self.needs.samples, self.needs.mean))

    def forward(self, vae: VAE, batch: Batch, step: Count) -> tuple[Loss, Terms]:
        """The model's loss of a batch in the step after `step` others, and the terms that it is made of."""
        terms = self.terms_of(vae, batch)
        return self.loss(terms, batch, step), terms

    def loss(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        """Terms of a batch → its loss."""
        raise NotImplementedError

    def ledger(self) -> list[Entry]:
        """The terms of the loss."""
        raise NotImplementedError


class ELBO(Objective):
    """loss = recon + β kl; β = 1 is −ELBO, β > 1 the β-VAE (Higgins et al., 2017).

    β is annealed; kl is charged only above `free_bits` nats, per dimension (Kingma et al., 2016) or in total; with
    `capacity` C the second term is β |kl − C|, C annealed in place of β (Burgess et al., 2018). Of several levels kl is
    the sum; `free_bits` may be of each, and in the warm-up `balance` weighs each by its KL for each of its numbers, on
    average by 1 (Vahdat and Kautz, 2020).
    """

    def __init__(
        self,
        beta: float,
        annealing: str = "constant",
        warmup: float = 0.0,
        cycles: int = 4,
        free_bits: float = 0.0,
        free_bits_per: str = "dimension",
        capacity: float | None = None,
        balance: bool = False,
    ):
        super().__init__()
        if free_bits and capacity is not None:
            raise ValueError(f"objective.free_bits={free_bits:g}: must be 0 with objective.capacity")
        self.beta = beta
        self.annealing = Annealing(annealing, warmup, cycles)
        self.is_floored = bool(free_bits)
        self.free_bits = free_bits
        self.free_bits_per = free_bits_per
        self.capacity = capacity
        self.balance = balance
        self.needs = Needs(whole_batch=bool(free_bits) or capacity is not None or balance)

    def prepare(self, steps: int, epochs: int) -> None:
        super().prepare(steps, epochs)
        self.annealing.prepare(steps, epochs)

    def annealed(self, step: int) -> float | None:
        return None if self.annealing.kind == "constant" else float(self.annealing(step))

    def loss(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        weight = self.annealing(step)
        besides = terms.recon if terms.penalty is None else terms.recon + terms.penalty  # the KL
        if self.capacity is not None:
            charged = (terms.kl.mean() - weight * self.capacity).abs()
            return Loss(besides.mean() + self.beta * charged)
        if self.balance or self.free_bits_per == "level":
            each = torch.stack([latent.kl.mean() for latent in terms.latents])  # (levels,)
            floored = each.clamp(min=self.free_bits) if self.free_bits_per == "level" else each
            charged = (floored * self._shares(terms, each.detach(), weight)).sum()
        elif not self.is_floored:
            charged = terms.kl.mean()
        elif self.free_bits_per == "total":
            charged = terms.kl.mean().clamp(min=self.free_bits)
        else:
            charged = _kl_per_dimension(terms).mean(0).clamp(min=self.free_bits).sum()
        return Loss(besides.mean() + weight * self.beta * charged)

    def _shares(self, terms: Terms, kl: Tensor, weight: float | Tensor) -> Tensor:
        """γ of each level, (levels,): 1 after the warm-up."""
        if not self.balance or (isinstance(weight, float) and weight >= 1):
            return torch.ones_like(kl)
        of_a_number = torch.stack(
            [(each + EVEN) / latent.z.shape[-1] for each, latent in zip(kl, terms.latents, strict=True)]
        )
        shares = of_a_number / of_a_number.mean()
        return torch.where(weight < 1, shares, 1.0) if isinstance(weight, Tensor) else shares

    def ledger(self) -> list[Entry]:
        if self.capacity is not None:
            formula = f"|KL(q(z|x) ‖ p(z)) − C|, C = {self.capacity:g}, {self.annealing}"
            return [RECON, Entry("|kl − C|", formula, f"{self.beta:g}")]
        formula = "KL(q(z|x) ‖ p(z))"
        if self.free_bits:
            each = {"dimension": "of each dimension", "level": "of each level", "total": "in total"}[self.free_bits_per]
            formula += f", at least {self.free_bits:g} nats {each}"
        if self.balance:
            formula += ", its levels balanced in the warm-up"
        weight = f"{self.beta:g}" if str(self.annealing) == "constant" else f"{self.beta:g}, {self.annealing}"
        return [RECON, Entry("kl", formula, weight)]


class Autoencoder(Objective):
    """loss = recon at the posterior's mean: deterministic and without kl, the tutorial's starting point.

    Nothing makes the codes follow the prior, so that samples of it are decoded poorly.
    """

    needs = Needs(mean=True)

    def loss(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        return Loss(terms.recon.mean())

    def ledger(self) -> list[Entry]:
        return [Entry("recon", "−log p(x|z) at z = E[z|x]", "1", OVER_PIXELS)]


@torch.no_grad()
def of_the_prior(terms: Terms, batch: Batch) -> Tensor:
    """As many draws of the only level's prior as there are z, without a gradient."""
    return sampled(terms.latent.p, batch.noise, terms.latent.z.shape[:1])


def _length_of_codes(terms: Terms, batch: Batch, step: Count) -> Loss:
    """−log p(codes), which only its prior can change."""
    return Loss(terms.kl.mean())


def _kl_per_dimension(terms: Terms) -> Tensor:
    """(batch, numbers of all levels), where the KL is a sum over dimensions."""
    found = []
    for z, _, q, p, *_ in terms.latents:
        if not (isinstance(q, DiagonalNormal) and isinstance(p, DiagonalNormal)):
            raise ValueError(
                "objective.free_bits_per=dimension: needs a KL that is a sum over dimensions, as of posterior=diagonal "
                "with prior=isotropic; use objective.free_bits_per=total"
            )
        found.append(kl(q.base_dist, p.base_dist, z))
    return torch.cat(found, -1)
