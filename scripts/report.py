"""Write the cards of runs and sweeps: report.html, one file for a double click, with all that there is to see.

A run writes its own when it ends, and an evaluation writes it again. This program makes those of sweeps, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import installed  # noqa: F401

from vae.common.files import relative
from vae.entry import programs
from vae.runs import card
from vae.runs.results import find_runs

EXAMPLES = """
examples:
  python scripts/report.py outputs/runs/2030-01-01/12-00-00-000000
  python scripts/report.py outputs/sweeps/2030-01-01/12-00-00-000000    # of the sweep, and of each run in it
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the cards that the command line asks for, and print one path a line."""
    programs.run(report, _parser().parse_args(arguments))


def report(folders: Sequence[Path]) -> None:
    """Write the card of each run, and of each folder of runs."""
    for folder in folders:
        runs = find_runs([folder])
        for run in runs:
            print(relative(card.write_run(run.folder)))
        if [run.folder for run in runs] != [folder]:
            print(relative(card.write_sweep(folder, runs)))


def _parser() -> argparse.ArgumentParser:
    parser = programs.described("report.py", __doc__, EXAMPLES)
    parser.add_argument("folders", nargs="+", type=Path, metavar="folder", help="of a run, of a sweep, or above them")
    return parser


if __name__ == "__main__":
    main()
