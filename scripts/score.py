"""Score how unlike a model's training data images are: −ELBO or −log p(x) in nats, the worst first."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

import installed  # noqa: F401

from vae.common.files import new_folder, relative
from vae.common.tables import Table
from vae.entry import programs

PRINTED = 20  # rows of the table
LINE = 7  # letters of a file's name that are as wide as an image

EXAMPLES = """
examples:
  python scripts/score.py outputs/runs/2030-01-01/12-00-00-000000 photos
  python scripts/score.py best.ckpt digits.npz --kind nll --samples 500 --out scores

Prints the 20 worst images. With --out a new folder gets scores.csv, of all images, and worst.png, a picture of 12;
with --out - standard output gets scores.csv instead of that table.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Score what the command line asks for."""
    programs.run(score, _parser().parse_args(arguments))


def score(
    run: Path, images: Path, out: Path | None, kind: str, samples: int, seed: int, label: str | None, trust: bool
) -> None:
    """Print the images with the highest scores, and write all scores."""
    import numpy as np

    from vae.common.seeding import derive
    from vae.data.inputs import to_unit
    from vae.figures.images import reconstructions
    from vae.settings.config import unusual
    from vae.use import trained

    model = trained.load(run, trust)
    measured = {"total": "−ELBO", "nll": "−log p(x)", "recon": "−log p(x|z)"}[kind]
    names: list[str] = []
    parts: list[np.ndarray] = []  # of the scores; of images only the worst are kept
    highest = np.empty(0)
    worst, decoded = np.empty((2, 0, *model.shape), np.float32)
    with nullcontext() if out is None or out in programs.STDOUT else new_folder(out) as folder:
        for chunk in programs.chunks(model, images, label, "scoring"):
            found = trained.score(model, chunk.images, chunk.labels, kind, samples, derive(seed, len(names))).numpy()
            candidates = np.append(highest, found)
            chosen = np.argsort(-candidates, kind="stable")[: programs.SHOWN]
            highest = candidates[chosen]
            worst = np.concatenate([worst, to_unit(chunk.images)])[chosen]
            decoded = np.concatenate([decoded, model.reconstruct(chunk.images, chunk.labels)])[chosen]
            parts.append(found)
            names += chunk.names
        scores = np.concatenate(parts)
        order = np.argsort(-scores, kind="stable")
        rows = [(names[i], scores[i]) for i in order]
        if folder is not None:
            with programs.table_file(folder / "scores.csv") as file:
                _write_csv(file, rows)
            told = f"the highest {measured} of {len(names):,} images, in nats"
            note = " · ".join([model.data, *unusual(model.config).values(), told])
            captions = [f"{_short(names[i])}\n{scores[i]:.0f}" for i in order[: len(worst)]]
            figure = reconstructions(worst, decoded, captions, note)
            programs.save_picture(folder / "worst.png", figure)
    if out in programs.STDOUT:
        with programs.table_file(out) as file:
            _write_csv(file, rows)
        return
    shown = [{"rank": rank, "nats": nats, "image": name} for rank, (name, nats) in enumerate(rows[:PRINTED], 1)]
    table = Table(["image"], ["rank", "nats", "image"], shown)
    s = "s" if len(names) > 1 else ""
    print(f"{measured} of {len(names):,} image{s}; the higher, the more unlike {model.data}\n{table.text()}")
    if out is not None:
        print(relative(out))


def _short(name: str) -> str:
    """A file's name in lines as wide as its image; of a long one the end, which tells it from its neighbours."""
    name = Path(name).name
    if len(name) > 3 * LINE:
        name = f"…{name[1 - 3 * LINE :]}"
    return "\n".join(name[i : i + LINE] for i in range(0, len(name), LINE))


def _write_csv(file: TextIO, rows: Iterable[Sequence[Any]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["image", "nats"])
    writer.writerows(rows)


def _parser() -> argparse.ArgumentParser:
    parser = programs.parser("score.py", __doc__, EXAMPLES)
    parser.add_argument("--out", type=Path, help="a new folder for scores.csv and worst.png; - prints scores.csv")
    kinds = ("total", "nll", "recon")
    what = "−ELBO, −log p(x), or −log p(x|z) at the mean, which alone an autoencoder has (total)"
    parser.add_argument("--kind", choices=kinds, default="total", help=what)
    parser.add_argument("--samples", type=programs.positive, default=16, help="of z for each image (16)")
    parser.add_argument("--seed", type=int, default=0, help="of these (0)")
    return parser


if __name__ == "__main__":
    main()
