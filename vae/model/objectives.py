"""Objectives: what a training step asks of the model, and how its terms become the loss that is minimised.

A new one is a subclass with `loss` and `ledger`; the forward pass is the model's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae.common.types import TERMS
from vae.model.annealing import Annealing
from vae.model.distributions import DiagonalNormal, FullNormal, detached, kl, marginals, whitened
from vae.model.noise import FRESH, Draw, Noise, sampled
from vae.model.vae import VAE, Terms

OVER_PIXELS = "summed over channels and pixels, mean over images"
OVER_LATENTS = "summed over latent dimensions, mean over images"
OVER_BATCH = "of the batch"


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


class Needs(NamedTuple):
    """What an objective asks for."""

    samples: int | None = None  # of z an image; None: one, without a dimension of its own
    mean: bool = False  # z is the posterior's mean instead of a sample
    whole_batch: bool = False  # the loss of a batch is no mean over its images, so that processes cannot share it


class Objective(nn.Module):
    """Base: one sample of z an image, whose mean −ELBO is to be minimised in some variation."""

    needs = Needs()
    steps = 1  # of the whole training; in the step after so many, all that is annealed has its final value

    @property
    def terms(self) -> tuple[str, ...]:
        """What is reported of the model: at the mean nobody trains σ, so that its KL means nothing."""
        return ("recon",) if self.needs.mean else TERMS

    def prepare(self, steps: int, epochs: int) -> None:
        """Take note of how long the training is, before it begins."""
        self.steps = steps

    def forward(self, vae: VAE, batch: Batch, step: int) -> tuple[Loss, Terms]:
        """The loss of a batch in the step after `step` others, and the terms that it is made of."""
        terms = vae(batch.images, batch.labels, Draw(batch.noise, self.needs.samples, self.needs.mean))
        return self.loss(terms, batch, step), terms

    def loss(self, terms: Terms, batch: Batch, step: int) -> Loss:
        """Terms of a batch → its loss."""
        raise NotImplementedError

    def ledger(self) -> list[Entry]:
        """The terms of the loss."""
        raise NotImplementedError


class ELBO(Objective):
    """loss = recon + β kl; β = 1 is −ELBO, β > 1 the β-VAE (Higgins et al., 2017).

    β is annealed; kl is charged only above `free_bits` nats, per dimension (Kingma et al., 2016) or in total; with
    `capacity` C the second term is β |kl − C|, C annealed in place of β (Burgess et al., 2018).
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
    ):
        super().__init__()
        if free_bits and capacity is not None:
            raise ValueError(f"objective.free_bits={free_bits:g}: must be 0 with objective.capacity")
        self.beta = beta
        self.annealing = Annealing(annealing, warmup, cycles)
        self.free_bits = free_bits
        self.free_bits_per = free_bits_per
        self.capacity = capacity
        self.needs = Needs(whole_batch=bool(free_bits) or capacity is not None)

    def prepare(self, steps: int, epochs: int) -> None:
        super().prepare(steps, epochs)
        self.annealing.prepare(steps, epochs)

    def loss(self, terms: Terms, batch: Batch, step: int) -> Loss:
        weight = self.annealing(step)
        if self.capacity is not None:
            charged = (terms.kl.mean() - weight * self.capacity).abs()
            return Loss(terms.recon.mean() + self.beta * charged)
        if not self.free_bits:
            charged = terms.kl.mean()
        elif self.free_bits_per == "total":
            charged = terms.kl.mean().clamp(min=self.free_bits)
        else:
            charged = _kl_per_dimension(terms).mean(0).clamp(min=self.free_bits).sum()
        return Loss(terms.recon.mean() + weight * self.beta * charged)

    def ledger(self) -> list[Entry]:
        if self.capacity is not None:
            formula = f"|KL(q(z|x) ‖ p(z)) − C|, C = {self.capacity:g}, {self.annealing}"
            return [RECON, Entry("|kl − C|", formula, f"{self.beta:g}")]
        formula = "KL(q(z|x) ‖ p(z))"
        if self.free_bits:
            each = "of each dimension" if self.free_bits_per == "dimension" else "in total"
            formula += f", at least {self.free_bits:g} nats {each}"
        weight = f"{self.beta:g}" if str(self.annealing) == "constant" else f"{self.beta:g}, {self.annealing}"
        return [RECON, Entry("kl", formula, weight)]


class IWAE(Objective):
    """loss = −log (1/k) Σᵢ wᵢ, wᵢ = p(x, zᵢ) / q(zᵢ|x): a tighter bound (Burda et al., 2016).

    `dreg` gives the encoder the doubly reparameterised gradient, of lower variance (Tucker et al., 2019).
    """

    def __init__(self, samples: int, dreg: bool = False):
        super().__init__()
        self.needs = Needs(samples)
        self.dreg = dreg

    def loss(self, terms: Terms, batch: Batch, step: int) -> Loss:
        if self.dreg:
            latent = terms.latent
            terms = terms._replace(latents=(latent._replace(q=detached(latent.q)),))
        log_w = terms.log_weight  # (samples, batch)
        bound = log_w.logsumexp(0) - math.log(len(log_w))
        if not self.dreg or not latent.z.requires_grad:
            return Loss(-bound.mean())
        w = log_w.detach().softmax(0)
        # ∂z brings in w a second time; all other weights of the model get it once, as without dreg.
        latent.z.register_hook(lambda gradient: (w.unsqueeze(-1) * gradient).to(gradient.dtype))
        surrogate = (w * log_w).sum(0)
        return Loss(-(surrogate + (bound - surrogate).detach()).mean())

    def ledger(self) -> list[Entry]:
        gradient = "doubly reparameterised gradient" if self.dreg else "plain gradient"
        formula = f"−log 1/k Σ p(x, z) / q(z|x), k = {self.needs.samples}, {gradient}"
        return [Entry("iwae", formula, "1", "mean over images")]


class TC(Objective):
    """loss = recon + mi + β tc + dwkl: the KL taken apart, its total correlation weighted (Chen et al., 2018).

    mi = log q(z|x) − log q(z), tc = log q(z) − Σⱼ log q(zⱼ), dwkl = Σⱼ log q(zⱼ) − log p(z), where q(z) is the
    aggregate posterior of the batch, in coordinates in which a Gaussian prior is N(0, I): against a correlated prior
    that is the dependence which the prior does not have. They are logged as the batch's, because for few images in many
    dimensions tc is large also where the dimensions are independent.
    """

    needs = Needs(whole_batch=True)

    def __init__(self, beta: float):
        super().__init__()
        self.beta = beta

    def loss(self, terms: Terms, batch: Batch, step: int) -> Loss:
        mi, tc, dwkl = (part.mean() for part in decomposed(terms))
        value = terms.recon.mean() + mi + self.beta * tc + dwkl
        return Loss(value, {"batch_mi": mi, "batch_tc": tc, "batch_dwkl": dwkl})

    def ledger(self) -> list[Entry]:
        return [
            RECON,
            Entry("batch_mi", "log q(z|x) − log q(z), q(z) the batch's aggregate posterior", "1"),
            Entry("batch_tc", "log q(z) − Σⱼ log q(zⱼ), where the prior is N(0, I)", f"{self.beta:g}"),
            Entry("batch_dwkl", "Σⱼ log q(zⱼ) − log p(z)", "1"),
        ]


def decomposed(terms: Terms) -> tuple[Tensor, Tensor, Tensor]:
    """mi, tc and dwkl of each image, (batch,) each: their sum is log q(z|x) − log p(z), whose mean is the KL.

    In the coordinates that make a Gaussian prior N(0, I), and with q(z) = 1/B Σₙ q(z|xₙ) over the batch, each is a
    divergence, never negative but for the noise of z; dwkl is none where the prior is not Gaussian. It is the
    minibatch-weighted estimate of Chen et al. without its constants: their weights 1/BN, N the number of training
    images, add (latent_dim − 1) log N to tc. For the aggregate of all images mi, which is at most log B here, is
    larger and tc smaller. Their stratified estimate is unbiased for q(z), but its logarithm is so noisy that tc comes
    out at −2 nats where it is 0.1.
    """
    latent = terms.latent
    if not isinstance(latent.q, DiagonalNormal | FullNormal):
        raise ValueError(f"{type(latent.q).__name__}: must be a Gaussian, whose marginals are known")
    q, each_z, p = whitened(latent.q, latent.z, latent.p)
    z = each_z.unsqueeze(1)  # (batch, 1, latent_dim): each z under the posterior of each image
    log_joint = q.log_prob(z)  # (batch, batch)
    log_each = marginals(q).base_dist.log_prob(z)  # (batch, batch, latent_dim)
    count = math.log(len(log_joint))
    log_q_x = log_joint.diagonal()
    log_q = log_joint.logsumexp(1) - count
    log_q_each = (log_each.logsumexp(1) - count).sum(-1)
    return log_q_x - log_q, log_q - log_q_each, log_q_each - p.log_prob(each_z)


class MMD(Objective):
    """loss = recon + (1 − α) kl + (α + λ − 1) mmd: InfoVAE (Zhao et al., 2019); α = 1 is the WAE with MMD.

    mmd = E k(z, z′) + E k(p, p′) − 2 E k(z, p) for z from the posterior, p from the prior, with inverse multiquadric
    kernels k(a, b) = Σₛ 2sd / (2sd + ‖a − b‖²) of several widths s (Tolstikhin et al., 2018).
    """

    needs = Needs(whole_batch=True)
    SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

    def __init__(self, alpha: float, weight: float):
        super().__init__()
        self.alpha = alpha
        self.weight = weight

    def loss(self, terms: Terms, batch: Batch, step: int) -> Loss:
        z = terms.latent.z
        with torch.no_grad():
            p = sampled(terms.latent.p, batch.noise, z.shape[:1])
        mmd = self.mmd(z, p)
        value = terms.recon.mean() + (1 - self.alpha) * terms.kl.mean() + (self.alpha + self.weight - 1) * mmd
        return Loss(value, {"mmd": mmd})

    def mmd(self, a: Tensor, b: Tensor) -> Tensor:
        """The unbiased squared distance of the distributions of a and b, (batch, latent_dim) each."""
        n = len(a)
        if n < 2:
            return a.sum() * 0  # one image has no distance from another
        same = (self._kernel(a, a).sum() + self._kernel(b, b).sum() - 2 * n * len(self.SCALES)) / (n * (n - 1))
        return same - 2 * self._kernel(a, b).mean()

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        squared = (a.unsqueeze(1) - b).square().sum(-1)
        widths = [scale * 2 * a.shape[-1] for scale in self.SCALES]
        return torch.stack([width / (width + squared) for width in widths]).sum(0)

    def ledger(self) -> list[Entry]:
        weight = f"{self.alpha + self.weight - 1:g}"
        return [
            RECON,
            Entry("kl", "KL(q(z|x) ‖ p(z))", f"{1 - self.alpha:g}"),
            Entry("mmd", "MMD²(q(z) ‖ p(z)), seven inverse multiquadric kernels", weight, OVER_BATCH, "1"),
        ]


class DIP(Objective):
    """loss = recon + β kl + λ_od Σᵢ≠ⱼ Cᵢⱼ² + λ_d Σᵢ (Cᵢᵢ − 1)² (Kumar et al., 2018).

    C is the covariance of the posterior means (`kind` 1) or of the aggregate posterior (2), in coordinates in which a
    Gaussian prior is N(0, I): the aggregate is pulled to the prior's covariance, whatever that is.
    """

    needs = Needs(whole_batch=True)

    def __init__(self, beta: float, kind: int, off_diagonal: float, diagonal: float):
        super().__init__()
        self.beta = beta
        self.kind = kind
        self.off_diagonal = off_diagonal
        self.diagonal = diagonal

    def loss(self, terms: Terms, batch: Batch, step: int) -> Loss:
        latent = terms.latent
        assert isinstance(latent.q, DiagonalNormal | FullNormal)
        q, _, _ = whitened(latent.q, latent.z, latent.p)
        centred = q.mean - q.mean.mean(0)
        c = centred.T @ centred / len(centred)
        if self.kind == 2:
            c = c + q.covariance_matrix.mean(0)
        on = c.diagonal()
        off = c.square().sum() - on.square().sum()
        penalty = self.off_diagonal * off + self.diagonal * (on - 1).square().sum()
        return Loss(terms.recon.mean() + self.beta * terms.kl.mean() + penalty, {"dip": penalty})

    def ledger(self) -> list[Entry]:
        of = "the posterior means" if self.kind == 1 else "the aggregate posterior"
        of += ", where the prior is N(0, I)"
        return [
            RECON,
            Entry("kl", "KL(q(z|x) ‖ p(z))", f"{self.beta:g}"),
            Entry(
                "dip_off",
                f"Σᵢ≠ⱼ Cᵢⱼ², C the covariance of {of}",
                f"{self.off_diagonal:g}",
                OVER_BATCH,
                "1",
            ),
            Entry("dip_on", "Σᵢ (Cᵢᵢ − 1)²", f"{self.diagonal:g}", OVER_BATCH, "1"),
        ]


class Autoencoder(Objective):
    """loss = recon at the posterior's mean: deterministic and without kl, the tutorial's starting point.

    Nothing makes the codes follow the prior, so that samples of it are decoded poorly.
    """

    needs = Needs(mean=True)

    def loss(self, terms: Terms, batch: Batch, step: int) -> Loss:
        return Loss(terms.recon.mean())

    def ledger(self) -> list[Entry]:
        return [Entry("recon", "−log p(x|z) at z = E[z|x]", "1", OVER_PIXELS)]


def _kl_per_dimension(terms: Terms) -> Tensor:
    """(batch, latent_dim), where the KL is a sum over dimensions."""
    latent = terms.latent
    if not (isinstance(latent.q, DiagonalNormal) and isinstance(latent.p, DiagonalNormal)):
        raise ValueError(
            "objective.free_bits_per=dimension: needs a KL that is a sum over dimensions, as of posterior=diagonal "
            "with prior=isotropic; use objective.free_bits_per=total"
        )
    return kl(latent.q.base_dist, latent.p.base_dist, latent.z)
