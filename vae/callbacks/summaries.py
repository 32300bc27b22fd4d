"""Tells TensorBoard what the run is and how it ended: texts, charts and the HParams table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl

from vae.tensorboard import run_logger


class Summaries(pl.Callback):
    """`overrides` is what was typed: the command to repeat the run, and columns of the HParams table.

    `ledger` is Markdown, `terms` are what the charts show.
    """

    def __init__(self, config: Mapping[str, Any], overrides: Sequence[str], ledger: str, terms: Sequence[str]):
        self.config = config
        self.overrides = overrides
        self.ledger = ledger
        self.terms = terms

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        run_logger(trainer).start(self.config, self.overrides, self.ledger, self.terms)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        run_logger(trainer).end(succeeded=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        run_logger(trainer).end(succeeded=False)
