"""Lightning's loop over an epoch's steps, without what takes longer than a small step and is not used here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.profilers import PassThroughProfiler

from vae.training.speed.adam import StraightAdam

HOOKS = (
    *("on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward"),
    *("on_before_optimizer_step", "on_train_batch_end"),
)


class StraightLoop(_TrainingEpochLoop):
    """Forward, backward and step of a single optimiser in full precision, in one process.

    Lightning's own takes several hundred calls for a step. Of the hooks only those of callbacks that have any are
    called; the module's have no use here. The batches are those of the loader, which keeps them on the device. The one
    schedule takes a step with every batch. Whatever happens once an epoch or on resuming is Lightning's.
    """

    def on_run_start(self, data_fetcher: Any) -> None:
        super().on_run_start(data_fetcher)
        callbacks: list[pl.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        self._hooks: dict[str, list[Callable[..., Any]]] = {
            name: [getattr(callback, name) for callback in callbacks if overrides(callback, name)] for name in HOOKS
        }
        (self._batches,) = data_fetcher.iterator._iterator.iterators  # the loader's own, behind three that only pass on
        (optimizer,) = self.trainer.optimizers
        self._weights: list[torch.nn.Parameter] = [
            weight for group in optimizer.param_groups for weight in group["params"]
        ]
        self._step = StraightAdam(optimizer).step if StraightAdam.suits(optimizer) else optimizer.step
        self._schedule: Any = self.trainer.lr_scheduler_configs[0].scheduler

    def advance(self, data_fetcher: Any) -> None:
        """One training step."""
        if self.restarting:  # the first step of a resumed run, or what is left to do after the last one
            super().advance(data_fetcher)
            return
        trainer, progress = self.trainer, self.automatic_optimization.optim_progress.optimizer.step
        module: Any = trainer.lightning_module
        optimizer, precision = trainer.optimizers[0], trainer.precision_plugin
        self.val_loop.restarting = False

        batch = precision.convert_input(next(self._batches))
        data_fetcher.fetched += 1
        data_fetcher.done = data_fetcher.fetched >= data_fetcher.length
        index = self.batch_idx + 1
        self.batch_progress.is_last_batch = data_fetcher.done
        self.batch_progress.increment_ready()
        self._call("on_train_batch_start", batch, index)
        self.batch_progress.increment_started()
        with precision.train_step_context():
            outputs = module.training_step(batch, index)
        self._call("on_before_zero_grad", optimizer)
        for weight in self._weights:  # optimizer.zero_grad() in a tenth of its time
            weight.grad = None
        self._call("on_before_backward", outputs["loss"])
        outputs["loss"].backward()
        self._call("on_after_backward")
        self._call("on_before_optimizer_step", optimizer)
        if trainer.gradient_clip_val is not None:
            module.clip_gradients(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
        progress.increment_ready()
        self._step()
        progress.increment_completed()
        self.batch_progress.increment_processed()
        self.scheduler_progress.increment_ready()
        self._schedule.step()
        self.scheduler_progress.increment_completed()
        outputs["loss"] = outputs["loss"].detach()  # no callback is to hold on to the graph
        self._call("on_train_batch_end", outputs, batch, index)
        self.batch_progress.increment_completed()

    def on_advance_end(self, data_fetcher: Any) -> None:
        """What comes after a step: of an epoch's last one, validation."""
        trainer = self.trainer
        asked_to_stop = trainer.should_stop or trainer.received_sigterm
        if self.batch_progress.is_last_batch or asked_to_stop or self._skip_next_val:
            super().on_advance_end(data_fetcher)
        else:
            self._batches_that_stepped += 1

    def _call(self, name: str, *arguments: Any) -> None:
        for hook in self._hooks[name]:
            hook(self.trainer, self.trainer.lightning_module, *arguments)


def overrides(callback: pl.Callback, name: str) -> bool:
    """Whether a callback does anything in the hook of this name."""
    return getattr(type(callback), name) is not getattr(pl.Callback, name)


def straighten(trainer: pl.Trainer) -> None:
    """Give a trainer the straight loop where it can be used."""
    plain = trainer.precision in ("32-true", "64-true") and trainer.accumulate_grad_batches == 1
    validated_at_end = trainer.val_check_interval == 1.0  # of the epoch
    unprofiled = isinstance(trainer.profiler, PassThroughProfiler)  # type: ignore[attr-defined]
    if plain and validated_at_end and unprofiled and trainer.world_size == 1:
        own = trainer.fit_loop.epoch_loop
        trainer.fit_loop.epoch_loop = StraightLoop(trainer, own.min_steps, own.max_steps)
