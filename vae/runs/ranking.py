"""Ranking: which runs are comparable, and their figures pooled over seeds. Imports no torch and no matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from vae.common.tables import Table, order
from vae.common.types import TERMS
from vae.runs.results import Run, differ, differing, hashable, partition, refuse_unknown_key
from vae.settings.config import is_place

# Keys that may differ between runs on the same test images: all others in the group are a part of the data.
TRAINING = ("data._target_", "data.batch_size", "data.val_fraction", "data.flip")
# The values of an evaluation that a comparison shows by default.
RANKED = "ranked by"
HEADLINES = ("nll", "active_units", "knn_accuracy", "samples_frechet", "mig")


class Comparable(NamedTuple):
    """Completed runs with totals of the same thing."""

    differences: dict[str, Any]  # how their measure differs from that of others; empty where there are no others
    runs: list[Run]


def comparable(runs: Sequence[Run]) -> tuple[list[Comparable], list[str]]:
    """The sets of completed runs that are measured alike, and the other keys that differ.

    Pass runs with data=auto through `with_real_data` first.
    """
    sets: dict[Any, list[Run]] = {}
    for run in runs:
        sets.setdefault((run.term, hashable(_measure(run))), []).append(run)
    firsts = [some[0] for some in sets.values()]
    measured = list(dict.fromkeys(key for run in firsts for key in _measure(run)))
    differences = [
        key for key in measured if any(differ(some, key) for some in partition(firsts, _above(key)).values())
    ]
    several = len({run.term for run in firsts}) > 1
    found = [
        Comparable(({RANKED: some[0].term} if several else {}) | {key: some[0].value(key) for key in differences}, some)
        for some in sets.values()
    ]
    return found, [key for key in differing(runs) if key not in (*measured, "data._target_")]


def why_separate(sets: Sequence[Comparable]) -> str:
    """Reasons why the totals of such sets measure different things."""
    keys = {key for each in sets for key in each.differences}
    reasons = {
        "the test images differ": any(key.startswith("data") and key != "data.binarize" for key in keys),
        "their pixels are binarised differently": "data.binarize" in keys,
        "recon under another likelihood is another quantity": any(key.startswith("likelihood") for key in keys),
        "a conditional model is told the class": "conditional" in keys,
        "recon of an autoencoder, at the posterior's mean, is no part of a total": RANKED in keys,
    }
    return " and ".join(reason for reason, holds in reasons.items() if holds)


def _above(key: str) -> list[str]:
    """The group that a key is in."""
    return [key.partition(".")[0]] if "." in key else []


def _measure(run: Run) -> dict[str, Any]:
    """All that a total is measured with: the images, the likelihood, and whether the class is given."""
    inner = {key: value for key, value in run.flat.items() if key.startswith(("data.", "likelihood."))}
    fixed = {key: value for key, value in inner.items() if key not in TRAINING and not is_place(run.flat, key)}
    conditional = run.value("conditional") or False
    return {"data": run.metrics["data"], "likelihood": run.value("likelihood"), "conditional": conditional, **fixed}


def with_real_data(run: Run) -> Run:
    """The same run, with data=auto replaced by the data that it found."""
    if run.choices.get("data") != "auto":
        return run
    return replace(run, choices=run.choices | {"data": run.metrics.get("data", "auto")})


# Pooling --------------------------------------------------------------------------------------------------------------


class Mean(NamedTuple):
    """A mean over n seeds and half of its 95 % interval; a single seed has no interval."""

    value: float
    interval: float | None
    n: int


class Pool(NamedTuple):
    """Runs that differ by their seed alone, and what they have in common."""

    values: dict[str, Any]
    runs: list[Run]

    def mean(self, metric: str) -> Mean:
        """The mean over seeds of a metric that all runs have; runs with the same seed count once, by their mean."""
        by_seed = [[run.metrics[metric] for run in same] for same in partition(self.runs, ["seed"]).values()]
        return mean_of([math.fsum(same) / len(same) for same in by_seed])

    @property
    def validation(self) -> Mean:
        """The value by which pools are ranked."""
        return self.mean(f"val/{self.runs[0].term}")

    @property
    def draws(self) -> float:
        """Standard error of `validation` from the single draw of z of each image."""
        errors = [run.metrics.get("val/total_error", 0.0) for run in self.runs]
        return math.sqrt(math.fsum(error**2 for error in errors)) / len(errors)


def pooled(runs: Sequence[Run], keys: Sequence[str]) -> list[Pool]:
    """Comparable runs, pooled where only the seed differs; the lowest validation total comes first.

    Where the total does not apply, recon takes its place.
    """
    keys = [key for key in keys if key != "seed"]
    pools = [Pool({key: some[0].value(key) for key in keys}, some) for some in partition(runs, keys).values()]
    return sorted(pools, key=lambda pool: order(pool.validation.value))


def mean_of(values: Sequence[float]) -> Mean:
    """x̄ ± t s / √n with the 97.5 % quantile t of Student's distribution with n − 1 degrees of freedom."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Mean(mean, None, n)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return Mean(mean, student_t(n - 1) * math.sqrt(variance / n), n)


@cache
def student_t(degrees: int) -> float:
    """The t with P(|T| < t) = 0.95 for Student's T with these degrees of freedom."""
    low, high = 1.9, 13.0  # 1.96 for infinitely many, 12.71 for one
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < 0.95 else (low, middle)
    return high


def _within(t: float, degrees: int) -> float:
    """P(|T| < t): Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4."""
    angle, odd = math.atan(t / math.sqrt(degrees)), degrees % 2
    series, term = 0.0, math.cos(angle) if odd else 1.0
    for k in range(odd, degrees - 1, 2):
        series += term
        term *= math.cos(angle) ** 2 * (k + 1) / (k + 2)
    series *= math.sin(angle)
    return 2 / math.pi * (angle + series) if odd else series


def metrics_of(runs: Sequence[Run], names: Sequence[str] | None) -> list[str]:
    """Columns of evaluations: those of these names, `["all"]`, or a few headlines by default."""
    tags = dict.fromkeys(tag for run in runs for tag in run.metrics if tag.startswith("test/"))
    there = [name for tag in tags if (name := tag.removeprefix("test/")) not in (*TERMS, "loss", "total_error")]
    if names is None:
        return [name for name in HEADLINES if name in there]
    for name in names:
        if name not in (*there, "all"):
            hint = ", ".join(there) or "nothing: evaluate the runs first, with scripts/evaluate.py"
            raise ValueError(f"--metrics {name}: must be all, or some of what has been measured: {hint}")
    return there if "all" in names else list(names)


def comparison_table(pools: Sequence[Pool], sort: str = "validation", metrics: Sequence[str] = ()) -> Table:
    """One row a pool, the best marked, sorted by a column; a metric is blank where not all runs of the pool have it."""
    keys = list(pools[0].values)
    terms = [term for term in TERMS if any(f"test/{term}" in run.metrics for pool in pools for run in pool.runs)]
    figures = ("validation", *terms, *metrics)
    columns = [*keys, "seeds", *(name for figure in figures for name in (figure, f"{figure} ±")), "best"]
    refuse_unknown_key(sort, [name for name in columns if name == sort or not name.endswith("±")])
    undecided = _undecided(pools)
    rows = []
    for i, pool in enumerate(pools):
        row = {**pool.values, "best": i == 0 and not undecided}
        for name in figures:
            metric = f"val/{pool.runs[0].term}" if name == "validation" else f"test/{name}"
            has = all(run.metrics.get(metric) is not None for run in pool.runs)
            row[name], row[f"{name} ±"], seeds = pool.mean(metric) if has else (None, None, 0)
            row["seeds"] = max(row.get("seeds", 0), seeds)
        rows.append(row)
    rows.sort(key=lambda row: order(row[sort]))
    pooling = any(row["seeds"] > 1 for row in rows)
    notes = ["±  half of the 95 % interval of the mean over seeds (Student's t)"] if pooling else []
    return Table(keys, columns, rows, [*notes, *undecided])


def _undecided(pools: Sequence[Pool]) -> list[str]:
    """The note why no run is marked as the best, where the first two are too near each other."""
    if len(pools) < 2:
        return []
    first, second = pools[:2]
    difference = second.validation.value - first.validation.value
    error = 2 * math.hypot(first.draws, second.draws)
    if not difference <= error:
        return []
    return [
        f"no best: the first two differ by {difference:.2f}, within the ±{error:.2f} of one draw of z for each image"
    ]
