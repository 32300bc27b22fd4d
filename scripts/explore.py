"""Explore the latent space of finished runs by hand: one HTML file, in which the networks run in the browser itself."""

from __future__ import annotations

import argparse
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import installed  # noqa: F401

from vae.entry import programs

EXAMPLES = """
examples:
  python scripts/explore.py outputs/runs/2030-01-01/12-00-00-000000 --open
  python scripts/explore.py ISOTROPIC_RUN CORRELATED_RUN --out explorer.html
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page that the command line asks for, and print its path."""
    programs.run(explore, _parser().parse_args(arguments))


def explore(runs: Sequence[Path], out: Path | None, open: bool, data_root: str | None, trust: bool) -> None:
    """Write one page of run folders or checkpoints, side by side; by default into the first one's folder."""
    from vae.common.files import relative, replacing
    from vae.explorer.page import page

    out = out or programs.inside(runs[0]) / "explorer.html"
    with replacing(out) as temporary:  # which refuses the place before the work
        temporary.write_text(page([_described(run, data_root, trust) for run in runs]), encoding="utf-8")
    print(relative(out))
    if open:
        webbrowser.open(out.resolve().as_uri())


def _described(run: Path, data_root: str | None, trust: bool) -> dict[str, Any]:
    """What the page knows of one run, which is called by its folder."""
    from vae.common.types import WEIGHTS
    from vae.entry import interactive
    from vae.explorer.page import describe
    from vae.model import checkpoints

    file = checkpoints.file_of(run).resolve()
    scene = interactive.scene(run, data_root=data_root, trust=trust)
    is_of_run = file.parent.name == "checkpoints" or file.name == WEIGHTS
    return describe(scene, checkpoints.folder_of(file).name if is_of_run else file.stem)


def _parser() -> argparse.ArgumentParser:
    parser = programs.described("explore.py", __doc__, EXAMPLES)
    parser.add_argument("runs", type=Path, nargs="+", metavar="run", help="folder of a run, or a checkpoint file")
    parser.add_argument("--out", type=Path, help="file to write (explorer.html in the first run's folder)")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    parser.add_argument("--data-root", help="where the data are, if not where they were")
    parser.add_argument("--trust", action="store_true", help="build classes that are not of this program")
    return parser


if __name__ == "__main__":
    main()
