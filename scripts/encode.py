"""Encode images: mean and standard deviation of q(z|x) of each, or its codes, as a table."""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Sequence
from pathlib import Path

import installed  # noqa: F401

from vae.common.files import relative
from vae.entry import programs

EXAMPLES = """
examples:
  python scripts/encode.py outputs/runs/2030-01-01/12-00-00-000000 photos --out codes.csv
  python scripts/encode.py best.ckpt digits.npz --class 3 --out - | head

Columns: file, mean_0, mean_1, …, std_0, std_1, …; of a model of codes: file, code_0, code_1, … row by row
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Encode what the command line asks for."""
    programs.run(encode, _parser().parse_args(arguments))


def encode(run: Path, images: Path, out: Path, label: str | None, trust: bool) -> None:
    """Write the codes of all images, one line each."""
    from vae.model.codes import Chosen
    from vae.use.trained import load

    model = load(run, trust)
    names, count = (["mean", "std"], model.vae.numbers) if model.coding is None else (["code"], model.coding.length)
    header = [f"{name}_{i}" for name in names for i in range(count)]
    with programs.table_file(out) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", *header])
        for chunk in programs.chunks(model, images, label, "encoding"):
            q = model.encode(chunk.images, chunk.labels)
            columns = [q.index.flatten(1)] if isinstance(q, Chosen) else [q.mean, q.stddev]
            codes = zip(chunk.names, *(each.cpu().numpy() for each in columns), strict=True)
            writer.writerows([name, *itertools.chain.from_iterable(values)] for name, *values in codes)
    if out not in programs.STDOUT:
        print(relative(out))


def _parser() -> argparse.ArgumentParser:
    parser = programs.parser("encode.py", __doc__, EXAMPLES)
    parser.add_argument("--out", type=Path, required=True, help="the table, a CSV file; - is standard output")
    return parser


if __name__ == "__main__":
    main()
