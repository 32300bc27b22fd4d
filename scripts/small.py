"""Measure runs that compress.py made as docs/small.md shows them, and draw the first beside the second in 8 bits."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import export
import installed  # noqa: F401
from gallery import common

from vae.common.files import read_json, relative
from vae.common.tables import Table
from vae.entry import programs

OUT = Path(__file__).parent.parent / "docs" / "small"

EXAMPLES = """
examples:
  python scripts/small.py whole=outputs/examples/tutorial_2d pruned=outputs/runs/2030-01-01/12-00-00-000000
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    programs.run(measure, _parser().parse_args(arguments))


def measure(runs: Sequence[str], out: Path, data_root: str | None) -> None:
    """Print the table, and draw the picture into `out`."""
    from vae.use.c99 import compiled, cortex

    named = dict(_named(each) for each in runs)
    if len(named) < 2:
        raise ValueError(f"{', '.join(runs)}: must be at least two runs of different names")
    missing = [*cortex.missing_tools(), *([] if compiled.is_possible() else [compiled.COMPILER])]
    if missing:
        raise ValueError(f"not installed: {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as name:
        folders = {key: Path(name) / key for key in named}
        rows = [row for key, run in named.items() for row in _measured(key, run, folders[key], data_root)]
        programs.save_picture(
            drawn := Path(name) / "manifold.png", _picture([*named.values()], [*folders.values()], rows)
        )
        common.keep(drawn, path := out / drawn.name)
    print(Table([], list(rows[0]), rows).markdown())
    print(relative(path))


def _named(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not (name and folder):
        raise ValueError(f"{text}: must be a name and the folder of a run, such as pruned=outputs/runs/DATE/TIME")
    return name, Path(folder)


def _measured(name: str, run: Path, folder: Path, data_root: str | None) -> Iterator[dict[str, Any]]:
    """A row of a run in floats, and one in 8 bits."""
    for int8 in (False, True):
        with redirect_stdout(None):
            export.export(run, "c", int8, folder, data_root, trust=False)
        told = read_json(folder / export.METADATA)
        assert told is not None
        file = f"model{'_int8' * int8}.c"
        m4, m7 = told["cortex"][file]
        sizes = {"C file": told["files"][file]["bytes"], "flash": m4["flash"], "to draw": m4["flash to draw"]}
        counts = {"M4, instructions": m4["to decode"], "M7": m7["to decode"]}
        yield {
            "": f"{name}{', 8 bits' * int8}",
            "units": "-".join(map(str, told["config"]["backbone"]["hidden"])),
            **{key: f"{value:,}" for key, value in (sizes | {"RAM": m4["RAM"]} | counts).items()},
            "total": told["parity"]["c" + "_int8" * int8]["exported"]["total"],
        }


def _picture(runs: Sequence[Path], folders: Sequence[Path], rows: Sequence[dict[str, Any]]) -> Any:
    """The plane decoded by the first run in torch, and by the second one's C with 8 bits."""
    from vae.evaluation import grids
    from vae.evaluation.geometry import Geometry
    from vae.figures.manifold import manifold
    from vae.use.c99.compiled import runnables
    from vae.use.trained import load

    full, small = load(runs[0]), load(runs[1])
    (sheet,) = grids.manifold(Geometry.of(full.vae.prior()))
    z = sheet.z.float()
    decoder = runnables(folders[1] / "model_int8.c", small.shape, small.latent_dim)["decoder"]
    drawn = decoder(z=z.flatten(0, 1))["images"].unflatten(0, z.shape[:2])
    titles = [f"{row['flash']} bytes, {row['total']:.2f} nats" for row in (rows[0], rows[3])]
    return manifold([full.decode(z).numpy(), drawn.numpy()], [z.numpy()] * 2, titles=titles)


def _parser() -> argparse.ArgumentParser:
    parser = programs.described("small.py", __doc__, EXAMPLES)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="folders of runs with dense networks and 2 latents")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the picture (docs/small)")
    parser.add_argument("--data-root", help="where the data are, if not where they were")
    return parser


if __name__ == "__main__":
    main()
