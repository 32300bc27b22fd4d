"""Sections `data` and `figures`: what images and pictures take by themselves."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common import Options, in_turn, median, ratio, spread, table, timed
from vae.common.tables import Table
from vae.data.loader import BatchLoader, evaluation_loader
from vae.figures.style import rasterise
from vae.model.build import build
from vae.model.checkpoints import about
from vae.settings.compose import composed
from vae.settings.config import plain
from vae.study.scene import Scene
from vae.training import run
from vae.use.trained import load

DIMS = (2, 3, 16)


def data(options: Options) -> dict[str, Table]:
    """Images a second, and how long the first batch takes."""
    config = plain(composed(*options.data))
    source = build(config, "data")

    def first_batch() -> None:
        part = source.load().train
        next(iter(BatchLoader(part, source.batch_size, shuffle=True)))

    first = timed(first_batch)
    again = in_turn({"again": lambda: timed(first_batch)}, options.repeats)
    part = source.load().train
    rows = []
    for size in (20, 128):
        ours = BatchLoader(part, size, shuffle=True)
        usual = DataLoader(TensorDataset(part.images / 255, part.labels), size, shuffle=True)
        contenders = {
            name: partial(timed, partial(deque, loader, maxlen=0))  # takes all and keeps nothing
            for name, loader in (("loader", ours), ("DataLoader", usual))
        }
        rounds = in_turn(contenders, options.repeats)
        rate = {f"{name}, images/s": round(len(part) / median(rounds, name)) for name in contenders}
        rows.append({"batch size": size, **ratio(rounds, "DataLoader", "loader"), **rate})
    waiting = [
        {"first batch": "first time", **spread([{"first": first}], "first")},
        {"first batch": "again", **spread(again, "again")},
    ]
    return {
        "DataLoader over tensors ÷ loader": table(rows, "A whole pass over the shuffled training images."),
        "to the first batch": table(waiting, "Files read, unpacked and verified, split, shuffled; Python has started."),
    }


def figures(options: Options) -> dict[str, Table]:
    """Seconds of each picture, from the model to the pixels."""
    rows: dict[str, dict[str, float]] = {}
    for dim in DIMS:
        folder = options.folder / f"figures {dim}"
        config = plain(composed(*options.limited, f"latent_dim={dim}", "epochs=1", "figures=none"))
        run.train_run(config, folder)
        source = build(plain(composed(*options.data)), "data")
        images = source.load()
        losses = {f"{part}/{term}": 1.0 for part in ("train", "val") for term in ("total", "recon", "kl")}
        loader = evaluation_loader(source, images.test, "test")
        scene = Scene(load(folder).vae, loader, about(config, images), 1, history=[{"epoch": 1, **losses}])
        rows.setdefault("encoding the test images", {})[str(dim)] = timed(partial(getattr, scene, "codes"))
        rounds = in_turn({tag: partial(timed, partial(_drawn, scene, tag)) for tag in scene.tags}, 3)
        for tag in scene.tags:
            rows.setdefault(tag, {})[str(dim)] = median(rounds, tag)
    rows["all"] = {str(dim): sum(row.get(str(dim), 0.0) for row in rows.values()) for dim in DIMS}
    empty = dict.fromkeys(map(str, DIMS))  # not every picture is of every number of dimensions
    named: list[dict[str, Any]] = [{"seconds, latent_dim": name, **empty, **row} for name, row in rows.items()]
    return {"figures": table(named, "Median of three, drawn and made pixels; writing PNGs is out.")}


def _drawn(scene: Scene, tag: str) -> Any:
    return rasterise(scene.draw(tag))
