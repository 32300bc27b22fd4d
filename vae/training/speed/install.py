"""Puts all that lies in this room in its place."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vae.training.speed.adam import StraightAdam
from vae.training.speed.graph import graphed
from vae.training.speed.memory import keep_freed_memory
from vae.training.step import Descent, Step, Update


def install(
    step: Step,
    updates: Sequence[Update],
    size: tuple[int, ...],
    device: torch.device,
    generators: Sequence[torch.Generator] = (),
) -> Step:
    """The step by these updates, made faster with this process; without it all numbers are the same. See `graphed`."""
    keep_freed_memory()
    for update in updates:
        if isinstance(update, Descent) and StraightAdam.suits(update.optimizer):
            update.take = StraightAdam(update.optimizer).step
    return graphed(step, updates, size, device, generators)
