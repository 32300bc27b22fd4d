"""Draw the pictures of a finished run again, from its reported weights."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import installed  # noqa: F401

from vae.entry import programs

LEAST_DPI, MOST_DPI = 10, 1200

EXAMPLES = """
examples:
  python scripts/draw.py outputs/runs/2030-01-01/12-00-00-000000
  python scripts/draw.py outputs/runs/2030-01-01/12-00-00-000000 manifold clusters --grid quantile
  python scripts/draw.py best.ckpt manifold --format pdf --out paper/figures
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw what the command line asks for, and print one path a line."""
    programs.run(draw, _parser().parse_args(arguments))


def draw(
    run: Path,
    pictures: Sequence[str],
    out: Path | None,
    grid: str | None,
    walk: str | None,
    data_root: str | None,
    dpi: float | None,
    format: str,
    trust: bool,
) -> None:
    """Draw pictures of a run folder or checkpoint into `out`."""
    from vae.common.files import relative, replacing
    from vae.entry import interactive
    from vae.study.pictures import select
    from vae.training.films import write_gif

    tags = select(pictures or None, "picture")
    out = out or programs.inside(run) / "figures"
    scene = interactive.scene(run, grid, walk, data_root, trust)

    for tag in tags:
        if tag not in scene.tags and not pictures:
            continue
        figure = scene.draw(tag)
        path = out / f"{tag}.{format}"
        if format == "png":
            programs.save_picture(path, figure, dpi)
        else:
            with replacing(path) as temporary:
                figure.savefig(temporary, dpi=dpi or "figure")
        print(relative(path))
        if tag == "latent/clusters" and scene.latent_dim == 3:
            write_gif(path.with_suffix(".gif"), list(scene.turning()))
            print(relative(path.with_suffix(".gif")))


def _dpi(text: str) -> float:
    """A type of arguments: what can be seen, and held in memory."""
    try:
        if LEAST_DPI <= (dpi := float(text)) <= MOST_DPI:
            return dpi
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text}: must be a number from {LEAST_DPI} to {MOST_DPI}")


def _parser() -> argparse.ArgumentParser:
    parser = programs.described("draw.py", __doc__, EXAMPLES)
    parser.add_argument("run", type=Path, help="the folder of a run (its reported weights) or a checkpoint file")
    parser.add_argument("pictures", nargs="*", metavar="picture", help="such as manifold or latent/manifold (all)")
    parser.add_argument("--out", type=Path, help="folder to write to (the run's figures/)")
    parser.add_argument("--grid", choices=("whitened", "square", "quantile"), help="of the manifold (the run's own)")
    parser.add_argument("--walk", choices=("axis", "conditional"), help="of the traversal (the run's own)")
    parser.add_argument("--data-root", help="where the data are, if not where they were")
    parser.add_argument("--dpi", type=_dpi, help="pixels per inch (1,200 pixels across, or more)")
    parser.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help="of the files (png)")
    parser.add_argument("--trust", action="store_true", help="build classes that are not of this program")
    return parser


if __name__ == "__main__":
    main()
