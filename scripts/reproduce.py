"""Run what was published, as far as there is time, and set the figures beside each other."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import installed  # noqa: F401

from vae.common.files import relative, replacing
from vae.common.tables import Table
from vae.entry.programs import described, ending_in_one_line, entries, run_train_py
from vae.runs.results import read_run

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "conf" / "published.yaml"
RUNS = ROOT / "outputs" / "reproduce"
COLUMNS = ["name", "schedule", "published", "at most", "ours", "minutes", "now"]

EXAMPLES = """
examples:
  python scripts/reproduce.py --list                         # what there is; runs nothing
  python scripts/reproduce.py tutorial_2d tutorial_correlated
  python scripts/reproduce.py iwae_paper                     # the schedule that fits into 30 minutes
  python scripts/reproduce.py iwae_paper --budget 1000       # as published

Typed again, a command goes on where it stopped. Figures are nats per image on the test set.
"""


class Schedule(NamedTuple):
    """One way to obtain one published figure."""

    name: str
    schedule: str
    entry: Mapping[str, Any]

    @property
    def own(self) -> Mapping[str, Any]:
        return self.entry["schedules"][self.schedule]

    @property
    def folder(self) -> Path:
        return RUNS / f"{self.name}_{self.schedule}"

    @property
    def at_most(self) -> float:
        return float(self.entry["published"] + self.own["tolerance"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Reproduce what the command line asks for; exits with 1 where a figure is not reached."""
    options = _parser().parse_args(arguments)
    with ending_in_one_line():
        schedules = named(options.names)
        chosen = [] if options.list else within(schedules, options.budget)
        rows = [row(each, *run(each)) if each in chosen else row(each) for each in schedules]
        table = Table(["name", "schedule"], COLUMNS, rows, notes(schedules))
        print(table.text())
        if chosen:
            with replacing(path := RUNS / "results.md") as temporary:
                temporary.write_text(table.markdown(), encoding="utf-8")
            print(relative(path))
        if any(each["now"] in ("missed", "failed") for each in rows):
            sys.exit(1)


def named(names: Sequence[str]) -> list[Schedule]:
    """The schedules of these names, or all that conf/published.yaml holds."""
    found = entries(PUBLISHED, names, "nothing of this name was published")
    return [Schedule(name, way, entry) for name, entry in found.items() for way in entry["schedules"]]


def within(schedules: Sequence[Schedule], budget: float) -> list[Schedule]:
    """For each name in turn, the longest schedule that still fits into so many minutes."""
    chosen = []
    for name in dict.fromkeys(each.name for each in schedules):
        fitting = [each for each in schedules if each.name == name and each.own["minutes"] <= budget]
        if fitting:
            chosen.append(max(fitting, key=lambda each: each.own["minutes"]))
            budget -= chosen[-1].own["minutes"]
    return chosen


def run(each: Schedule) -> tuple[float | None, float]:
    """Train, or go on with, a run; the figure that came out, if one did, and how many minutes that took."""
    command = [*each.entry["overrides"], *each.own["overrides"], f"hydra.run.dir={each.folder}"]
    print(f"── {each.name}, {each.schedule}: python train.py {' '.join(command)}", flush=True)
    start = time.perf_counter()
    run_train_py(command)
    found = read_run(each.folder)
    return found.metrics.get(each.entry["metric"]) if found else None, (time.perf_counter() - start) / 60


def row(each: Schedule, ours: float | None = None, minutes: float | None = None) -> dict[str, Any]:
    """A figure beside the published one; nothing is shown that was not obtained."""
    if minutes is None:
        ours, minutes, now = each.own["ours"], float(each.own["minutes"]), ""
    else:  # NaN is not reached either
        now = "failed" if ours is None else "reached" if ours <= each.at_most else "missed"
    return {
        "name": each.name,
        "schedule": each.schedule,
        "published": float(each.entry["published"]),
        "at most": each.at_most,
        "ours": "never run" if ours is None and not now else ours,
        "minutes": f"{minutes:.0f}",
        "now": now or "not run",
    }


def notes(schedules: Sequence[Schedule]) -> list[str]:
    """Where each figure is from and what it is of."""
    return list(dict.fromkeys(f"{each.name}: {each.entry['source']}; {each.entry['protocol']}" for each in schedules))


def _parser() -> argparse.ArgumentParser:
    parser = described("reproduce.py", __doc__, EXAMPLES)
    parser.add_argument("names", nargs="*", metavar="name", help="of conf/published.yaml (all)")
    parser.add_argument("--budget", type=float, default=30, help="minutes in all on 2 CPU cores (30)")
    parser.add_argument("--list", action="store_true", help="show the published figures and ours, and run nothing")
    return parser


if __name__ == "__main__":
    main()
