"""Ctrl+C and SIGTERM during training: finish the step, save, stop."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import distributed

from vae.record import SIGNALS, Interrupted


class StopBetweenSteps(Checkpoint):
    """Raises `Interrupted` where the state is consistent and has just been saved; a second signal stops at once.

    Lightning runs `Checkpoint` callbacks after all others, so the file holds the others' state after the same step.
    """

    def __init__(self, last: Path):
        self.last = last
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self._before = {signum: signal.signal(signum, self._receive) for signum in SIGNALS}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        signum = self._signal(trainer)
        # After an epoch's last step validation follows, and then the epoch's own checkpoint: that is awaited.
        if signum and batch_idx + 1 < trainer.num_training_batches:
            trainer.save_checkpoint(self.last, weights_only=False)
            raise Interrupted(signum)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if signum := self._signal(trainer):
            raise Interrupted(signum)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        signum = self._signal(trainer)
        self._restore()
        if signum := signum or self.received:
            raise Interrupted(signum)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _signal(self, trainer: pl.Trainer) -> int | None:
        """What any of the processes has received; they ask together, so that all stop after the same step."""
        received = trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)
        return (self.received or signal.SIGTERM) if received else None

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        if not distributed.is_initialized():  # several processes are ended by the one that started them
            self._restore()

    def _restore(self) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}
