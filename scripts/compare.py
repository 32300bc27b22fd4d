"""Compare runs: a table by the keys that differ, means over seeds with 95 % intervals, and pictures."""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import installed  # noqa: F401

from vae.common.files import relative
from vae.common.tables import Table, natural, order, typed
from vae.entry import programs
from vae.runs import ranking, results
from vae.runs.ranking import Comparable, Pool
from vae.runs.results import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHEETS = {  # with the picture of each run that a contact sheet shows
    "manifolds": Path("figures", "latent", "manifold.png"),
    "clusters": Path("figures", "latent", "clusters.png"),
}
DPI = 200  # for print
COLOURS = 10  # of series: those with the best runs
ACROSS = 3  # pictures in a row where one key alone lays them out: with more, their own texts cannot be read

EXAMPLES = """
examples:
  python scripts/compare.py outputs/sweeps/2030-01-01/12-00-00-000000
  python scripts/compare.py outputs --where data=mnist --where latent_dim=2 --sort kl
  python scripts/compare.py outputs/sweeps/2030-01-01 --figures paper/figures --csv paper/results.csv
  python scripts/compare.py outputs/sweeps/2030-01-01/12-00-00-000000 --markdown
  python scripts/compare.py outputs/sweeps/2030-01-01/12-00-00-000000 --metrics nll,mig --sort mig

Runs on other images, or with another likelihood, are never ranked together: each kind has a table of its own.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare what the command line asks for."""
    programs.run(compare, _parser().parse_args(arguments))


def compare(
    folders: Sequence[Path],
    where: Sequence[str],
    sort: str,
    csv: Path | None,
    markdown: Path | None,
    figures: Path | None,
    metrics: Sequence[str] | None,
) -> None:
    """Print a table for each set of comparable runs, and write what else is asked for."""
    for option, path in (("--csv", csv), ("--markdown", markdown)):
        if path is not None and path.is_dir():
            raise ValueError(f"{option} {path}: is a folder; name the folders of runs before any option")
    if csv is not None and markdown is not None and _is_same(csv, markdown):
        raise ValueError(f"--csv {csv} and --markdown {markdown}: must be two places")
    if not folders:
        raise ValueError("name the folders of runs or of sweeps, before any option")
    runs = matching([ranking.with_real_data(run) for run in results.find_runs(folders)], where)
    completed = [run for run in runs if run.state == "completed"]
    others = [run for run in runs if run.state != "completed"]
    if not completed:
        raise ValueError(f"no run is completed: {left_out(others)}")
    sets, keys = ranking.comparable(completed)
    shown = ranking.metrics_of(completed, metrics)
    tables = [ranking.comparison_table(ranking.pooled(each.runs, own(each, keys)), sort, shown) for each in sets]
    heads = [heading(sets, i) for i in range(len(sets))]
    contents = {
        csv: together(sets, tables).csv,
        markdown: lambda: "\n".join(f"{head}\n\n{table.markdown()}" for head, table in zip(heads, tables, strict=True)),
    }
    piped = any(path in programs.STDOUT for path in contents)
    if not piped:
        print("\n\n".join(f"{head}\n{table.text()}" for head, table in zip(heads, tables, strict=True)))
    report = sys.stderr if piped else sys.stdout
    for path, content in contents.items():
        if path is None:
            continue
        with programs.table_file(path) as file:
            file.write(content())
        if path not in programs.STDOUT:
            print(relative(path), file=report)
    if others:
        print(f"left out: {left_out(others)}", file=report)
    if figures is not None:
        for i, each in enumerate(sets):
            folder = figures / f"table_{i + 1}" if len(sets) > 1 else figures
            for line in draw(each, own(each, keys), folder):
                print(line, file=report)


def _is_same(a: Path, b: Path) -> bool:
    """Whether two tables would go to one place."""
    return a.resolve() == b.resolve() or (a in programs.STDOUT and b in programs.STDOUT)


def matching(runs: Sequence[Run], conditions: Sequence[str]) -> Sequence[Run]:
    """The runs that fulfil all conditions such as prior=correlated."""
    for condition in conditions:
        key, equals, text = condition.partition("=")
        if not equals:
            raise ValueError(f"--where {condition}: must be key=value")
        known = {name for run in runs for name in (*run.config, *run.choices, *run.flat)}
        results.refuse_unknown_key(key, known)
        found = {typed(run.value(key)) for run in runs}
        runs = [run for run in runs if results.is_value(run.value(key), text)]
        if not runs:
            there = ", ".join(sorted(found - {""}, key=natural)[:12])
            raise ValueError(f"--where {condition}: no run has it; found are {there}")
    return runs


def left_out(runs: Sequence[Run]) -> str:
    """How many runs are in which other state than completed, and where to read more of them."""
    counts = Counter(run.state for run in runs)
    tables = sorted({run.folder.parent / "results.md" for run in runs})
    return "; see ".join(
        [
            ", ".join(f"{count} {state}" for state, count in counts.items()),
            *(str(relative(path)) for path in tables if path.exists()),
        ]
    )


def heading(sets: Sequence[Comparable], number: int) -> str:
    """What a table is about, and why it stands alone."""
    each = sets[number]
    data = each.runs[0].metrics["data"]
    about = f"{_count(each.runs)} on {data}: nats per image on the test set, ranked by validation"
    if len(sets) == 1:
        return about
    others = "the other table" if len(sets) == 2 else "the other tables"
    return (
        f"{number + 1} of {len(sets)}: {_typed(each.apart)}\n{about};\n"
        f"not ranked with {others}, because {ranking.why_apart(sets)}"
    )


def together(sets: Sequence[Comparable], tables: Sequence[Table]) -> Table:
    """All tables as one, with columns for what tells them apart."""
    apart = list(dict.fromkeys(key for each in sets for key in each.apart))
    empty = dict.fromkeys(apart, "")
    widest_first = sorted(tables, key=lambda table: -len(table.columns))  # an autoencoder has no total and no kl
    columns = list(dict.fromkeys(name for table in widest_first for name in table.columns))
    blank = dict.fromkeys(columns)
    rows = [
        {**blank, **empty, **each.apart, **row} for each, table in zip(sets, tables, strict=True) for row in table.rows
    ]
    keys = dict.fromkeys(key for table in tables for key in table.keys)
    return Table([*apart, *keys], [*apart, *columns], rows)


def own(each: Comparable, keys: Sequence[str]) -> list[str]:
    """The keys that any of the runs has: an autoencoder has no β."""
    return [key for key in keys if any(run.value(key) != "" for run in each.runs)]


# Pictures -------------------------------------------------------------------------------------------------------------


def draw(each: Comparable, keys: Sequence[str], folder: Path) -> Iterator[str]:
    """Write the pictures of comparable runs; yields the path of each, or why there is none."""

    for name, picture in pictures(each, keys):
        path = folder / f"{name}.png"
        if isinstance(picture, str):
            yield f"no {path.name}: {picture}"
            continue
        programs.save_picture(path, picture, DPI)
        yield str(relative(path))


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
    note = " · ".join(filter(None, [str(runs[0].metrics["data"]), _typed(each.apart), _count(runs)]))

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
    from vae.figures import comparison

    def worth(key: str) -> tuple[bool, int]:
        return all(run.value(key) != "" for run in runs), len(values(runs, key))

    across, *down = sorted(swept or ["seed"], key=worth, reverse=True)[:2]
    hidden = [key for key in (*swept, "seed") if key not in (across, *down) and len(values(runs, key)) > 1]
    cells: dict[tuple[float | str, ...], list[Run]] = {}
    for run in runs:
        cells.setdefault(tuple(on_axis(run.value(key)) for key in (across, *down)), []).append(run)
    note = f"each cell: the run with the lowest validation {runs[0].term} · {note}"
    names = {column: f"{across}={typed(column)}" for column in values(runs, across)}
    if not down:
        tiles = [tile(cells[column,], hidden, picture, f"{name}\n") for column, name in names.items()]
        return comparison.contact_sheet([tiles[i : i + ACROSS] for i in range(0, len(tiles), ACROSS)], note=note)
    rows = values(runs, down[0])
    grid = [[tile(cells.get((column, row), []), hidden, picture) for column in names] for row in rows]
    return comparison.contact_sheet(grid, [f"{down[0]}={typed(row)}" for row in rows], list(names.values()), note)


def tile(runs: Sequence[Run], hidden: Sequence[str], picture: Path, name: str = "") -> Any:
    """The picture of the best of some runs, and by which other keys that is told from the rest of them."""
    import numpy as np
    from PIL import Image

    from vae.figures.comparison import Tile

    drawn = [run for run in runs if (run.folder / picture).exists()]
    if not drawn:
        return Tile(None, name + ("no picture" if runs else "no run"))
    best = min(drawn, key=lambda run: order(run.validation))
    chosen = _typed({key: best.value(key) for key in hidden})
    which = f"\n{fill(f'best of {len(runs)}: {chosen}', 30)}" if chosen and len(runs) > 1 else ""
    try:
        with Image.open(best.folder / picture) as image:
            pixels = np.asarray(image.convert("RGB"))
    except Exception as error:  # foreign bytes can fail in any way
        raise ValueError(f"{best.folder / picture}: cannot be read as a picture ({type(error).__name__})") from error
    return Tile(pixels, f"{name}{best.term} {best.metrics[f'test/{best.term}']:.2f}{which}")


def _mark(run: Run) -> Any:
    from vae.figures.comparison import Mark

    beta = run.value("beta")
    return Mark(None if beta == "" else beta, run.metrics["test/kl"], run.metrics["test/recon"])


def _estimate(pool: Pool, key: str) -> Any:
    from vae.figures.comparison import Estimate

    total = pool.mean(f"test/{pool.runs[0].term}")
    return Estimate(on_axis(pool.values[key]), total.value, total.interval)


def _typed(values: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={typed(value)}" for key, value in values.items() if value != "")


def _count(runs: Sequence[Run]) -> str:
    return f"{len(runs)} run{'s' * (len(runs) > 1)}"


def _parser() -> argparse.ArgumentParser:
    parser = programs.described("compare.py", __doc__, EXAMPLES)
    parser.add_argument("folders", nargs="*", type=Path, metavar="folder", help="of a run, of a sweep, or above these")
    parser.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help="only such runs (repeatable)")
    parser.add_argument("--sort", default="validation", metavar="COLUMN", help="of the table to sort by (validation)")
    parser.add_argument("--metrics", type=_words, metavar="A,B", help="columns of evaluations, or all (the main ones)")
    file: dict[str, Any] = {"nargs": "?", "type": Path, "const": programs.STDOUT[0], "metavar": "FILE"}
    parser.add_argument("--csv", **file, help="write CSV with full precision; without FILE, instead of the table")
    parser.add_argument("--markdown", **file, help="write Markdown; without FILE, instead of the table")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="draw pictures into this folder")
    return parser


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


if __name__ == "__main__":
    main()
