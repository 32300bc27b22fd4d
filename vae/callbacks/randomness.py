"""Fresh random streams for every epoch, so that a resumed run draws what an uninterrupted one would have drawn."""

from __future__ import annotations

import pytorch_lightning as pl
import torch

from vae.data.loader import BatchLoader
from vae.seeding import derive


class Randomness(pl.Callback):
    """Training noise depends on (seed, epoch) alone, validation noise on the seed alone.

    Nothing that draws random numbers in between, such as a picture, can change a run's figures.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loader = trainer.train_dataloader
        assert isinstance(loader, BatchLoader)
        loader.epoch = trainer.current_epoch
        torch.manual_seed(derive(self.seed, trainer.current_epoch, "train"))

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.manual_seed(derive(self.seed, "val"))
