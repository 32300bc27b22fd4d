"""How far the training is: a line for each epoch, and on a terminal one bar for the whole run below."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytorch_lightning as pl
from tqdm import tqdm

from vae.common.logs import brief
from vae.common.terminal import bar, has_bars
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
        if has_bars():
            strides = trainer.train_dataloader
            assert isinstance(strides, Strides)
            shown = bar(
                "",
                # Lightning counts strides, which are single batches where it was given a limit.
                min(pl_module.total_steps, int(trainer.estimated_stepping_batches) * strides.length),
                initial=pl_module.steps_taken,
                bar_format="{desc} {bar:24} {percentage:3.0f} %{postfix} · {remaining} left",
            )
            assert isinstance(shown, tqdm)
            self.bar = shown

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.bar is not None:
            self.bar.set_description_str(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def on_step_end(self, trainer: pl.Trainer, pl_module: VAEModule, stepped: Stepped) -> None:
        if self.bar is not None:
            if (stepped.place + 1) % self.every == 0:
                self.bar.set_postfix_str(self._total(), refresh=False)
            self.bar.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        row = self.scalars.history[-1]
        epoch = f"epoch {trainer.current_epoch + 1:{len(str(trainer.max_epochs))}}/{trainer.max_epochs}"
        short = f"{epoch}  train {_terms(row, 'train', 7)}  val {_terms(row, 'val', 7)}"
        train, validation = _terms(row, "train", 8), _terms(row, "val", 8)
        log.info("%s   train %s   validation %s   %.1f s", epoch, train, validation, row["seconds"], extra=brief(short))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _total(self) -> str:
        latest = self.scalars.latest
        return f"train {latest['total' if 'total' in latest else 'recon']:.2f} nats"

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _terms(row: Mapping[str, float], part: str, width: int) -> str:
    """total = recon + kl, or recon alone where the others do not apply."""
    recon = f"{row[f'{part}/recon']:{width}.2f}"
    if f"{part}/total" not in row:
        return f"recon {recon}"
    return f"{row[f'{part}/total']:{width}.2f} = {recon} + {row[f'{part}/kl']:{width - 2}.2f}"
