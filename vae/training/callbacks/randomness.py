"""Fresh random streams for every epoch, so that a resumed run draws what an uninterrupted one would have drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch

from vae.common.seeding import derive
from vae.training.module import VAEModule
from vae.training.strides import Strides


class Randomness(pl.Callback):
    """Training noise depends on (seed, epoch) alone, validation noise on the seed alone.

    Nothing that draws random numbers in between, such as a picture, can change a run's figures. A checkpoint made
    within an epoch carries the generators' states; the loader carries its own position. It also says how many threads
    torch had, which decides how sums are rounded.
    """

    def __init__(self, seed: int):
        self.seed = seed
        self._own: torch.Generator | None = None  # of the module's noise, where it does not draw from torch's
        self._states: dict[str, Any] | None = None  # restored, of a run that was stopped within an epoch

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, VAEModule)
        self._own = pl_module.noise.generator

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        strides = trainer.train_dataloader
        assert isinstance(strides, Strides)
        strides.loader.start_epoch(trainer.current_epoch)
        self._seed(trainer.current_epoch, "train")

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seed("val")

    def _seed(self, *keys: int | str) -> None:
        seed = derive(self.seed, *keys)
        torch.manual_seed(seed)
        if self._own is not None:
            self._own.manual_seed(seed)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Where an epoch begins, `on_train_epoch_start` seeds anew; within one, Lightning does not call it.
        if self._states is not None:
            self._generator("cpu").set_state(self._states["cpu"])
            if pl_module.device.type == "cuda":
                for state in self._states["cuda"][:1]:
                    self._generator("cuda").set_state(state)

    def state_dict(self) -> dict[str, Any]:
        # Of the device in use: each of several processes has one, and all draw the same.
        cuda = [self._generator("cuda").get_state()] if torch.cuda.is_available() else []
        return {"cpu": self._generator("cpu").get_state(), "cuda": cuda, "threads": torch.get_num_threads()}

    def _generator(self, device: str) -> torch.Generator:
        """The one that the run draws from there."""
        if self._own is not None and self._own.device.type == device:
            return self._own
        return (
            torch.default_generator if device == "cpu" else torch.cuda.default_generators[torch.cuda.current_device()]
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._states = state_dict

    @staticmethod
    def threads(checkpoint: Mapping[str, Any] | None) -> int | None:
        """On how many threads torch worked when a checkpoint was made; None without one."""
        return checkpoint["callbacks"]["Randomness"]["threads"] if checkpoint is not None else None
