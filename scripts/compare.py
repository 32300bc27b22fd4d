"""Compare runs: a table by the keys that differ, means over seeds with 95 % intervals, and pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import installed  # noqa: F401
from comparisons.pictures import pictures
from comparisons.tables import heading, left_out, matching, own, separate, together

from vae.common.files import relative
from vae.common.terminal import fitted
from vae.entry import programs
from vae.runs import ranking, results
from vae.runs.ranking import Comparable

DPI = 200  # for print

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
    first = separate(sets)
    contents = {
        csv: together(sets, tables).csv,
        markdown: lambda: "\n".join(
            [*first, *(f"{head}\n\n{table.markdown()}" for head, table in zip(heads, tables, strict=True))]
        ),
    }
    piped = any(path in programs.STDOUT for path in contents)
    if not piped:
        texts = (f"{head}\n{table.text()}" for head, table in zip(heads, tables, strict=True))
        print("\n\n".join([*(fitted(line, sys.stdout) for line in first), *texts]))
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


def draw(each: Comparable, keys: Sequence[str], folder: Path) -> Iterator[str]:
    """Write the pictures of comparable runs; yields the path of each, or why there is none."""
    for name, picture in pictures(each, keys):
        path = folder / f"{name}.png"
        if isinstance(picture, str):
            yield f"no {path.name}: {picture}"
            continue
        programs.save_picture(path, picture, DPI)
        yield str(relative(path))


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
