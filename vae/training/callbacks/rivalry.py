"""Watches a critic that has won, or that tells nothing apart."""

from __future__ import annotations

import logging

import pytorch_lightning as pl

from vae.training.callbacks.scalars import Scalars

log = logging.getLogger(__name__)

WON, LOST = 0.95, 0.52  # shares of right answers
EPOCHS = 3


class Rivalry(pl.Callback):
    """Says once when the critic has been nearly always right for several epochs, or hardly more than half the time."""

    def __init__(self, scalars: Scalars):
        self.scalars = scalars
        self._told = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        right = [row.get("train/critic/accuracy", 0.75) for row in self.scalars.history[-EPOCHS:]]
        if self._told or len(right) < EPOCHS:
            return
        if min(right) >= WON:
            said = (
                "has won: it is right in %.0f %% of all cases after epoch %d, and the model learns little from it. Try "
            )
            said += "a lower objective.critic.lr"
        elif max(right) <= LOST:
            said = "tells nothing apart: it is right in %.0f %% of all cases after epoch %d. If the two kinds are not "
            said += "alike by now, try a higher objective.critic.lr or objective.critic.updates=3"
        else:
            return
        self._told = True
        log.warning("the critic " + said, 100 * right[-1], trainer.current_epoch + 1)
