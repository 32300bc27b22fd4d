"""The moving average of the model's weights, which is measured, drawn and loaded in their place."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from vae.model.checkpoints import PREFIX
from vae.training.module import Stepped, VAEModule


class Average(pl.Callback):
    """w̄ ← d w̄ + (1 − d) w after step t, with d = min(decay, (1 + t) / (10 + t)): it soon forgets where training began.

    The model has the average from validation to the next step, and a checkpoint has it in the model's place. The
    weights as trained, with which a resumed run goes on, are in this callback's state. Buffers, such as an optimal σ,
    have no average.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self.weights: list[Tensor] = []  # the model's, which stay where they are: a CUDA graph knows them by that
        self.others: list[Tensor] = []  # the averages, or the weights as trained while the model has the averages
        self.is_shown = False  # the model has the averages

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, VAEModule)
        self.weights = list(pl_module.vae.parameters())
        pairs = zip(self.weights, self.others or self.weights, strict=True)
        self.others = [other.detach().to(weight, copy=True) for weight, other in pairs]

    def on_step_end(self, trainer: pl.Trainer, pl_module: VAEModule, stepped: Stepped) -> None:
        steps = pl_module.steps_taken
        update = get_ema_multi_avg_fn(min(self.decay, (1 + steps) / (10 + steps)))
        update(self.others, self.weights, steps)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(True)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._show(False)

    @torch.no_grad()
    def _show(self, averages: bool) -> None:
        """Give the model the averages, or the weights as trained."""
        if averages == self.is_shown:
            return
        for weight, other in zip(self.weights, self.others, strict=True):
            kept = weight.clone()
            weight.copy_(other)
            other.copy_(kept)
        self.is_shown = averages

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not self.is_shown:  # stopped within an epoch
            assert isinstance(pl_module, VAEModule)
            averages = dict(zip(self.weights, self.others, strict=True))
            named = pl_module.vae.named_parameters(remove_duplicate=False)
            checkpoint["state_dict"] |= {f"{PREFIX}{name}": averages[weight] for name, weight in named}

    def state_dict(self) -> dict[str, Any]:
        return {"trained": self.others if self.is_shown else [weight.detach() for weight in self.weights]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.others, self.is_shown = state_dict["trained"], True
