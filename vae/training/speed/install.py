"""Puts all that lies in this room in its place."""

from __future__ import annotations

from collections.abc import Iterable

from vae.training.speed.adam import StraightAdam
from vae.training.speed.memory import keep_freed_memory
from vae.training.step import Descent, Update


def install(updates: Iterable[Update]) -> None:
    """Make this process and these updates faster; without it all numbers are the same."""
    keep_freed_memory()
    for update in updates:
        if isinstance(update, Descent) and StraightAdam.suits(update.optimizer):
            update.take = StraightAdam(update.optimizer).step
