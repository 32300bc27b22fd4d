"""One run from its plain configuration to its metrics: the only place that wires everything together."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from vae import report
from vae.build import build, build_model
from vae.callbacks.checkpoints import BestAndLast
from vae.callbacks.progress import Progress
from vae.callbacks.randomness import Randomness
from vae.callbacks.scalars import Scalars
from vae.callbacks.stop import StopBetweenSteps
from vae.callbacks.summaries import Summaries
from vae.checkpoints import AtomicCheckpointIO, about, model_weights, read
from vae.data.base import Dataset, DataSource, Part
from vae.data.loader import BatchLoader
from vae.evaluation.terms import mean_terms
from vae.files import write_json
from vae.module import VAEModule
from vae.record import overrides
from vae.seeding import derive
from vae.tensorboard import RunLogger

log = logging.getLogger(__name__)

# Warnings that a user of this program can do nothing about.
warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging interval")


def train(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Train in `folder`, or go on there from `last.ckpt`; writes and returns the metrics."""
    start = time.perf_counter()
    pl.seed_everything(config["seed"], verbose=False)

    source: DataSource = build(config, "data")
    data = source.load()
    model = build_model(config, data.shape)
    loaders = _loaders(source, data, config["seed"])
    best, last = folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "last.ckpt"
    resumed = read(last) if last.exists() else None
    logger = RunLogger(folder, purge_step=resumed["global_step"] + 1 if resumed else None)
    every = config["trainer"]["log_every_n_steps"]
    scalars, checkpoints = Scalars(every), BestAndLast(best, last)
    callbacks = [
        Randomness(config["seed"]),
        scalars,
        Progress(scalars, every),
        build(config, "figures", folder=folder, loader=loaders["test"], scalars=scalars),
        Summaries(config, overrides(folder)),
        checkpoints,
        StopBetweenSteps(last),
    ]
    trainer = _trainer(config, folder, logger, callbacks)
    device = trainer.strategy.root_device
    for loader in loaders.values():
        loader.to(device)
    module = VAEModule(
        model,
        objective=build(config, "objective"),
        optimizer=build(config, "optimizer"),
        scheduler=build(config, "scheduler"),
        total_steps=config["epochs"] * math.ceil(len(loaders["train"]) / trainer.accumulate_grad_batches),
        about=about(config, data),
    )

    log.info(report.header(config, data, model, device, folder))
    trainer.fit(module, loaders["train"], loaders["val"], ckpt_path=last if resumed else None, weights_only=True)

    # Every figure that is compared comes from the best weights and from a whole part of the data.
    model.load_state_dict(model_weights(read(best)))
    metrics: dict[str, Any] = {}
    for part in ("train", "val", "test"):
        torch.manual_seed(derive(config["seed"], part))
        loaders[part].start_epoch(0)
        terms = mean_terms(model.eval().to(device), loaders[part])
        metrics |= {f"{part}/{name}": value for name, value in terms.items()}
    logger.log_metrics(
        {name: value for name, value in metrics.items() if name.startswith("test/")}, trainer.global_step
    )
    logger.close()
    metrics |= {
        "data": data.name,
        "epochs": trainer.current_epoch,
        "best_epoch": checkpoints.best_epoch,
        "parameters": report.parameter_count(model),
        "device": report.device_name(device),
        "seconds/fit": scalars.seconds,
        "seconds/run": time.perf_counter() - start,
    }
    write_json(folder / "metrics.json", metrics)
    log.info(report.closing(config, metrics, folder))
    return metrics


def _trainer(config: Mapping[str, Any], folder: Path, logger: RunLogger, callbacks: list[pl.Callback]) -> pl.Trainer:
    trainer: pl.Trainer = build(
        config,
        "trainer",
        default_root_dir=folder,
        logger=logger,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    precision = config["trainer"]["precision"]
    if trainer.strategy.root_device.type == "cpu" and "16" in precision:
        raise ValueError(f"trainer.precision={precision}: must be 32-true or 64-true on a CPU, where 16 bits are slow")
    return trainer


def _loaders(source: DataSource, data: Dataset, seed: int) -> dict[str, BatchLoader]:
    """The parts' loaders; only training shuffles, and only its Bernoulli draws change with the epoch."""
    dynamic = source.binarize == "dynamic"

    def loader(part: Part | None, batch_size: int, seed: int, shuffle: bool = False) -> BatchLoader:
        assert part is not None
        return BatchLoader(part, batch_size, seed, shuffle, dynamic)

    larger = 4 * source.batch_size  # without gradients there is room for more
    return {
        "train": loader(data.train, source.batch_size, seed, shuffle=True),
        # The same draws for every run, so that runs with different seeds are compared on the same images.
        "val": loader(data.val, larger, derive("val")),
        "test": loader(data.test, larger, derive("test")),
    }
