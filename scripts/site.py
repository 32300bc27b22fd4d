"""Build the site: the tutorial as a page with parts that move, and all documentation behind it, to be read offline."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import webbrowser
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import installed  # noqa: F401

from vae.common.files import relative
from vae.entry import programs

OUT = Path(__file__).parents[1] / "outputs" / "site"

EXAMPLES = """
examples:
  python scripts/site.py --open                    # outputs/site/index.html, also by a double click
  python scripts/site.py --out public              # for a web server
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Build what the command line asks for, and print the path of its first page."""
    programs.run(site, _parser().parse_args(arguments))


def site(out: Path, open: bool) -> None:
    """Write the site into a folder, in the place of an earlier one."""
    if missing := [name for name in ("sphinx", "furo", "myst_nb", "latex2mathml") if find_spec(name) is None]:
        raise ValueError(f'needs {", ".join(missing)}: pip install -c constraints.txt -e ".[docs]"')
    if out.exists() and any(out.iterdir()) and not (out / ".buildinfo").is_file():
        raise ValueError(f"{out}: must be a new folder, an empty one, or an earlier site")
    from website.build import build

    print("about a minute")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        made = Path(folder) / "site"
        build(made)
        shutil.rmtree(out, ignore_errors=True)
        made.rename(out)
    print(relative(out / "index.html"))
    if open:
        webbrowser.open((out / "index.html").resolve().as_uri())


def _parser() -> argparse.ArgumentParser:
    parser = programs.described("site.py", __doc__, EXAMPLES)
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write (outputs/site)")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    return parser


if __name__ == "__main__":
    main()
