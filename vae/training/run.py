"""One run from its plain configuration to its metrics."""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch

from vae.common import signals, terminal
from vae.common.files import write_csv, write_json
from vae.common.seeding import derive
from vae.common.terminal import bar
from vae.data.base import Dataset, DataSource
from vae.data.loader import evaluation_loader
from vae.evaluation.codes import use_of_codes
from vae.evaluation.likelihood import bits_of_levels
from vae.evaluation.terms import error_of_draws, mean_terms
from vae.model.build import build
from vae.model.checkpoints import model_weights, read
from vae.model.objectives import Objective
from vae.model.vae import VAE
from vae.runs.record import overrides
from vae.runs.results import EVALUATION, read_run
from vae.runs.sweep import told_apart_by
from vae.training import hparams, report
from vae.training.assembly import Assembly, assemble
from vae.training.lane import lane
from vae.training.parallel import run_processes

if TYPE_CHECKING:
    from vae.study.evaluate import Evaluation

log = logging.getLogger(__name__)

# Warnings that a user of this program can do nothing about.
warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging interval")


def train_run(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Train in `folder`, or go on there from `last.ckpt`; writes and returns the metrics."""
    start = time.perf_counter()
    pl.seed_everything(config["seed"], verbose=False)
    terminal.meanwhile("reading the data")
    source: DataSource = build(config, "data")
    among = lane()
    data = source.load() if among is None else among.data(config["data"], source.load)
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
    parts = assemble(config, folder, source, data, rank, processes)
    log.info(report.header(config, data, parts.model, parts.ledger, parts.device, folder))
    if processes > 1:
        log.info("processes %d, each with its share of every batch", processes)
    with _told(config, folder, parts) if rank == 0 else nullcontext():
        # The first one waits for the end of the step. Several processes are ended by the one that started them.
        with signals.noted(patience=1 if processes == 1 else math.inf):
            parts.fit()
        if rank:
            return {}
        # Every picture and figure that is shown at the end is of the reported weights, and of a whole part of the data.
        reported = read(parts.files.reported)
        parts.model.load_state_dict(model_weights(reported))
        parts.model.eval().to(parts.device)
        parts.objective.to(parts.device)
        epoch = reported["epoch"] + 1
        parts.watchers.pictures.close(parts.trainer, parts.module, epoch)
        device = report.device_name(parts.device)
        metrics = _measured(config, parts, source, data) | {
            "data": data.name,
            "epochs": parts.trainer.current_epoch,
            "epoch": epoch,
            "best_epoch": parts.watchers.checkpoints.best_epoch,
            "parameters": report.parameter_count(parts.model),
            "device": device if processes == 1 else f"{processes} × {device}",
            **parts.ledger.flat(),
            "seconds/fit": parts.watchers.scalars.seconds,
            "seconds/run": time.perf_counter() - start,
        }
        write_csv(folder / "history.csv", parts.watchers.scalars.history)
        write_json(folder / "metrics.json", metrics)
        (folder / EVALUATION).unlink(missing_ok=True)  # that of a run before it was trained further
        log.info(report.closing(config, metrics, folder))
        if config["evaluate"].get("metrics") != []:
            _evaluate(config, folder, parts, source, data, reported["global_step"], epoch)
    return metrics


def _told(config: Mapping[str, Any], folder: Path, parts: Assembly) -> AbstractContextManager[None]:
    """What TensorBoard is told of the run as a whole."""
    record = read_run(folder)
    typed = overrides(folder)
    row = hparams.row_of(config, record.choices if record else {}, typed)
    columns = hparams.columns(row, told_apart_by(folder) or hparams.typed(typed))
    return parts.logger.session(
        config, typed, [columns, hparams.start(row)], parts.ledger.markdown(), parts.objective.terms
    )


def _measured(config: Mapping[str, Any], parts: Assembly, source: DataSource, data: Dataset) -> dict[str, Any]:
    """The terms of every part of the data, and how far the totals may be off."""
    metrics: dict[str, Any] = {}
    loaders = parts.loaders | {"train": parts.loaders.pop("some of train")}
    with bar("measuring", len(loaders)) as measuring:
        for part, loader in loaders.items():
            measuring.set_description_str(f"measuring {part}")
            torch.manual_seed(derive(config["seed"], part))
            terms = mean_terms(parts.model, loader, parts.objective)
            terms |= bits_of_levels(parts.model, terms, data.shape)
            if part == "test":
                terms |= use_of_codes(parts.model, loader, terms)
            metrics |= {f"{part}/{name}": value for name, value in terms.items()}
            measuring.update()
    of_test = {name: value for name, value in metrics.items() if name.startswith("test/")}
    parts.logger.level(of_test, parts.module.steps_taken)
    if "total" in parts.objective.terms and not parts.model.is_certain:
        metrics |= _errors_of_draws(parts.model, parts.objective, source, data, config["seed"])
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


def _evaluate(
    config: Mapping[str, Any], folder: Path, parts: Assembly, source: DataSource, data: Dataset, step: int, epoch: int
) -> None:
    with signals.noted():  # importing measures takes a second
        from vae.study.subject import Subject

    evaluation: Evaluation = build(config, "evaluate")
    subject = Subject(parts.model, source, data, evaluation.effort, at_mean=parts.objective.needs.mean)
    found = evaluation(subject, folder, step, epoch)
    parts.logger.level(found.values, parts.module.steps_taken)
    log.info(found.table)
