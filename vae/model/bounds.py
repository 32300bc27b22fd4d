"""Objectives of several samples of z an image: bounds on log p(x) other than the ELBO."""

from __future__ import annotations

import math

from torch import Tensor

from vae.model.annealing import Count
from vae.model.distributions import detached
from vae.model.objectives import Batch, Entry, Loss, Needs, Objective
from vae.model.vae import Terms

NEAR_ONE = 1e-3  # |1 − α| below which the bound is that of a series in 1 − α


class IWAE(Objective):
    """loss = −log (1/k) Σᵢ wᵢ, wᵢ = p(x, zᵢ) / q(zᵢ|x): a tighter bound (Burda et al., 2016).

    `dreg` gives the encoder the doubly reparameterised gradient, of lower variance (Tucker et al., 2019).
    """

    def __init__(self, samples: int, dreg: bool = False):
        super().__init__()
        self.needs = Needs(samples)
        self.dreg = dreg

    def loss(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        if self.dreg:
            latent = terms.latent
            assert latent.q is not None
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


class Renyi(Objective):
    """loss = −1/(1 − α) log (1/k) Σᵢ wᵢ^(1−α), wᵢ = p(x, zᵢ) / q(zᵢ|x): the Rényi bound (Li and Turner, 2016).

    It falls with α. α = 0 is IWAE's, α → 1 the ELBO of k samples; above 1 q keeps to the modes, and below 0, where with
    enough samples it bounds log p(x) from above, q covers all.
    """

    def __init__(self, samples: int, alpha: float):
        super().__init__()
        self.needs = Needs(samples)
        self.alpha = alpha

    def loss(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        return Loss(-renyi(terms.log_weight, self.alpha).mean())

    def ledger(self) -> list[Entry]:
        k, alpha = self.needs.samples, self.alpha
        formula = f"−1/(1 − α) log 1/k Σ (p(x, z) / q(z|x))^(1 − α), α = {alpha:g}, k = {k}"
        if alpha == 1:
            formula = f"−1/k Σ log p(x, z) / q(z|x), k = {k}"
        return [Entry("renyi", formula, "1", "mean over images")]


def renyi(log_w: Tensor, alpha: float) -> Tensor:
    """The bound by log weights (k, batch), of each image."""
    order = 1 - alpha
    if abs(order) < NEAR_ONE:  # where the formula divides rounding errors by next to nothing
        return log_w.mean(0) + order / 2 * log_w.var(0, correction=0)
    return ((order * log_w).logsumexp(0) - math.log(len(log_w))) / order
