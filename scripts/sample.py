"""Sample images from a trained model: E[x|z] of draws z from the prior."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import installed  # noqa: F401

from vae.common.files import new_folder, relative, write_csv
from vae.entry import programs

EXAMPLES = """
examples:
  python scripts/sample.py outputs/runs/2030-01-01/12-00-00-000000 --n 10000 --out samples.npz
  python scripts/sample.py best.ckpt --n 100 --class 3 --seed 1 --out threes

An .npz holds `images`, uint8 of shape (n, height, width) or (n, height, width, 3), and of a conditional model `labels`,
the positions among its array `classes`. A folder holds 00000.png and so on, and of a conditional model labels.csv.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample what the command line asks for."""
    programs.run(sample, _parser().parse_args(arguments))


def sample(run: Path, n: int, out: Path, label: str | None, seed: int, temperature: float, trust: bool) -> None:
    """Write n samples to an .npz or into a new folder."""
    import numpy as np
    from PIL import Image

    from vae.data.npz import write_npz
    from vae.data.stream import numbered
    from vae.figures.style import pixels
    from vae.use.trained import load

    if out.suffix in (".png", ".npy"):  # which would become a folder
        raise ValueError(f"--out {out}: must be an .npz, or a folder for PNGs")
    model = load(run, trust)
    programs.refuse_unknown_class(model, label)
    labels = None
    if model.conditional:
        labels = np.arange(n) % len(model.classes) if label is None else np.full(n, model.classes.index(label))

    def parts() -> Iterator[np.ndarray]:
        with programs.bar("sampling", n) as progress:
            for images in model.samples(n, seed, labels, temperature):
                yield np.rint(255 * pixels(images)).astype(np.uint8)
                progress.update(len(images))

    if out.suffix == ".npz":
        channels, height, width = model.shape
        others = {} if labels is None else {"labels": labels, "classes": np.array(model.classes)}
        write_npz(out, (n, height, width, channels) if channels > 1 else (n, height, width), parts(), others)
    else:
        with new_folder(out) as folder:
            done = 0
            for part in parts():
                for name, image in zip(numbered(range(done, done + len(part)), n), part, strict=True):
                    Image.fromarray(image).save(folder / f"{name}.png")
                done += len(part)
            if labels is not None:
                names = numbered(range(n), n)
                rows = [
                    {"file": f"{name}.png", "class": model.classes[i]} for name, i in zip(names, labels, strict=True)
                ]
                write_csv(folder / "labels.csv", rows)
    print(relative(out))


def _parser() -> argparse.ArgumentParser:
    parser = programs.parser("sample.py", __doc__, EXAMPLES, images=False)
    parser.add_argument("--n", type=programs.positive, default=64, help="how many images (64)")
    parser.add_argument("--out", type=Path, required=True, help="an .npz, or a new folder for PNGs")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="scale of the prior's spread (1); codes: of logits, 1/T"
    )
    return parser


if __name__ == "__main__":
    main()
