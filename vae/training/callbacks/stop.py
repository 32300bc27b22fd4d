"""Ctrl+C and SIGTERM during training: finish the step, save, stop."""

from __future__ import annotations

import signal
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from vae.common import signals
from vae.common.signals import Interrupted
from vae.training.module import Stepped, VAEModule


class StopBetweenSteps(Checkpoint):
    """Raises `Interrupted` where the state is consistent and has just been saved, after a signal that was noted.

    Lightning runs `Checkpoint` callbacks after all others, so the file holds the others' state after the same step.
    """

    def __init__(self, last: Path):
        self.last = last

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        signals.claim()  # Lightning answers SIGTERM by talking to the other processes at any moment, which may hang

    def on_step_end(self, trainer: pl.Trainer, pl_module: VAEModule, stepped: Stepped) -> None:
        signum = self._signal(trainer)
        # After an epoch's last step validation follows, and then the epoch's own checkpoint: that is awaited.
        if signum and not stepped.is_last:
            trainer.save_checkpoint(self.last, weights_only=False)
            raise Interrupted(signum)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if signum := self._signal(trainer):
            raise Interrupted(signum)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if signum := self._signal(trainer):
            raise Interrupted(signum)

    def _signal(self, trainer: pl.Trainer) -> int | None:
        """What any of the processes has received; they ask together, so that all stop after the same step."""
        received = signals.received()
        is_any = trainer.strategy.reduce_boolean_decision(received is not None, all=False)
        return (received or signal.SIGTERM) if is_any else None
