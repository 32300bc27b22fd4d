"""Watches for posterior collapse: a decoder that has learned to do without the latents."""

from __future__ import annotations

import logging

import pytorch_lightning as pl

from vae.training.callbacks.scalars import Scalars

log = logging.getLogger(__name__)

NOTHING = 0.1  # nats of KL in the validation set; a single used dimension takes more
EPOCHS = 3


class Collapse(pl.Callback):
    """Says once when the KL has been next to nothing for several epochs, and what helps."""

    def __init__(self, scalars: Scalars):
        self.scalars = scalars
        self._told = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        kl = [row["val/kl"] for row in self.scalars.history[-EPOCHS:] if "val/kl" in row]
        if not self._told and len(kl) == EPOCHS and max(kl) < NOTHING:
            self._told = True
            log.warning(
                "the posterior has collapsed to the prior: kl %.3f nats after epoch %d. Try a lower beta, "
                "objective.annealing=linear objective.warmup=10, objective.free_bits=0.5 or a lower optimizer.lr",
                kl[-1],
                trainer.current_epoch + 1,
            )
