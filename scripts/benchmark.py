"""Measure how fast the program is beside other ways to do the same, on this machine."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import installed  # noqa: F401
from benchmarks import common, parts, processes, sweeps, training

from vae.common.files import relative, write_json
from vae.common.tables import Table
from vae.entry.programs import described

SECTIONS: dict[str, Callable[[common.Options], dict[str, Table]]] = {
    "train": training.epochs,
    "turns": processes.turns,
    "data": parts.data,
    "figures": parts.figures,
    "startup": processes.startup,
    "sweep": sweeps.sweep,
    "launchers": sweeps.launchers,
    "memory": processes.memory,
    "company": processes.company,
    "growth": training.growth,
    "deep": training.deep,
}

EXAMPLES = """
examples:
  python scripts/benchmark.py                                all sections: an hour on two cores
  python scripts/benchmark.py train --images 5000 --epochs 5
  OMP_NUM_THREADS=1 python scripts/benchmark.py startup memory
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the sections that the command line names."""
    options = _parser().parse_args(arguments)
    names = list(SECTIONS) if "all" in options.sections else options.sections
    for name in names:
        if name not in SECTIONS:
            sys.exit(f"error: section={name}: must be one of {', '.join(SECTIONS)}, all")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    machine = common.machine()
    print(" · ".join(f"{name} {value}" for name, value in machine.items()))
    with tempfile.TemporaryDirectory(prefix="benchmark") as scratch:
        folder = Path(scratch)
        data = common.images(folder)
        print("images: MNIST" if data == ["data=mnist"] else "images: random ones, because MNIST is not on disk")
        chosen = common.Options(data, folder, options.repeats, options.epochs, options.images)
        for name in names:
            tables = SECTIONS[name](chosen)
            for title, table in tables.items():
                print(f"\n{name}: {title}\n{table.text()}", flush=True)
            keep(options.out, name, {"machine": machine, "data": data, **_plain(tables)})
    print(f"\nwritten to {relative(options.out)}")


def keep(path: Path, section: str, found: dict[str, object]) -> None:
    """Write a section, each with its machine, beside those that the file has already."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, before | {section: found})


def _plain(tables: dict[str, Table]) -> dict[str, object]:
    return {title: {"rows": list(table.rows), "notes": list(table.notes)} for title, table in tables.items()}


def _parser() -> argparse.ArgumentParser:
    parser = described("benchmark.py", __doc__, EXAMPLES)
    names = ", ".join(SECTIONS)
    parser.add_argument("sections", nargs="*", metavar="section", default=["all"], help=f"of {names}, all (all)")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmark.json"), help="(outputs/benchmark.json)")
    parser.add_argument("--repeats", type=_positive, default=5, help="rounds of which the median is taken (5)")
    parser.add_argument("--epochs", type=_positive, default=30, help="of the whole default run (30)")
    parser.add_argument("--images", type=_positive, default=10_000, help="where not all are needed (10,000)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a positive integer")
    return number


if __name__ == "__main__":
    main()
