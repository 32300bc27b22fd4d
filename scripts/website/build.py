"""All steps from the project's files to the site."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from website import live, sources
from website.checks import check
from website.places import ROOT

CONF = Path(__file__).parent


def build(out: Path) -> None:
    """Make the site in a folder that does not exist yet. Whatever Sphinx warns of ends it."""
    from sphinx.cmd.build import main as sphinx  # takes seconds

    with tempfile.TemporaryDirectory(prefix=".site", dir=ROOT) as staged, tempfile.TemporaryDirectory() as doctrees:
        sources.stage(Path(staged))
        options = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(CONF), "-d", doctrees]
        if sphinx([*options, staged, str(out)]) != 0:
            raise RuntimeError("the site was not made, because of the warnings above")
    shutil.rmtree(out / ".doctrees", ignore_errors=True)
    live.write(out / "_static" / "live")
    check(out)
