"""Whether a run is trained together with others: what it then does not do by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from vae.data.base import Dataset
from vae.model.objectives import Objective
from vae.model.vae import VAE
from vae.training.step import Step, Update


class Lane(Protocol):
    """A run among others, see `vae.training.lanes`."""

    def data(self, settings: Mapping[str, Any], load: Callable[[], Dataset]) -> Dataset:
        """The data of these settings, which are read once for all."""

    def step(self, alone: Step, vae: VAE, objective: Objective, updates: Mapping[str, Update], batch_size: int) -> Step:
        """A step of the run, or of its validation where there are no updates, which waits for the others'."""


LANE: ContextVar[Lane | None] = ContextVar("LANE", default=None)


def lane() -> Lane | None:
    """Of the run at work; None where it is trained by itself."""
    return LANE.get()
