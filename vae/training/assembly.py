"""All that trains a run, built of its configuration: the only place that wires everything together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import LightningEnvironment
from torch.optim import Optimizer

from vae.data.base import Dataset, DataSource
from vae.data.loader import BatchLoader, evaluation_loader
from vae.model.build import build, build_model
from vae.model.checkpoints import AtomicCheckpointIO, about, file_of, read
from vae.model.noise import FRESH, Fresh
from vae.model.objectives import Objective
from vae.model.pruning import begin_with
from vae.model.restored import model_of
from vae.model.vae import VAE
from vae.settings.classes import CLIP, has_other_arguments
from vae.settings.errors import in_one_line
from vae.training.callbacks.average import Average
from vae.training.callbacks.checkpoints import BestAndLast
from vae.training.callbacks.collapse import Collapse
from vae.training.callbacks.fitted_prior import FittedPrior
from vae.training.callbacks.pictures import Pictures
from vae.training.callbacks.progress import Progress
from vae.training.callbacks.randomness import Randomness
from vae.training.callbacks.rivalry import Rivalry
from vae.training.callbacks.scalars import Scalars
from vae.training.callbacks.stop import StopBetweenSteps
from vae.training.lane import lane
from vae.training.ledger import Ledger
from vae.training.loggers import Beside
from vae.training.module import VAEModule
from vae.training.strides import LENGTH, Strides
from vae.training.tensorboard import RunLogger

PRUNING = 500  # training images, by which units are chosen


class Files(NamedTuple):
    """The checkpoints of a run."""

    best: Path
    last: Path
    reported: Path  # one of the two

    @classmethod
    def of(cls, config: Mapping[str, Any], folder: Path) -> Files:
        best, last = folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "last.ckpt"
        return cls(best, last, last if config["report"] == "last" else best)


class Watchers(NamedTuple):
    """The callbacks that are asked for something afterwards."""

    scalars: Scalars
    checkpoints: BestAndLast
    pictures: Pictures


class Assembly(NamedTuple):
    """What trains a run in one of its processes."""

    ledger: Ledger
    loaders: dict[str, BatchLoader]  # of whole parts
    files: Files
    logger: RunLogger
    watchers: Watchers
    trainer: pl.Trainer
    module: VAEModule
    strides: Strides  # of this process's share, as are the next
    validation: BatchLoader
    resumed: bool

    @property
    def model(self) -> VAE:
        return self.module.vae

    @property
    def objective(self) -> Objective:
        return self.module.objective

    @property
    def device(self) -> torch.device:
        return self.trainer.strategy.root_device

    def fit(self) -> None:
        """Train to the end, from where the last checkpoint was if there is one."""
        last = self.files.last if self.resumed else None
        self.trainer.fit(self.module, self.strides, self.validation, ckpt_path=last)


def assemble(
    config: Mapping[str, Any], folder: Path, source: DataSource, data: Dataset, rank: int, processes: int
) -> Assembly:
    """Of the process `rank`; a run that has a last checkpoint goes on from it."""
    model = build_model(config, data.shape, len(data.classes))
    loaders = _loaders(source, data, config["seed"])
    files = Files.of(config, folder)
    resumed = read(files.last) if files.last.exists() else None
    torch.set_num_threads(Randomness.threads(resumed) or max(1, torch.get_num_threads() // processes))
    if resumed is not None:
        _refuse_other_data(folder, resumed["vae"], data)
    else:
        some = data.train.some(100_000)  # whose mean is good enough: as floats, images take four times the memory
        model.start_at(some.images / 255, some.labels, config["optimizer"].get("lr", 1e-3))
        if config["parent"] is not None:
            _begin_with_parent(model, config["parent"], data)
    objective: Objective = build(config, "objective")
    objective.attach(model)
    if processes > 1:
        refuse_to_share(processes, objective, model)
    ledger = Ledger.of(objective, model, data.test.images[:2] / 255, data.test.labels[:2])
    logger = _logger(config, folder, resumed["global_step"] if resumed else None, rank)
    callbacks, watchers = _callbacks(config, folder, files, loaders, objective, rank)
    trainer = _trainer(config, folder, logger, callbacks, processes)
    for loader in loaders.values():
        loader.to(trainer.strategy.root_device)
    by_lightning = processes > 1 or _asks_lightning(config["trainer"])
    # Runs that are trained together take turns within an epoch, so each has random numbers of its own.
    noise = FRESH if lane() is None else Fresh(torch.Generator(trainer.strategy.root_device))
    module = _module(config, data, model, objective, len(loaders["train"]), by_lightning, noise)
    share, validation = (loaders[part].of_process(rank, processes) for part in ("train", "val"))
    strides = Strides(share, 1 if by_lightning else LENGTH)
    going_on = resumed is not None
    return Assembly(ledger, loaders, files, logger, watchers, trainer, module, strides, validation, going_on)


def _begin_with_parent(model: VAE, parent: str, data: Dataset) -> None:
    some = data.train.some(PRUNING)
    with in_one_line(f"parent={parent}: "):
        begin_with(model, model_of(read(file_of(Path(parent)))), some.images / 255, some.labels)


def _logger(config: Mapping[str, Any], folder: Path, step: int | None, rank: int) -> RunLogger:
    """Of the run, which goes on after `step` unless it begins; only the first process tells other loggers."""
    beside = Beside.of(config, folder, step) if rank == 0 else None
    return RunLogger(folder, None if step is None else step + 1, beside)


def _callbacks(
    config: Mapping[str, Any],
    folder: Path,
    files: Files,
    loaders: Mapping[str, BatchLoader],
    objective: Objective,
    rank: int,
) -> tuple[list[pl.Callback], Watchers]:
    """In the order in which they are called; only the first process shows something."""
    every = config["trainer"]["log_every_n_steps"]
    scalars = Scalars(every)
    checkpoints = BestAndLast(None if files.reported == files.last else files.best, files.last)
    pictures: Pictures = build(config, "figures", folder=folder, loader=loaders["test"], scalars=scalars)
    showing = [Progress(scalars, every), Collapse(scalars), Rivalry(scalars), pictures] if rank == 0 else []
    averaging = [Average(config["ema"])] if config["ema"] else []  # before those that show the model
    fitting = [FittedPrior(loaders["some of train"])] if objective.needs.fitted_prior else []  # as well
    watching = [scalars, *fitting, *showing, checkpoints, StopBetweenSteps(files.last)]
    callbacks = [Randomness(config["seed"]), *averaging, *watching]
    return callbacks, Watchers(scalars, checkpoints, pictures)


def _module(
    config: Mapping[str, Any],
    data: Dataset,
    model: VAE,
    objective: Objective,
    batches: int,
    by_lightning: bool,
    noise: Fresh,
) -> VAEModule:
    total_steps = config["epochs"] * batches
    objective.prepare(total_steps, config["epochs"])
    return VAEModule(
        model,
        objective=objective,
        optimizer=_optimizer(config),
        scheduler=build(config, "scheduler"),
        total_steps=total_steps,
        about=about(config, data),
        clip={key: config["trainer"].get(key) for key in CLIP} if config["trainer"].get(CLIP[0]) else None,
        by_lightning=by_lightning,
        noise=noise,
    )


def _optimizer(config: Mapping[str, Any]) -> Callable[..., Optimizer]:
    clips = bool(config["trainer"].get(CLIP[0]))
    if clips and "16" in config["trainer"]["precision"] and config["optimizer"].get("fused"):
        # Its kernel gives the gradients their true scale by itself, which is too late for clipping.
        return build(config, "optimizer", fused=False)
    return build(config, "optimizer")


def _refuse_other_data(folder: Path, before: Mapping[str, Any], data: Dataset) -> None:
    """What data=auto finds may be other images than when the run began, and so may a root that was changed since."""
    now = (data.name, list(data.shape), list(data.classes))
    if now != (before["data"], before["shape"], before["classes"]):
        raise ValueError(
            f"the run in {folder} was trained on {before['data']}, images of {before['shape']}, but the data are now "
            f"{data.name}, {list(data.shape)}, or have other classes; set VAE_DATA or data.root to where the former are"
        )


def refuse_to_share(processes: int, objective: Objective, model: VAE) -> None:
    """Where a loss is no mean over images, several processes would minimise something else than one does."""
    for group, part, needed in (
        ("objective", objective, objective.needs.whole_batch),
        ("likelihood", model.likelihood, model.likelihood.whole_batch),
    ):
        if needed:
            what = f"this {group} ({type(part).__name__})"
            raise ValueError(f"trainer.devices={processes}: must be 1 with {what}, which needs a whole batch at once")
    if any(player.updates > 1 for player in objective.players(model)):
        raise ValueError(f"trainer.devices={processes}: must be 1 with objective.critic.updates above 1")


def _trainer(
    config: Mapping[str, Any], folder: Path, logger: RunLogger, callbacks: list[pl.Callback], processes: int
) -> pl.Trainer:
    several = processes > 1
    accumulated = config["trainer"].get("accumulate_grad_batches", 1)
    if accumulated != 1:
        raise ValueError(f"trainer.accumulate_grad_batches={accumulated}: must be 1; set a larger data.batch_size")
    trainer: pl.Trainer = build(
        config,
        "trainer",
        default_root_dir=folder,
        logger=logger,
        callbacks=callbacks,
        # `run_processes` tells this environment which process it is in; it starts none.
        plugins=[AtomicCheckpointIO(), *([LightningEnvironment()] if several else [])],
        strategy=config["trainer"]["strategy"] if several else "auto",
        **dict.fromkeys(CLIP),  # by the module, because Lightning clips only where it takes the steps
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    precision = config["trainer"]["precision"]
    if trainer.strategy.root_device.type == "cpu" and "16" in precision:
        raise ValueError(f"trainer.precision={precision}: must be 32-true or 64-true on a CPU, where 16 bits are slow")
    return trainer


def _asks_lightning(trainer: Mapping[str, Any]) -> bool:
    """Whether Lightning has to scale losses, or may count batches."""
    return "16" in trainer["precision"] or has_other_arguments(trainer)


def _loaders(source: DataSource, data: Dataset, seed: int) -> dict[str, BatchLoader]:
    """The parts' loaders; only training shuffles and mirrors, and only its Bernoulli draws change with the epoch."""
    assert data.val is not None
    dynamic = source.binarize == "dynamic"
    return {
        "train": BatchLoader(data.train, source.batch_size, seed, shuffle=True, dynamic=dynamic, flip=source.flip),
        # It only tells whether the model overfits: more images than these would take longer than all else at the end.
        "some of train": evaluation_loader(source, data.train.some(10_000), "train"),
        "val": evaluation_loader(source, data.val, "val"),
        "test": evaluation_loader(source, data.test, "test"),
    }
