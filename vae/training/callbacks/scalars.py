"""Losses: accumulated on the device, written every N steps, watched for NaN, remembered by epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from vae.evaluation.likelihood import bits_of_levels
from vae.training.module import Stepped, VAEModule


class Scalars(pl.Callback):
    """Writes `train/…` every `every` steps, `val/…` and the course of training every epoch.

    Keeps one row an epoch in `history`.

    Reading a value off a GPU makes it wait, so the steps' means stay on the device until they are written.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.history: list[dict[str, float]] = []
        self.latest: dict[str, float] = {}  # the last values written, for the progress bar
        self._pending: list[Tensor] = []  # means of the steps since the last write, each (names,)
        self._sums: dict[str, float] = {}  # over the epoch, weighted by batch size
        self._count = 0
        self._sizes: list[int] = []
        self._epoch_start = 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, VAEModule)
        self._strategy = trainer.strategy
        self._module = pl_module

    @property
    def seconds(self) -> float:
        """Seconds spent in finished epochs, those before a resume included."""
        return sum(row["seconds"] for row in self.history)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_start = time.perf_counter()
        self._sums, self._count = {}, 0

    def on_step_end(self, trainer: pl.Trainer, pl_module: VAEModule, stepped: Stepped) -> None:
        self._pending.append(stepped.means)
        self._sizes.append(stepped.size)
        due = (stepped.place + 1) % self.every == 0
        at_once = pl_module.device.type == "cpu" and trainer.world_size == 1  # several processes have to write together
        if due or (at_once and not math.isfinite(stepped.means[0].item())):
            self._write(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer)
        train = {f"train/{name}": total / self._count for name, total in self._sums.items()}
        val = {f"val/{name}": trainer.callback_metrics[f"val/{name}"].item() for name in self._sums}
        # The weights of the last step.
        _refuse_unless_finite(val.keys(), val.values(), self._module.steps_taken, trainer.current_epoch + 1)
        train, val = train | self._bits(train, "train/"), val | self._bits(val, "val/")
        seconds = time.perf_counter() - self._epoch_start
        assert trainer.logger is not None
        trainer.logger.log_metrics(val | self._course(trainer, seconds), self._module.steps_taken)
        self.history.append({"epoch": trainer.current_epoch + 1, "seconds": seconds, **train, **val})

    def _course(self, trainer: pl.Trainer, seconds: float) -> dict[str, float]:
        """How the training goes: an epoch's seconds, and the rate and the annealed weight of the step after it."""
        rate = trainer.optimizers[0].param_groups[0]["lr"]  # the model's
        weight = self._module.objective.annealed(self._module.steps_taken)
        annealed = {} if weight is None else {"train/weight": weight}
        return {"train/lr": float(rate), "train/seconds": seconds, **annealed}

    def _bits(self, nats: Mapping[str, float], prefix: str) -> dict[str, float]:
        return bits_of_levels(self._module.vae, nats, self._module.about.get("shape", ()), prefix)

    def _write(self, trainer: pl.Trainer) -> None:
        """Log the average of the pending means."""
        rows = self._rows()
        if not rows:
            return
        names = self._module.names
        first = self._module.steps_taken - len(rows)
        for step, row in enumerate(rows, start=first + 1):
            _refuse_unless_finite(names, row, step, trainer.current_epoch + 1)
        for row, size in zip(rows, self._sizes, strict=True):
            for name, value in zip(names, row, strict=True):
                self._sums[name] = self._sums.get(name, 0.0) + value * size
            self._count += size
        columns = zip(names, zip(*rows, strict=True), strict=True)
        self.latest = {name: sum(column) / len(rows) for name, column in columns}
        assert trainer.logger is not None
        values = {f"train/{name}": value for name, value in self.latest.items()}
        trainer.logger.log_metrics(values | self._bits(values, "train/"), self._module.steps_taken)
        self._pending.clear()
        self._sizes.clear()

    def _rows(self) -> list[list[float]]:
        """Bring the pending means to the host, averaged over the processes: at once and only here."""
        if not self._pending:
            return []
        means = torch.stack([means.to(self._pending[-1].device) for means in self._pending])
        return self._strategy.reduce(means, reduce_op="mean").tolist()

    def state_dict(self) -> dict[str, Any]:
        return {
            "history": self.history,
            # Of the epoch that has begun, for a run that is stopped within it.
            "pending": self._rows(),
            "sizes": self._sizes,
            "sums": self._sums,
            "count": self._count,
            "elapsed": time.perf_counter() - self._epoch_start,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = list(state_dict["history"])
        self._pending = [torch.tensor(means) for means in state_dict["pending"]]
        self._sizes = list(state_dict["sizes"])
        self._sums, self._count = dict(state_dict["sums"]), state_dict["count"]
        self._epoch_start = time.perf_counter() - state_dict["elapsed"]


def _refuse_unless_finite(names: Iterable[str], values: Collection[float], step: int, epoch: int) -> None:
    if all(map(math.isfinite, values)):
        return
    first = next(name for name, value in zip(names, values, strict=True) if not math.isfinite(value))
    player, _, _ = first.removeprefix("val/").rpartition("/")
    whose = f"the {player}'s" if player else "the"
    listed = ", ".join(f"{name}={value:.4g}" for name, value in zip(names, values, strict=True))
    raise FloatingPointError(
        f"{whose} loss is no longer finite at step {step} (epoch {epoch}): {listed}. Try a lower optimizer.lr, "
        "trainer.gradient_clip_val=1, scheduler.warmup=0.05 or, for likelihood=gaussian, a larger likelihood.sigma"
    )
