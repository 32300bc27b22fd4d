"""Draws of any distribution over latents in little memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily

from vae.model.distributions import DiagonalNormal, FullNormal, parameters

CHUNK = 2**21  # numbers at a time, of which a computation keeps a few copies
SPLINES = 1000  # numbers that a flow works with for each dimension of a point


def draws(p: Distribution, count: int) -> Tensor:
    """`p.sample` with the same random numbers, (count, n), in little more memory than that of the result.

    torch makes draws of all components of a mixture before it chooses, with a copy of a full component's matrix for
    each, and zuko inverts a flow for all draws at once.
    """
    if isinstance(p, MixtureSameFamily) and isinstance(p.component_distribution, DiagonalNormal | FullNormal):
        return _draws_of_mixture(p, p.component_distribution, count)
    steps = getattr(getattr(p, "transform", None), "transforms", None)  # as zuko's flows have them
    if steps is None:
        return p.sample(torch.Size([count]))
    noise = p.base.sample(torch.Size([count]))  # type: ignore[attr-defined]
    return torch.cat([_inverted(steps, part) for part in noise.split(at_once(p))])


def at_once(p: Distribution) -> int:
    """How many points of p are `CHUNK` numbers."""
    if isinstance(p, DiagonalNormal | FullNormal):
        width = 1
    elif isinstance(p, MixtureSameFamily):
        width = p.component_distribution.batch_shape[-1]
    else:
        width = SPLINES
    return max(1, CHUNK // (width * p.event_shape[0]))


def _draws_of_mixture(p: MixtureSameFamily, components: DiagonalNormal | FullNormal, count: int) -> Tensor:
    loc, scale = parameters(components)
    component = p.mixture_distribution.sample(torch.Size([count]))  # (count,)
    z = loc.new_empty(count, loc.shape[1])
    size = max(16, at_once(p) // 16 * 16)  # torch makes normal numbers on a CPU by sixteens
    for rows, chosen in zip(z.split(size), component.split(size), strict=True):
        # One component's are used, but this many are drawn by torch, too.
        noise = torch.randn(len(chosen), *loc.shape, dtype=loc.dtype, device=loc.device)
        rows.copy_(noise[torch.arange(len(chosen), device=chosen.device), chosen])
    for k, (middle, spread) in enumerate(zip(loc, scale, strict=True)):
        noise = z[component == k]
        z[component == k] = middle + (noise * spread if spread.dim() == 1 else noise @ spread.T)
    return z


def _inverted(steps: Sequence[Any], y: Tensor) -> Tensor:
    """The z of a flow's steps z → … → y, (count, n).

    An autoregressive step gives z in n passes, each of which makes one more dimension right. A pass that changes
    nothing is followed by none that does, and comes after about ten.
    """
    for step in reversed(steps):
        if not hasattr(step, "passes"):
            y = step.inv(y)
            continue
        z = torch.zeros_like(y)
        for _ in range(step.passes):
            before, z = z, step.meta(z).inv(y)
            if torch.equal(before, z):
                break
        y = z
    return y
