"""The LightningModule: wraps model and objective, and does nothing that they or a callback can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from vae.model.noise import FRESH, SharedNoise
from vae.model.objectives import Batch, Objective
from vae.model.vae import VAE

Served = tuple[Tensor, Tensor]  # by the loader: images (batch, channels, height, width) in [0, 1], labels (batch,)


class VAEModule(pl.LightningModule):
    """Trains `vae` on `objective`; `about` is stored in every checkpoint, see `vae.model.checkpoints`."""

    def __init__(
        self,
        vae: VAE,
        objective: Objective,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler],
        total_steps: int,
        about: Mapping[str, Any],
    ):
        super().__init__()
        self.vae = vae
        self.objective = objective
        self.names: tuple[str, ...] = ()  # of a step's `means`; known once there was one
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        # Not trainer.estimated_stepping_batches: asking for it here makes Lightning forget, on resuming within an
        # epoch, to hand the loader its position.
        self.total_steps = total_steps
        self.about = about
        self._validated: list[tuple[Tensor, int]] = []  # means and sizes of this epoch's batches

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning's note of the hook it calls, written forty times a step, of which nn.Module would first ask whether
        # it is a weight.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def transfer_batch_to_device(self, batch: Served, device: torch.device, dataloader_idx: int) -> Served:
        return batch  # the loader keeps its images on the device

    def _step(self, batch: Served, batch_idx: int, stage: str) -> dict[str, Any]:
        share = self._share(batch_idx, stage) if self.trainer.world_size > 1 else None
        noise = SharedNoise(share.images, share.size) if share else FRESH
        # Validation has what is annealed at its final value, so that epochs can be compared.
        step = self.global_step if stage == "train" else self.objective.steps
        (loss, parts), terms = self.objective(self.vae, Batch(*batch, noise), step)
        if stage == "train":
            self.vae.observe(terms)
        with torch.no_grad():
            recon, kl = terms.recon.mean(), terms.kl.mean()
            every = {"total": recon + kl, "recon": recon, "kl": kl}
            values = {"loss": loss, **{name: every[name] for name in self.objective.terms}, **parts}
            self.names, means = tuple(values), torch.stack(list(values.values()))
        if share:  # the average over the processes is to be what the whole batch would give
            loss, means = loss * share.weight, means * share.weight
        return {"loss": loss, "means": means, "size": share.size if share else len(batch[0])}

    def _share(self, batch_idx: int, stage: str) -> Any:
        loader: Any = self.trainer.train_dataloader if stage == "train" else self.trainer.val_dataloaders
        return loader.share(batch_idx)

    def training_step(self, batch: Served, batch_idx: int) -> dict[str, Any]:
        return self._step(batch, batch_idx, "train")

    def validation_step(self, batch: Served, batch_idx: int) -> None:
        outputs = self._step(batch, batch_idx, "val")
        self._validated.append((outputs["means"], outputs["size"]))

    def on_validation_epoch_end(self) -> None:
        # Once an epoch, because it takes as long as a small batch; and not through the logger, which would add a tag of
        # its own: the Scalars callback writes them.
        count = sum(size for _, size in self._validated)
        means = torch.stack([means * (size / count) for means, size in self._validated]).sum(0)
        self._validated.clear()
        values = {f"val/{name}": value for name, value in zip(self.names, means, strict=True)}
        self.log_dict(values, batch_size=count, logger=False, sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer([weight for weight in self.parameters() if weight.requires_grad])
        scheduler = self.make_scheduler(optimizer, total_steps=self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vae"] = dict(self.about)
