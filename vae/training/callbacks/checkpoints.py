"""Saves `best.ckpt` and `last.ckpt` at the end of every epoch."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from vae.common.files import replacing


class BestAndLast(Checkpoint):
    """`best` has the lowest `val/loss` so far; `last` is where a resumed run goes on.

    Without a `best` only `last` is kept, which is then what is reported.

    Lightning runs `Checkpoint` callbacks after all others, so the files hold the others' state of the same epoch.
    """

    def __init__(self, best: Path | None, last: Path):
        self.best = best
        self.last = last
        self.lowest = float("inf")
        self.best_epoch = 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = trainer.callback_metrics["val/loss"].item()
        is_best = value < self.lowest
        if is_best:
            self.lowest, self.best_epoch = value, trainer.current_epoch + 1
        if is_best and self.best is not None:
            trainer.save_checkpoint(self.best, weights_only=False)
            if trainer.is_global_zero:
                _link(self.best, self.last)
        else:
            trainer.save_checkpoint(self.last, weights_only=False)

    def state_dict(self) -> dict[str, Any]:
        return {"lowest": self.lowest, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.lowest, self.best_epoch = state_dict["lowest"], state_dict["best_epoch"]


def _link(file: Path, other: Path) -> None:
    """Let `other` be the same as a file: neither is ever changed in place, so one of them on the disk is enough."""
    with replacing(other) as temporary:
        temporary.unlink()
        try:
            os.link(file, temporary)
        except OSError:  # not every file system has links
            shutil.copyfile(file, temporary)
