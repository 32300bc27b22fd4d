"""Learning-rate schedules: a factor on the optimiser's rate, a pure function of the fraction of the training done.

Stepped once a batch. Being a function of the step alone, a schedule resumes exactly and stretches to a new end.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def constant(optimizer: Optimizer, total_steps: int, warmup: float) -> LambdaLR:
    """The optimiser's rate, after a linear warm-up."""
    return _schedule(optimizer, total_steps, warmup, lambda fraction: 1.0)


def cosine(optimizer: Optimizer, total_steps: int, warmup: float) -> LambdaLR:
    """Linear warm-up, then ½ (1 + cos πt) down to 0 (Loshchilov and Hutter, 2017)."""
    return _schedule(optimizer, total_steps, warmup, lambda fraction: 0.5 * (1 + math.cos(math.pi * fraction)))


def one_cycle(optimizer: Optimizer, total_steps: int, warmup: float) -> LambdaLR:
    """Linear rise and linear fall to 0, without the momentum cycle (Smith and Topin, 2019)."""
    return _schedule(optimizer, total_steps, warmup, lambda fraction: 1.0 - fraction)


def stages(optimizer: Optimizer, total_steps: int, warmup: float) -> LambdaLR:
    """After a linear warm-up 8 stages, each thrice as long as the one before, down to a tenth (Burda et al., 2016).

    Stage i = 0 … 7 takes 3^i parts of the (3^8 − 1) / 2, at the optimiser's rate times 10^(−i/7).
    """
    return _schedule(optimizer, total_steps, warmup, lambda fraction: 10 ** (-_stage(fraction) / 7))


def _stage(fraction: float) -> int:
    return sum(fraction * (3**8 - 1) >= 3**i - 1 for i in range(1, 8))


def _schedule(optimizer: Optimizer, total_steps: int, warmup: float, after: Callable[[float], float]) -> LambdaLR:
    """Rise over the first `warmup` of the steps, then `after(t)` with t from 0 to 1 over the rest."""
    rise = warmup * total_steps

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        return after(min(1.0, (step - rise) / max(1.0, total_steps - rise)))

    return _Schedule(optimizer, factor)


class _Schedule(LambdaLR):
    """torch's own, without its guards against wrong uses in every step, which take as long as a small product."""

    def step(self) -> None:  # type: ignore[override]
        self._step_count += 1
        self.last_epoch += 1
        groups = self.optimizer.param_groups
        for group, base, factor in zip(groups, self.base_lrs, self.lr_lambdas, strict=True):
            group["lr"] = base * factor(self.last_epoch)
        self._last_lr = [group["lr"] for group in groups]
