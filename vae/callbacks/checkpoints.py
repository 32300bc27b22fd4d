"""Saves `best.ckpt` and `last.ckpt` at the end of every epoch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from vae.files import replacing


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
                with replacing(self.last) as temporary:  # the same, in a fraction of the time
                    shutil.copyfile(self.best, temporary)
        else:
            trainer.save_checkpoint(self.last, weights_only=False)

    def state_dict(self) -> dict[str, Any]:
        return {"lowest": self.lowest, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.lowest, self.best_epoch = state_dict["lowest"], state_dict["best_epoch"]
