"""Batches of posteriors, and the terms that objectives see of them."""

import torch
from models import terms
from torch import Tensor
from torch.distributions import Distribution

from vae.model.distributions import DiagonalNormal, FullNormal, kl
from vae.model.objectives import Batch
from vae.model.priors import Isotropic
from vae.model.vae import Terms

BATCH, N = 7, 3
KINDS = ("diagonal", "full")
UNREAD = Batch(torch.empty(0))  # by most losses, which the terms are enough for


def gaussian(kind: str, batch: int = BATCH, n: int = N) -> DiagonalNormal | FullNormal:
    """A batch of posteriors that are clearly apart, in float64."""
    loc, scale = 1.5 * torch.randn(batch, n, dtype=torch.float64), torch.rand(batch, n, dtype=torch.float64) + 0.3
    if kind == "diagonal":
        return DiagonalNormal(loc, scale)
    return FullNormal(loc, torch.randn(batch, n, n, dtype=torch.float64).tril(-1) + scale.diag_embed())


def encoded(q: Distribution, p: Distribution | None = None, z: Tensor | None = None) -> Terms:
    """Terms of posteriors, with any recon."""
    p = Isotropic(q.event_shape[0]).double()() if p is None else p
    z = q.rsample() if z is None else z
    return terms(torch.rand(q.batch_shape, dtype=torch.float64), kl(q, p, z), z, q, p)
