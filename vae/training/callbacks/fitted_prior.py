"""Fits the prior to what the encoder makes of the training images."""

from __future__ import annotations

import pytorch_lightning as pl
import torch

from vae.data.loader import BatchLoader
from vae.model.vae import evaluating
from vae.training.module import VAEModule


class FittedPrior(pl.Callback):
    """After each epoch the prior becomes the density under which the images' codes are most likely."""

    def __init__(self, images: BatchLoader):
        self.images = images

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, VAEModule)
        vae = pl_module.vae
        dtype = next(vae.parameters()).dtype
        with evaluating(vae):
            codes = [vae.encode(images.to(dtype), labels).mean for images, labels in self.images]
        vae.prior.fit(torch.cat(codes))
