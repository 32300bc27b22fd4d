"""How far the training is: one bar for the whole run on a terminal, one line an epoch elsewhere."""

from __future__ import annotations

import logging
import multiprocessing
import sys
from collections.abc import Mapping

import pytorch_lightning as pl
from tqdm import tqdm

from vae.common.logs import FILE_ONLY
from vae.training.callbacks.scalars import Scalars
from vae.training.module import Stepped, VAEModule
from vae.training.strides import Strides

log = logging.getLogger(__name__)


class Progress(pl.Callback):
    """Shows what `scalars` has written, so it costs no reading of values of its own."""

    def __init__(self, scalars: Scalars, every: int):
        self.scalars = scalars
        self.every = every
        self.bar: tqdm | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, VAEModule)
        if pl_module.steps_taken:
            log.info("going on in epoch %d after step %d", trainer.current_epoch + 1, pl_module.steps_taken)
        # Not in one of several processes that share the terminal.
        if sys.stdout.isatty() and multiprocessing.parent_process() is None:
            strides = trainer.train_dataloader
            assert isinstance(strides, Strides)
            self.bar = tqdm(
                # Lightning counts strides, which are single batches where it was given a limit.
                total=min(pl_module.total_steps, int(trainer.estimated_stepping_batches) * strides.length),
                initial=pl_module.steps_taken,
                file=sys.stdout,
                bar_format="{desc} {bar:24} {percentage:3.0f} %{postfix} · {remaining} left",
                dynamic_ncols=True,
                leave=False,
            )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.bar is not None:
            self.bar.set_description_str(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def on_step_end(self, trainer: pl.Trainer, pl_module: VAEModule, stepped: Stepped) -> None:
        if self.bar is not None:
            if (stepped.place + 1) % self.every == 0:
                self.bar.set_postfix_str(self._totals(), refresh=False)
            self.bar.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        row = self.scalars.history[-1]
        width = len(str(trainer.max_epochs))
        parts = [f"{part} {_terms(row, key)}" for part, key in (("train", "train"), ("validation", "val"))]
        epoch = f"epoch {trainer.current_epoch + 1:{width}}/{trainer.max_epochs}"
        line = "   ".join([epoch, *parts, f"{row['seconds']:.1f} s"])
        log.info(line, extra=FILE_ONLY if self.bar is not None else None)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _totals(self) -> str:
        history, latest = self.scalars.history, self.scalars.latest
        term = "total" if "total" in latest else "recon"
        validation = f", validation {history[-1][f'val/{term}']:.2f}" if history else ""
        return f"train {latest[term]:.2f}{validation} nats"

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _terms(row: Mapping[str, float], part: str) -> str:
    """total = recon + kl, or recon alone where the others do not apply."""
    recon = f"{row[f'{part}/recon']:8.2f}"
    if f"{part}/total" not in row:
        return f"recon {recon}"
    return f"{row[f'{part}/total']:8.2f} = {recon} + {row[f'{part}/kl']:6.2f}"
