"""Sections `sweep` and `launchers`: what a job of a sweep takes besides its training, and by whom jobs are run best."""

from __future__ import annotations

import json
import time
from functools import partial

from benchmarks.common import Options, in_turn, ratio, spread, table
from benchmarks.processes import TRAIN, wall
from vae.common.tables import Table

JOBS = "seed=0,1,2,3,4,5,6,7"
LAUNCHERS = {
    "one after another": [],
    "joblib": ["hydra/launcher=joblib"],
    "together": ["hydra/launcher=together"],
}
MODELS = {
    "dense, batch 128": [],
    "64-32, batch 128": ["backbone.hidden=[64,32]"],
    "2×200, batch 20": ["backbone.hidden=[200,200]", "data.batch_size=20"],
    "64-32, batch 20": ["backbone.hidden=[64,32]", "data.batch_size=20"],
}


def sweep(options: Options) -> dict[str, Table]:
    """What a job of a sweep takes besides its training."""

    def overhead(seeds: str) -> float:
        folder = options.folder / f"sweep {time.monotonic_ns()}"
        quiet = ["epochs=1", "figures=none", f"seed={seeds}", f"hydra.sweep.dir='{folder}'"]
        seconds = wall(*TRAIN, "-m", *options.limited, *quiet)
        metrics = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/metrics.json")]
        return seconds - sum(each["seconds/fit"] for each in metrics)

    rounds = in_turn({"one": lambda: overhead("0"), "four": lambda: overhead("0,1,2,3")}, options.repeats)
    for each in rounds:
        each["further"] = (each["four"] - each["one"]) / 3
    names = {"one": "a sweep of one", "four": "a sweep of four", "further": "each further job"}
    rows = [{"overhead of": text, **spread(rounds, name)} for name, text in names.items()]
    note = "Wall seconds of python train.py -m seed=… epochs=1 figures=none less those of training (seconds/fit)."
    return {"sweep": table(rows, note, "In: start, reading images, closing evaluation of all parts, files.")}


def launchers(options: Options) -> dict[str, Table]:
    """A sweep of eight jobs by each launcher, from its start to its end."""
    limited = [*options.data, f"data.limit={options.images // 2}", "epochs=5", "figures=none", JOBS]
    rows = []
    for model, overrides in MODELS.items():
        ways = {name: partial(_swept, options, [*limited, *overrides, *words]) for name, words in LAUNCHERS.items()}
        rounds = in_turn(ways, max(1, options.repeats // 2))
        for launcher in LAUNCHERS:
            found = ratio(rounds, launcher, "one after another")
            rows.append({"eight jobs of": model, "launcher": launcher, **found})
    note = f"Whole sweeps of 5 epochs of {options.images // 2:,} images; the ratio is to one after another."
    return {"launchers": table(rows, note)}


def _swept(options: Options, words: list[str]) -> float:
    """Seconds of a whole sweep."""
    return wall(*TRAIN, "-m", *words, f"hydra.sweep.dir='{options.folder / f'launched {time.monotonic_ns()}'}'")
