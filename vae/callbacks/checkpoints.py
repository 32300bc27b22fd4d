"""Saves `best.ckpt` and `last.ckpt` at the end of every epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint


class BestAndLast(Checkpoint):
    """`best` has the lowest validation total so far, `last` is where a resumed run goes on.

    Lightning runs `Checkpoint` callbacks after all others, so the files hold the others' state of the same epoch.
    """

    def __init__(self, best: Path, last: Path):
        self.best = best
        self.last = last
        self.best_total = float("inf")
        self.best_epoch = 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        total = trainer.callback_metrics["val/total"].item()
        if total < self.best_total:
            self.best_total, self.best_epoch = total, trainer.current_epoch + 1
            trainer.save_checkpoint(self.best, weights_only=False)
        trainer.save_checkpoint(self.last, weights_only=False)

    def state_dict(self) -> dict[str, Any]:
        return {"best_total": self.best_total, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_total, self.best_epoch = state_dict["best_total"], state_dict["best_epoch"]
