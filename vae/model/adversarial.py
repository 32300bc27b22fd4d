"""Objectives with a critic, who is optimised against the model: FactorVAE, WAE-GAN, VAE-GAN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import softplus

from vae.model.annealing import Count
from vae.model.critics import Critic, OfImages, OfVectors, Seen
from vae.model.distributions import DiagonalNormal, FullNormal, whitened
from vae.model.noise import Noise
from vae.model.objectives import OVER_BATCH, RECON, Batch, Entry, Loss, Needs, Objective, Player, of_the_prior
from vae.model.vae import VAE, Terms

OWN = "minimised by the critic alone"


class Adversarial(Objective):
    """Base: a critic learns to tell two kinds of things apart, and its opinion of the model's enters the model's loss.

    The critic minimises E[−log s(D(a))] + E[−log s(−D(b))] over the kinds a and b, s the sigmoid (Goodfellow et al.,
    2014). Of `critic`, `lr` and `betas` are its optimiser's, which is of the model's class, and `updates` is how many
    it takes in a step; what else there is makes its network.
    """

    critic: Critic

    def __init__(self, critic: Mapping[str, Any]):
        super().__init__()
        self.of_critic = dict(critic)

    def attach(self, vae: VAE) -> None:
        self.critic = self.made(vae)

    def made(self, vae: VAE) -> Critic:
        """The critic's network; of z unless it is another."""
        return OfVectors(vae.numbers, self.of_critic["hidden"])

    def kinds(self, terms: Terms, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the critic is to tell apart, through which no gradient flows."""
        raise NotImplementedError

    def players(self, vae: VAE) -> tuple[Player, ...]:
        rates = {name: self.of_critic[name] for name in ("lr", "betas")}
        weights = list(self.critic.parameters())
        critic = Player("critic", weights, self.told_apart, rates, self.of_critic["updates"])
        return *super().players(vae), critic

    def told_apart(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        """The critic's loss, and how often it is right."""
        first, second = (self.critic(kind) for kind in self.kinds(terms, batch))
        right = 0.5 * ((first.logit > 0).float().mean() + (second.logit <= 0).float().mean())
        return Loss(softplus(-first.logit).mean() + softplus(second.logit).mean(), {"accuracy": right})

    def opinion(self, x: Tensor) -> Seen:
        """What the critic makes of x for the model's loss, which has no gradient in the critic's weights."""
        weights = {name: weight.detach() for name, weight in self.critic.named_parameters()}
        seen = functional_call(self.critic, weights, (x,))
        assert isinstance(seen, Seen)
        return seen


class Factor(Adversarial):
    """loss = recon + kl + γ tc: FactorVAE (Kim and Mnih, 2018).

    tc = KL(q(z) ‖ Πⱼ q(zⱼ)) is the mean of the critic's logit, where it tells z from vectors whose dimensions are of
    different images. The paper takes a second batch for these, so that both kinds are independent. Here
    `data.batch_size` stays what a step sees: the model's loss is of all images, and the critic has z of the first half
    and permuted ones of the second. All in coordinates in which a Gaussian prior is N(0, I).
    """

    needs = Needs(whole_batch=True)

    def __init__(self, gamma: float, critic: Mapping[str, Any]):
        super().__init__(critic)
        self.gamma = gamma

    def loss(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        tc = self.opinion(_independently(terms)).logit.mean()
        return Loss(terms.recon.mean() + terms.kl.mean() + self.gamma * tc, {"critic_tc": tc})

    def kinds(self, terms: Terms, batch: Batch) -> tuple[Tensor, Tensor]:
        z = _independently(terms).detach()
        half = -(-len(z) // 2)  # of an odd number both have the one in the middle
        return z[:half], permuted(z[-half:], batch.noise)

    def ledger(self) -> list[Entry]:
        return [
            RECON,
            Entry("kl", "KL(q(z|x) ‖ p(z))", "1"),
            Entry("critic_tc", "E[D(z)] ≈ tc of q(z), where the prior is N(0, I)", f"{self.gamma:g}", OVER_BATCH),
            Entry("critic/loss", f"−log s(D(z)) − log s(−D(z permuted)), {OWN}", "1", OVER_BATCH, "1"),
        ]


def _independently(terms: Terms) -> Tensor:
    """z in coordinates in which a Gaussian prior is N(0, I)."""
    latent = terms.latent
    assert isinstance(latent.q, DiagonalNormal | FullNormal)
    return whitened(latent.q, latent.z, latent.p)[1]


def permuted(z: Tensor, noise: Noise) -> Tensor:
    """z (batch, n) with each dimension's numbers in an order of their own: of the same marginals, but independent."""
    return z.gather(0, noise.uniform(z.shape, z, 0).argsort(0))


class WaeGan(Adversarial):
    """loss = recon − λ log s(D(z)): the Wasserstein autoencoder with a critic of z (Tolstikhin et al., 2018).

    The critic tells draws of the prior from z, so that the aggregate posterior is pulled to the prior. With λ = 1 it is
    the adversarial autoencoder (Makhzani et al., 2016), whose updates are all of one batch here.
    """

    def __init__(self, weight: float, critic: Mapping[str, Any]):
        super().__init__(critic)
        self.weight = weight

    def loss(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        fooling = softplus(-self.opinion(terms.latent.z).logit).mean()
        return Loss(terms.recon.mean() + self.weight * fooling, {"fooling": fooling})

    def kinds(self, terms: Terms, batch: Batch) -> tuple[Tensor, Tensor]:
        return of_the_prior(terms, batch), terms.latent.z.detach()

    def ledger(self) -> list[Entry]:
        return [
            RECON,
            Entry("fooling", "−log s(D(z))", f"{self.weight:g}", "mean over images", "1"),
            Entry("critic/loss", f"−log s(D(z′)) − log s(−D(z)), z′ of the prior, {OWN}", "1", "mean over images", "1"),
        ]


class VaeGan(Adversarial):
    """loss = β kl + likeness + π recon − λ log s(D(x′)): VAE-GAN (Larsen et al., 2016).

    The critic tells images from decoded ones, E[x|z] of the images' own z and of draws of the prior, x′. likeness =
    ½ ‖D_l(x) − D_l(E[x|z])‖² compares an image with its reconstruction in the critic's last features. What the critic
    thinks of reconstructions does not reach the model, as in the paper the encoder's.

    `r1` steadies it: ½ r1 ‖∇D(x)‖² at true images is added to the critic's loss (Mescheder et al., 2018). Spectral
    normalisation would do so, too, but has a state that every pass changes. Without gradients, as in validation, that
    term is left out.
    """

    def __init__(self, beta: float, weight: float, pixels: float, critic: Mapping[str, Any]):
        super().__init__(critic)
        self.beta = beta
        self.weight = weight
        self.pixels = pixels

    def attach(self, vae: VAE) -> None:
        super().attach(vae)
        self._decode = vae.decode

    def made(self, vae: VAE) -> Critic:
        return OfImages(vae.backbone.shape, self.of_critic["channels"])

    def loss(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        with torch.no_grad():
            goal = self.critic(batch.images).features
        likeness = 0.5 * (self.opinion(terms.p_x.mean).features - goal).square().sum(1).mean()
        fooling = softplus(-self.opinion(self._drawn(terms, batch)).logit).mean()
        value = self.beta * terms.kl.mean() + likeness + self.pixels * terms.recon.mean() + self.weight * fooling
        return Loss(value, {"likeness": likeness, "fooling": fooling})

    def kinds(self, terms: Terms, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return batch.images, torch.cat([terms.p_x.mean.detach(), self._drawn(terms, batch)])

    def told_apart(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        loss = super().told_apart(terms, batch, step)
        if not (self.of_critic["r1"] and torch.is_grad_enabled()):
            return loss
        x = batch.images.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(x).logit.sum(), x, create_graph=True)
        return loss._replace(value=loss.value + 0.5 * self.of_critic["r1"] * slope.square().flatten(1).sum(1).mean())

    def _drawn(self, terms: Terms, batch: Batch) -> Tensor:
        """E[x|z] of draws of the prior, as many as the batch has images and of their classes."""
        return self._decode(of_the_prior(terms, batch), batch.labels).mean

    def ledger(self) -> list[Entry]:
        steady = f", + {self.of_critic['r1'] / 2:g} ‖∇D(x)‖²" if self.of_critic["r1"] else ""
        told = f"−log s(D(x)) − log s(−D(decoded)){steady}, {OWN}"
        return [
            Entry("kl", "KL(q(z|x) ‖ p(z))", f"{self.beta:g}"),
            Entry(
                "likeness",
                "½ ‖D_l(x) − D_l(E[x|z])‖², D_l the critic's features",
                "1",
                "summed over features, mean over images",
                "1",
            ),
            RECON._replace(weight=f"{self.pixels:g}"),
            Entry("fooling", "−log s(D(E[x|z′])), z′ of the prior", f"{self.weight:g}", "mean over images", "1"),
            Entry("critic/loss", told, "1", "mean over images", "1"),
        ]
