"""The LightningModule: wraps model and objective, and does nothing that they or a callback can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from vae.model import VAE
from vae.objectives import ELBO

Batch = tuple[Tensor, Tensor]  # images (batch, channels, height, width) in [0, 1], labels (batch,)


class VAEModule(pl.LightningModule):
    """Trains `vae` on `objective`; `about` is stored in every checkpoint, see `vae.checkpoints`."""

    def __init__(
        self,
        vae: VAE,
        objective: ELBO,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler],
        total_steps: int,
        about: Mapping[str, Any],
    ):
        super().__init__()
        self.vae = vae
        self.objective = objective
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        # Not trainer.estimated_stepping_batches: asking for it here makes Lightning forget, on resuming within an
        # epoch, to hand the loader its position.
        self.total_steps = total_steps
        self.about = about

    def _step(self, batch: Batch, stage: str) -> dict[str, Tensor]:
        images, _ = batch
        terms = self.vae(images)
        loss = self.objective(terms)
        recon, kl = terms.recon.mean(), terms.kl.mean()
        means = {"loss": loss.detach(), "recon": recon.detach(), "kl": kl.detach(), "total": (recon + kl).detach()}
        if stage == "val":
            # Not through the logger, which would add a tag of its own; the Scalars callback writes them.
            values = {f"val/{name}": value for name, value in means.items()}
            self.log_dict(values, batch_size=len(images), logger=False)
        return {"loss": loss, "means": torch.stack(tuple(means.values()))}

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer([weight for weight in self.parameters() if weight.requires_grad])
        scheduler = self.make_scheduler(optimizer, total_steps=self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vae"] = dict(self.about)
