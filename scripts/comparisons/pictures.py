"""Pictures of comparable runs. Imports Matplotlib when the first is drawn."""

from __future__ import annotations

import csv
import math
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from comparisons.tables import count, settings
from vae.common.files import Bounded
from vae.common.tables import order, typed
from vae.runs import ranking
from vae.runs.ranking import Comparable, Pool
from vae.runs.results import Run
from vae.settings.config import unusual

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

SHEETS = {  # with the picture of each run that a contact sheet shows
    "manifolds": Path("figures", "latent", "manifold.png"),
    "clusters": Path("figures", "latent", "clusters.png"),
    "samples": Path("figures", "images", "samples.png"),
}
COLOURS = 10  # of series: those with the best runs
ACROSS = 3  # pictures in a row where one key alone lays them out: with more, their own texts cannot be read


def pictures(each: Comparable, keys: Sequence[str]) -> Iterator[tuple[str, Figure | str]]:
    """The names of all pictures with the figures, or with the reason why one does not apply."""
    from vae.figures import comparison

    term = each.runs[0].term
    runs = [run for run in each.runs if math.isfinite(run.metrics[f"test/{term}"])]
    if not runs:
        yield "comparison", f"no run has a finite {term}"
        return
    swept = [key for key in keys if key != "seed" and len(values(runs, key)) > 1]
    pools = ranking.pooled(runs, swept)
    told = [str(runs[0].metrics["data"]), settings(each.differences), *shared(runs, each.differences), count(runs)]
    note = " · ".join(filter(None, told))

    title, groups = series(pools, without="beta")
    if term == "total":
        marks = [(name, [_mark(run) for pool in some for run in pool.runs]) for name, some in groups]
        yield "rate_distortion", comparison.rate_distortion(marks, title, note)
    else:
        yield "rate_distortion", "an autoencoder has no kl"

    for key in swept:
        title, groups = series([pool for pool in pools if pool.values[key] != ""], without=key)
        estimates = [(name, [_estimate(pool, key) for pool in some]) for name, some in groups]
        yield f"{term}_by_{key}", comparison.totals(key, values(runs, key), estimates, title, note, term)
    if not swept:
        yield f"{term}_by_KEY", "the runs differ by nothing but their seeds"

    title, groups = series(pools)
    curves = [(name, [line for run in some[0].runs if (line := history(run))]) for name, some in groups]
    curves = [(name, lines) for name, lines in curves if lines]
    yield "curves", comparison.curves(curves, title, note, term) if curves else "no run has a history.csv"

    for name, picture in SHEETS.items():
        drawn = any((run.folder / picture).exists() for run in runs)
        yield name, contact_sheet(runs, swept, note, picture) if drawn else f"no run has a {picture}"


def shared(runs: Sequence[Run], told: Container[str]) -> list[str]:
    """The backbone and the likelihood of all runs in words, where these are not the default and not told already."""
    groups = [unusual(run.config) for run in runs]
    return [
        words
        for key, words in groups[0].items()
        if key not in told and all(group.get(key) == words for group in groups)
    ]


def series(pools: Sequence[Pool], without: str = "") -> tuple[str, list[tuple[str, list[Pool]]]]:
    """The swept keys but one, and the pools by their values of these: the ten best in order, then all others."""
    keys = [key for key in pools[0].values if key != without]
    groups: dict[str, list[Pool]] = {}
    for pool in pools:
        groups.setdefault(", ".join(filter(None, (typed(pool.values[key]) for key in keys))), []).append(pool)
    best, others = list(groups.items())[:COLOURS], list(groups.items())[COLOURS:]
    best.sort(key=lambda group: [order(group[1][0].values[key]) for key in keys])
    return ", ".join(keys), best + others


def values(runs: Sequence[Run], key: str) -> list[float | str]:
    """The values of a key: numbers as they rise, words in order of appearance; none for runs without the key."""
    found = [value for value in dict.fromkeys(on_axis(run.value(key)) for run in runs) if value != ""]
    return sorted(found, key=lambda value: value if isinstance(value, int | float) else 0.0)


def on_axis(value: Any) -> float | str:
    """A number, or the text that one would type."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else typed(value)


def history(run: Run) -> list[tuple[float, float]]:
    """Epochs and validation totals, or recons; empty where the run has no history."""
    path = run.folder / "history.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        try:
            return [(float(row["epoch"]), float(row[f"val/{run.term}"])) for row in csv.DictReader(file)]
        except (KeyError, TypeError, ValueError, csv.Error):
            raise ValueError(f"{path}: must hold numbers in the columns epoch and val/{run.term}") from None


def contact_sheet(runs: Sequence[Run], swept: Sequence[str], note: str, picture: Path) -> Figure:
    """A picture of each run in a grid of the two keys with the most values, or in rows where there is only one key."""
    from vae.figures import contact

    def worth(key: str) -> tuple[bool, int]:
        return all(run.value(key) != "" for run in runs), len(values(runs, key))

    across, *down = sorted(swept or ["seed"], key=worth, reverse=True)[:2]
    hidden = [key for key in (*swept, "seed") if key not in (across, *down) and len(values(runs, key)) > 1]
    cells: dict[tuple[float | str, ...], list[Run]] = {}
    for run in runs:
        cells.setdefault(tuple(on_axis(run.value(key)) for key in (across, *down)), []).append(run)
    legend = legend_of(runs, picture)
    note = f"each cell: the run with the lowest validation {runs[0].term} · {note}"
    names = {column: f"{across}={typed(column)}" for column in values(runs, across)}
    if not down:
        tiles = [tile(cells[column,], hidden, picture, f"{name}\n") for column, name in names.items()]
        in_rows = [tiles[i : i + ACROSS] for i in range(0, len(tiles), ACROSS)]
        return contact.contact_sheet(in_rows, note=note, **legend)
    rows = values(runs, down[0])
    grid = [[tile(cells.get((column, row), []), hidden, picture) for column in names] for row in rows]
    return contact.contact_sheet(
        grid, [f"{down[0]}={typed(row)}" for row in rows], list(names.values()), note, **legend
    )


def tile(runs: Sequence[Run], hidden: Sequence[str], picture: Path, name: str = "") -> Any:
    """The picture of the best of some runs, and the other keys that distinguish it from the rest."""
    from vae.figures.contact import Tile

    drawn = [run for run in runs if (run.folder / picture).exists()]
    if not drawn:
        return Tile(None, name + ("no picture" if runs else "no run"))
    best = min(drawn, key=lambda run: order(run.validation))
    chosen = settings({key: best.value(key) for key in hidden})
    which = f"\n{fill(f'best of {len(runs)}: {chosen}', 30)}" if chosen and len(runs) > 1 else ""
    pixels, (right, bottom), _ = opened(best.folder / picture)
    return Tile(pixels[:bottom, :right], f"{name}{best.term} {best.metrics[f'test/{best.term}']:.2f}{which}")


def legend_of(runs: Sequence[Run], picture: Path) -> dict[str, Any]:
    """The legend that the runs' pictures have in common: its pixels and how many make an inch; nothing without one."""
    for path in (run.folder / picture for run in runs):
        if path.exists():
            pixels, (right, bottom), dpi = opened(path)
            aside = pixels[:bottom, right:]
            y, x = (aside.min(2) < 250).nonzero()
            if not len(y):
                return {}
            return {"legend": aside[y.min() : y.max() + 1, x.min() : x.max() + 1], "legend_dpi": dpi}
    return {}


def opened(path: Path) -> tuple[np.ndarray, tuple[int, int], float]:
    """The pixels of a picture, where its legend and its small print begin, and how many pixels make an inch."""
    import numpy as np
    from PIL import Image

    try:
        with Bounded(path) as file, Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
            right, bottom = map(int, image.info.get("panels", "{1} {0}".format(*pixels.shape)).split())
            return pixels, (right, bottom), image.info.get("dpi", (110.0,))[0]
    except Exception as error:  # foreign bytes can fail in any way
        raise ValueError(f"{path}: cannot be read as a picture ({type(error).__name__})") from error


def _mark(run: Run) -> Any:
    from vae.figures.comparison import Mark

    beta = run.value("beta")
    return Mark(None if beta == "" else beta, run.metrics["test/kl"], run.metrics["test/recon"])


def _estimate(pool: Pool, key: str) -> Any:
    from vae.figures.comparison import SeedMean

    total = pool.mean(f"test/{pool.runs[0].term}")
    return SeedMean(on_axis(pool.values[key]), total.value, total.interval)
