"""Sections `train`, `growth` and `deep`: an epoch of the runner beside other ways, and how it grows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch

from benchmarks.common import Options, Seconds, in_turn, ratio, table, timed
from benchmarks.loops import HandLoop, Products, UsualLightning
from vae.common.tables import Table
from vae.data.base import Dataset
from vae.data.loader import BatchLoader
from vae.model.build import build, build_model
from vae.model.objectives import Batch
from vae.settings.compose import composed
from vae.settings.config import plain
from vae.training import run
from vae.training.callbacks.pictures import Pictures

CASES = {
    "dense, batch 128": [],
    "conv, batch 128": ["backbone=conv"],
    "2×200, latent_dim 50, batch 20": ["backbone.hidden=[200,200]", "latent_dim=50", "data.batch_size=20"],
}
DEEP = {
    "resnet": ["backbone=resnet", "likelihood=discretized_logistic"],
    "ladder of three levels": ["experiment=ladder_mnist", "ema=0", "trainer.gradient_clip_val=null"],
}
PRIORS = ("isotropic", "correlated", "learned", "mixture", "vamp", "flow")
POSTERIORS = ("diagonal", "tied", "full")
DIMS = (2, 8, 32, 128, 512)


class Turns(Pictures):
    """Stands where a run's pictures do: before each of its epochs every other contender has one; times them all."""

    # On the class, because the run makes the object.
    others: ClassVar[Mapping[str, Seconds]] = {}
    rounds: ClassVar[list[dict[str, float]]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()
        self.rounds.append({name: epoch() for name, epoch in self.others.items()})
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.rounds[-1]["pictures"] = timed(partial(super().on_train_epoch_end, trainer, pl_module))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.rounds[-1]["pictures"] += timed(partial(super().on_train_end, trainer, pl_module))
        self._stop()

    def _stop(self) -> None:
        if self.rounds:
            self.rounds[-1]["runner"] = time.perf_counter() - self._start


def race(folder: Path, config: dict[str, Any], others: Mapping[str, Seconds]) -> list[dict[str, float]]:
    """Seconds of each epoch of the run, of the pictures in it, and of the others' in between."""
    Turns.others, Turns.rounds = others, []
    config["figures"] |= {"_target_": f"{__name__}.Turns"}
    run.train_run(config, folder / f"run {time.monotonic_ns()}")
    return Turns.rounds


def epochs(options: Options) -> dict[str, Table]:
    """An epoch of the runner beside the others."""
    rows = []
    for case, overrides in CASES.items():
        images = options.limited if case.startswith("conv") else options.data
        config = plain(composed(*images, *overrides, f"epochs={options.repeats + 1}", "figures=none"))
        data = build(config, "data").load()
        hand = HandLoop(config, data)
        products = Products(hand)
        usual = UsualLightning(HandLoop(config, data), options.folder / "lightning")
        others = {"hand-written loop": hand.epoch, "its products": products.epoch, "usual Lightning": usual.epoch}
        _, *rounds = race(options.folder, config, others)  # the first one warms up
        for name in others:
            times = ratio(rounds, "runner", name)
            rate = products.rate(times["other's"]) if name == "its products" else ""
            rows.append({"model": case, "images": len(data.train), "runner ÷": name, **times, "GFLOP/s": rate})
    found = table(
        rows,
        "All take turns by epochs, the first of each is left out. Of the runner's epoch are in: training, validation,",
        "TensorBoard, checkpoints and progress; out: pictures. The hand-written loop: images in memory as floats,",
        "fused Adam, validation; nothing is written or shown. Its products: the matrix products of its layers alone,",
        "forwards and backwards, of which one step in ten is measured. Usual Lightning: DataLoader over a",
        "TensorDataset, self.log in each step, plain Adam, validation, TensorBoard, checkpoints, no progress bar.",
    )
    return {"epochs": found}


class Steps:
    """Training steps of the runner's model, objective and optimiser, without Lightning."""

    def __init__(self, config: Mapping[str, Any], data: Dataset):
        self.model = build_model(config, data.shape, len(data.classes))
        self.model.start_at(data.train.images[:1000] / 255, data.train.labels[:1000])
        self.objective = build(config, "objective")
        self.optimizer = build(config, "optimizer")(list(self.model.parameters()))
        self.loader = BatchLoader(data.train, config["data"]["batch_size"], shuffle=True)
        self.batch = next(iter(self.loader))

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        (loss, _), _ = self.objective(self.model, Batch(images, labels), 0)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def epoch(self) -> float:
        """Seconds of an epoch."""
        start = time.perf_counter()
        for images, labels in self.loader:
            self.step(images, labels)
        return time.perf_counter() - start

    def one(self) -> float:
        """Seconds of a step: the mean of those that fit into a tenth of a second, at least one."""
        start, steps = time.perf_counter(), 0
        while not steps or time.perf_counter() - start < 0.1:
            self.step(*self.batch)
            steps += 1
        return (time.perf_counter() - start) / steps


def deep(options: Options) -> dict[str, Table]:
    """Deep networks: an epoch of the runner beside a plain loop of the same modules."""
    rows = []
    for case, overrides in DEEP.items():
        small = [*options.data, f"data.limit={min(options.images, 2000)}", "figures=none", "evaluate.metrics=[]"]
        config = plain(composed(*overrides, *small, f"epochs={options.repeats + 1}"))
        data = build(config, "data").load()
        _, *rounds = race(options.folder, config, {"plain loop": Steps(config, data).epoch})
        times = ratio(rounds, "runner", "plain loop")
        rows.append({"model": case, **times, "images a second": len(data.train) / times["seconds"]})
    note = "Of the runner's epoch validation, TensorBoard and checkpoints are in; the plain loop trains and no more."
    return {"deep": table(rows, note)}


def growth(options: Options) -> dict[str, Table]:
    """How training time grows with batch size, number of images and latent_dim."""
    limit = min(options.images, 4000)
    small = [*options.data, f"data.limit={limit}"]
    data = build(plain(composed(*small)), "data").load()

    def measured(name: str, sizes: Sequence[int], make: Callable[[int], Seconds], unit: float) -> dict[str, Any]:
        contenders = {str(size): make(size) for size in sizes}
        rounds = in_turn(contenders, options.repeats)
        seconds = [min(each[str(size)] for each in rounds) for size in sizes]
        cells = {str(size): unit * value for size, value in zip(sizes, seconds, strict=True)}
        return {"": name, **cells, "exponent": exponent(sizes, seconds)}

    def of(*overrides: str) -> Steps:
        return Steps(plain(composed(*small, *overrides)), data)

    def of_part(count: int) -> Seconds:
        part = data.train.take(torch.arange(count) % len(data.train))
        return Steps(plain(composed(*small)), Dataset(data.name, part, data.test, classes=data.classes)).epoch

    def steps_of(choice: str, latent_dim: int) -> Seconds:
        return of(choice, f"latent_dim={latent_dim}").one

    batches = measured("s an epoch", (16, 64, 256, 1024), lambda n: of(f"data.batch_size={n}").epoch, 1)
    counts = measured("s an epoch", (1000, 4000, 16000), of_part, 1)
    dims = [
        measured(choice, DIMS, partial(steps_of, choice), 1000)
        for choice in (*(f"prior={name}" for name in PRIORS), *(f"posterior={name}" for name in POSTERIORS[1:]))
    ]
    full, isotropic = of("prior=correlated", "latent_dim=32"), of("latent_dim=32")
    rounds = in_turn({"full": full.epoch, "isotropic": isotropic.epoch}, 3 * options.repeats)
    note = "Training steps without Lightning; the fastest round. The exponent is that of the last three sizes."
    return {
        f"batch size, {len(data.train)} images": table([batches], note),
        "images": table([counts]),
        "latent_dim, ms a step of 128": table(dims),
        "latent_dim 32, correlated prior ÷ isotropic": table([ratio(rounds, "full", "isotropic")]),
    }


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """b of seconds ~ size^b at the large end: the slope through the last three points of the logarithms."""
    slope, _ = np.polyfit(np.log(sizes[-3:]), np.log(seconds[-3:]), 1)
    return float(slope)
