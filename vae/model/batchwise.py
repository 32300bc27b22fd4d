"""Objectives that look at the aggregate posterior q(z) of a whole batch: β-TCVAE, InfoVAE and WAE, DIP-VAE."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vae.model.annealing import Count
from vae.model.distributions import DiagonalNormal, FullNormal, marginals, whitened
from vae.model.objectives import OVER_BATCH, RECON, Batch, Entry, Loss, Needs, Objective, of_the_prior
from vae.model.vae import Terms


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

    def loss(self, terms: Terms, batch: Batch, step: Count) -> Loss:
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

    def loss(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        z = terms.latent.z
        p = of_the_prior(terms, batch)
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

    def loss(self, terms: Terms, batch: Batch, step: Count) -> Loss:
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
