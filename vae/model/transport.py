"""Wasserstein distances of the aggregate posterior from the prior, and the objective that pulls one to the other."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vae.model.annealing import Count
from vae.model.objectives import OVER_BATCH, RECON, Batch, Entry, Loss, Needs, Objective, of_the_prior
from vae.model.vae import Terms

HALVINGS = 30  # of ε, from the square of the points' extent down to that asked for
SWEEPS = 20  # of more iterations at the last ε


class Wasserstein(Objective):
    """loss = recon + λ W₂²(q(z), p(z)) between a batch's z and as many draws of the prior.

    `sliced`: the mean over random directions of that between the points' projections, which is known by sorting
    (Kolouri et al., 2019). `sinkhorn`: the debiased cost of transport with an entropy weighed by `epsilon` (Feydy et
    al., 2019).
    """

    needs = Needs(whole_batch=True)

    def __init__(self, kind: str, weight: float, directions: int, epsilon: float):
        super().__init__()
        self.kind = kind
        self.weight = weight
        self.directions = directions
        self.epsilon = epsilon

    def loss(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        z = terms.latent.z
        p = of_the_prior(terms, batch)
        if self.kind == "sliced":
            distance = sliced(z, p, batch.noise.normal((self.directions, z.shape[1]), z, 0))
        else:
            distance = sinkhorn(z, p, self.epsilon)
        return Loss(terms.recon.mean() + self.weight * distance, {"wasserstein": distance})

    def ledger(self) -> list[Entry]:
        how = f"{self.directions} directions" if self.kind == "sliced" else f"Sinkhorn's with ε = {self.epsilon:g}"
        formula = f"W₂²(q(z), p(z)), {how}"
        return [RECON, Entry("wasserstein", formula, f"{self.weight:g}", OVER_BATCH, "1")]


def sliced(a: Tensor, b: Tensor, directions: Tensor) -> Tensor:
    """The mean over directions (k, n), of any length, of W₂² between the projections of points a and b, (m, n) each."""
    units = directions / directions.norm(dim=1, keepdim=True)
    one, other = ((points @ units.T).sort(0).values for points in (a, b))
    return (one - other).square().mean()


def sinkhorn(a: Tensor, b: Tensor, epsilon: float) -> Tensor:
    """S = OT(a, b) − ½ OT(a, a) − ½ OT(b, b) with squared distances as costs; none of a from itself."""
    return transport(a, b, epsilon) - 0.5 * transport(a, a, epsilon) - 0.5 * transport(b, b, epsilon)


def transport(a: Tensor, b: Tensor, epsilon: float, sweeps: int = SWEEPS) -> Tensor:
    """OT = min over plans π of ⟨π, C⟩ + ε KL(π ‖ uniform), Cᵢⱼ = ‖aᵢ − bⱼ‖²; of points (m, n) and (l, n).

    By its dual in logarithms: potentials f and g by Sinkhorn's iterations while ε falls, without a gradient, and a last
    f with it. Where g is at its optimum, that is the gradient of OT. With few `sweeps` at the last ε OT is some per
    cent too low.
    """
    costs = (a.unsqueeze(1) - b).square().sum(-1)
    with torch.no_grad():
        g = _potential(costs, epsilon, sweeps)
    return _softened(costs, g, epsilon, 1).mean() + g.mean()


def _potential(costs: Tensor, epsilon: float, sweeps: int) -> Tensor:
    """g (l,) of a matrix of costs (m, l)."""
    g = costs.new_zeros(costs.shape[1])
    extent = costs.max()
    for step in range(HALVINGS + sweeps):
        at = torch.clamp(extent * 0.5**step, min=epsilon)
        f = _softened(costs, g, at, 1)
        g = _softened(costs, f.unsqueeze(1), at, 0)
    return g


def _softened(costs: Tensor, potential: Tensor, epsilon: float | Tensor, dim: int) -> Tensor:
    """−ε log mean exp((potential − costs) / ε) over a dimension: the least of costs − potential, for ε → 0."""
    return -epsilon * (((potential - costs) / epsilon).logsumexp(dim) - math.log(costs.shape[dim]))
