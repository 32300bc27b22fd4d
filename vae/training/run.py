"""One run from its plain configuration to its metrics: the only place that wires everything together."""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import LightningEnvironment

from vae.common import signals
from vae.common.files import write_csv, write_json
from vae.common.seeding import derive
from vae.data.base import Dataset, DataSource
from vae.data.loader import BatchLoader, evaluation_loader
from vae.evaluation.terms import error_of_draws, mean_terms
from vae.model.build import build, build_model
from vae.model.checkpoints import AtomicCheckpointIO, about, model_weights, read
from vae.model.likelihoods import Likelihood
from vae.model.objectives import Objective
from vae.model.vae import VAE
from vae.runs.record import overrides
from vae.runs.results import EVALUATION
from vae.settings.ranges import RANGES
from vae.training import report
from vae.training.callbacks.checkpoints import BestAndLast
from vae.training.callbacks.collapse import Collapse
from vae.training.callbacks.pictures import Pictures
from vae.training.callbacks.progress import Progress
from vae.training.callbacks.randomness import Randomness
from vae.training.callbacks.scalars import Scalars
from vae.training.callbacks.stop import StopBetweenSteps
from vae.training.ledger import Ledger
from vae.training.module import VAEModule
from vae.training.parallel import run_processes
from vae.training.strides import LENGTH, Strides
from vae.training.tensorboard import RunLogger

if TYPE_CHECKING:
    from vae.study.evaluate import Evaluation

log = logging.getLogger(__name__)

CLIP = ("gradient_clip_val", "gradient_clip_algorithm")

# Warnings that a user of this program can do nothing about.
warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging interval")


def train_run(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Train in `folder`, or go on there from `last.ckpt`; writes and returns the metrics."""
    start = time.perf_counter()
    pl.seed_everything(config["seed"], verbose=False)
    source: DataSource = build(config, "data")
    data = source.load()
    processes = process_count(config["trainer"])
    if processes == 1:
        threads = torch.get_num_threads()
        try:
            return _train(config, folder, source, data, start)
        finally:
            torch.set_num_threads(threads)  # a resumed run has those that it began with
    run_processes(processes, _train, config, folder, source, data, start)
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def process_count(trainer: Mapping[str, Any]) -> int:
    """How many devices, each with a process, `trainer.devices` asks for."""
    devices = trainer["devices"]
    if devices == "auto":
        return max(1, torch.cuda.device_count()) if trainer["accelerator"] in ("auto", "gpu", "cuda") else 1
    return len(devices) if isinstance(devices, list) else devices


def _train(
    config: Mapping[str, Any],
    folder: Path,
    source: DataSource,
    data: Dataset,
    start: float,
    rank: int = 0,
    processes: int = 1,
) -> dict[str, Any]:
    """What each process does; the first one alone measures, writes files and says something."""
    if processes > 1:  # this one is fresh
        pl.seed_everything(config["seed"], verbose=False)
    model = build_model(config, data.shape, len(data.classes))
    loaders = _loaders(source, data, config["seed"])
    best, last = folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "last.ckpt"
    resumed = read(last) if last.exists() else None
    torch.set_num_threads(Randomness.threads(resumed) or max(1, torch.get_num_threads() // processes))
    if resumed is not None:
        _refuse_other_data(folder, resumed["vae"], data)
    else:
        some = data.train.some(100_000)  # whose mean is good enough: as floats, images take four times the memory
        model.start_at(some.images / 255, some.labels, config["optimizer"].get("lr", 1e-3))
    objective: Objective = build(config, "objective")
    if processes > 1:
        _refuse_to_share(processes, objective, model.likelihood)
    ledger = Ledger.of(objective, model, data.test.images[:2] / 255, data.test.labels[:2])
    logger = RunLogger(folder, purge_step=resumed["global_step"] + 1 if resumed else None)
    every = config["trainer"]["log_every_n_steps"]
    reports_last = config["report"] == "last"
    scalars, checkpoints = Scalars(every), BestAndLast(None if reports_last else best, last)
    pictures: Pictures = build(config, "figures", folder=folder, loader=loaders["test"], scalars=scalars)
    showing = [Progress(scalars, every), Collapse(scalars), pictures]
    callbacks = [
        Randomness(config["seed"]),
        scalars,
        *(showing if rank == 0 else []),
        checkpoints,
        StopBetweenSteps(last),
    ]
    trainer = _trainer(config, folder, logger, callbacks, processes)
    device = trainer.strategy.root_device
    for loader in loaders.values():
        loader.to(device)
    by_lightning = processes > 1 or _asks_lightning(config["trainer"])
    total_steps = config["epochs"] * len(loaders["train"])
    objective.prepare(total_steps, config["epochs"])
    module = VAEModule(
        model,
        objective=objective,
        optimizer=build(config, "optimizer"),
        scheduler=build(config, "scheduler"),
        total_steps=total_steps,
        about=about(config, data),
        clip={key: config["trainer"].get(key) for key in CLIP} if config["trainer"].get(CLIP[0]) else None,
        by_lightning=by_lightning,
    )

    log.info(report.header(config, data, model, ledger, device, folder))
    if processes > 1:
        log.info("processes %d, each with its share of every batch", processes)
    train_share, val_share = (loaders[part].of_process(rank, processes) for part in ("train", "val"))
    told = overrides(folder), ledger.markdown(), objective.terms
    with logger.session(config, *told) if rank == 0 else nullcontext():
        # The first one waits for the end of the step. Several processes are ended by the one that started them.
        with signals.noted(patience=1 if processes == 1 else math.inf):
            strides = Strides(train_share, 1 if by_lightning else LENGTH)
            trainer.fit(module, strides, val_share, ckpt_path=last if resumed else None)
        if rank:
            return {}

        # Every picture and figure that is shown at the end is of the reported weights, and of a whole part of the data.
        reported = read(last if reports_last else best)
        model.load_state_dict(model_weights(reported))
        model.eval().to(device)
        pictures.close(trainer, module, epoch := reported["epoch"] + 1)
        metrics: dict[str, Any] = {}
        for part, loader in (loaders | {"train": loaders.pop("some of train")}).items():
            torch.manual_seed(derive(config["seed"], part))
            terms = mean_terms(model, loader, objective)
            metrics |= {f"{part}/{name}": value for name, value in terms.items()}
        logger.log_metrics(
            {name: value for name, value in metrics.items() if name.startswith("test/")}, module.steps_taken
        )
        if "total" in objective.terms:
            metrics |= _errors_of_draws(model, objective, source, data, config["seed"])
        metrics |= {
            "data": data.name,
            "epochs": trainer.current_epoch,
            "epoch": epoch,
            "best_epoch": checkpoints.best_epoch,
            "parameters": report.parameter_count(model),
            "device": report.device_name(device) if processes == 1 else f"{processes} × {report.device_name(device)}",
            **ledger.flat(),
            "seconds/fit": scalars.seconds,
            "seconds/run": time.perf_counter() - start,
        }
        write_csv(folder / "history.csv", scalars.history)
        write_json(folder / "metrics.json", metrics)
        (folder / EVALUATION).unlink(missing_ok=True)  # that of a run before it was trained further
        log.info(report.closing(config, metrics, folder))
        if config["evaluate"].get("metrics") != []:  # importing measures takes a second
            with signals.noted():
                from vae.study.measures import Subject

            evaluation: Evaluation = build(config, "evaluate")
            subject = Subject(model, source, data, evaluation.effort, at_mean=objective.needs.mean)
            found = evaluation(subject, folder, reported["global_step"], epoch)
            logger.log_metrics(found.values, module.steps_taken)
            log.info(found.table)
    return metrics


def _errors_of_draws(
    model: VAE, objective: Objective, source: DataSource, data: Dataset, seed: int
) -> dict[str, float]:
    """How far the totals may be off because each image has but one draw of z, from two draws of some images."""
    assert data.val is not None
    errors = {}
    for name, part in (("val", data.val), ("test", data.test)):
        torch.manual_seed(derive(seed, name, "error"))
        some = evaluation_loader(source, part.some(1000), name)
        some.to(next(model.parameters()).device)
        errors[f"{name}/total_error"] = error_of_draws(model, some, objective, len(part))
    return errors


def _refuse_other_data(folder: Path, before: Mapping[str, Any], data: Dataset) -> None:
    """What data=auto finds may be other images than when the run began, and so may a root that was changed since."""
    now = (data.name, list(data.shape), list(data.classes))
    if now != (before["data"], before["shape"], before["classes"]):
        raise ValueError(
            f"the run in {folder} was trained on {before['data']}, images of {before['shape']}, but the data are now "
            f"{data.name}, {list(data.shape)}, or have other classes; set VAE_DATA or data.root to where the former are"
        )


def _refuse_to_share(processes: int, objective: Objective, likelihood: Likelihood) -> None:
    """Where a loss is no mean over images, several processes would minimise something else than one does."""
    for group, part, needed in (
        ("objective", objective, objective.needs.whole_batch),
        ("likelihood", likelihood, likelihood.whole_batch),
    ):
        if needed:
            what = f"this {group} ({type(part).__name__})"
            raise ValueError(f"trainer.devices={processes}: must be 1 with {what}, which needs a whole batch at once")


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
        # This environment is told by `run_processes` which of the processes it is in, and starts none.
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
    """Whether Lightning is to scale losses, or to do what the YAMLs do not know of and it may count in batches."""
    usual = RANGES["trainer"]["pytorch_lightning.Trainer"].keys() | {"_target_", "strategy", *CLIP}
    return "16" in trainer["precision"] or not trainer.keys() <= usual


def _loaders(source: DataSource, data: Dataset, seed: int) -> dict[str, BatchLoader]:
    """The parts' loaders; only training shuffles, and only its Bernoulli draws change with the epoch."""
    assert data.val is not None
    return {
        "train": BatchLoader(data.train, source.batch_size, seed, shuffle=True, dynamic=source.binarize == "dynamic"),
        # It only tells whether the model overfits: more images than these would take longer than all else at the end.
        "some of train": evaluation_loader(source, data.train.some(10_000), "train"),
        "val": evaluation_loader(source, data.val, "val"),
        "test": evaluation_loader(source, data.test, "test"),
    }
