"""Reconstruct images: E[x|z] at the mean of q(z|x) of each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import installed  # noqa: F401

from vae.common.files import new_folder, relative
from vae.entry import programs

if TYPE_CHECKING:
    from vae.use.trained import Trained

EXAMPLES = """
examples:
  python scripts/reconstruct.py outputs/runs/2030-01-01/12-00-00-000000 photos --out reconstructed
  python scripts/reconstruct.py best.ckpt digits.npz --class 3 --out sheet.png

A folder gets one PNG for each image, with its name; a .png shows the first 12 images above their reconstructions.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Reconstruct what the command line asks for."""
    programs.run(reconstruct, _parser().parse_args(arguments))


def reconstruct(run: Path, images: Path, out: Path, label: str | None, trust: bool) -> None:
    """Write the reconstructions into a new folder, or a picture of the first ones."""
    import numpy as np
    from PIL import Image

    from vae.figures.style import pixels
    from vae.use.trained import load

    model = load(run, trust)
    if out.suffix == ".png":
        _sheet(model, images, out, label)
    else:
        with new_folder(out) as folder:
            for chunk in programs.chunks(model, images, label, "reconstructing"):
                decoded = np.rint(255 * pixels(model.reconstruct(chunk.images, chunk.labels))).astype(np.uint8)
                for name, image in zip(chunk.names, decoded, strict=True):
                    # Not with_suffix: a.jpg and a.png are two images.
                    path = folder / (name if name.lower().endswith(".png") else f"{name}.png")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(image).save(path)
    print(relative(out))


def _sheet(model: Trained, images: Path, out: Path, label: str | None) -> None:
    from vae.data.inputs import to_unit
    from vae.figures.images import reconstructions
    from vae.settings.config import unusual

    chunk = next(programs.chunks(model, images, label, "reconstructing"))
    first = chunk.images[: programs.SHOWN]
    labels = None if chunk.labels is None else chunk.labels[: programs.SHOWN]
    note = " · ".join([model.data, *unusual(model.config).values()])
    programs.save_picture(out, reconstructions(to_unit(first), model.reconstruct(first, labels), note=note))


def _parser() -> argparse.ArgumentParser:
    parser = programs.parser("reconstruct.py", __doc__, EXAMPLES)
    parser.add_argument("--out", type=Path, required=True, help="a new folder, or a .png")
    return parser


if __name__ == "__main__":
    main()
