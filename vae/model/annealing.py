"""How the weight of a term changes while training: a function of the global step alone, so that resuming is exact."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vae.settings.annealing import check_annealing

Count = int | Tensor  # of steps; a tensor () where a value of python's would be frozen into a graph of kernels


class Annealing:
    """A weight between 0 and 1: `constant` 1, or risen from 0 over `warmup` epochs, `linear` or as a `cosine`.

    `cyclical` starts anew `cycles` times in the whole training, rising linearly for half of each (Fu et al., 2019).
    After the training every kind is at 1.
    """

    def __init__(self, kind: str = "constant", warmup: float = 0.0, cycles: int = 4):
        check_annealing(kind, warmup)
        self.kind = kind
        self.warmup = warmup
        self.cycles = cycles
        self.steps, self.steps_per_epoch = 1, 1.0
        self._weights: Tensor | None = None

    def prepare(self, steps: int, epochs: int) -> None:
        """Take note of how long the training is."""
        self.steps, self.steps_per_epoch = steps, steps / epochs
        self._weights = None

    def __call__(self, step: Count) -> float | Tensor:
        """The weight in the step after `step` others; 1 once the training is over."""
        if isinstance(step, int):
            return self._weight(step)
        if self.kind == "constant":
            return 1.0
        if self._weights is None:
            self._weights = torch.tensor([self._weight(each) for each in range(self.steps + 1)], device=step.device)
        return self._weights.take(step.clamp(max=self.steps))

    def _weight(self, step: int) -> float:
        if step >= self.steps:
            return 1.0
        if self.kind == "cyclical":
            place = step * self.cycles % self.steps  # in integers: rounding could miss where a cycle begins
            return min(1.0, 2 * place / self.steps)
        if self.kind == "constant":
            return 1.0
        share = min(1.0, step / (self.warmup * self.steps_per_epoch))
        return share if self.kind == "linear" else 0.5 * (1 - math.cos(math.pi * share))

    def __str__(self) -> str:
        """For the ledger."""
        if self.kind == "cyclical":
            return f"{self.cycles} cycles, each rising from 0 to 1 over its first half"
        if self.kind == "constant":
            return "constant"
        return f"rising from 0 over {self.warmup:g} epochs ({self.kind})"
