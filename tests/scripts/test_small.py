"""docs/small.md: how its figures are made, and that README has the last of them."""

import re
import shutil
from pathlib import Path

import pytest
import small
from PIL import Image

from vae.use.c99 import cortex

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "small.md").read_text(encoding="utf-8")

NEEDED = [*cortex.missing_tools(), *([] if shutil.which("cc") else ["cc"])]


@pytest.mark.slow
@pytest.mark.skipif(bool(NEEDED), reason=f"needs {', '.join(NEEDED)}")
def test_runs_are_measured_and_drawn(run, tmp_path, capsys):
    folder = run("backbone.hidden=[9,6]")
    small.main([f"whole={folder}", f"same={folder}", "--out", str(tmp_path / "out")])
    head, rule, *body, empty, path = capsys.readouterr().out.splitlines()
    assert [row.split("|")[1].strip() for row in body] == ["whole", "whole, 8 bits", "same", "same, 8 bits"]
    assert head.count("|") == rule.count("|") == body[0].count("|") and not empty
    assert body[0].split("|")[2:] == body[2].split("|")[2:] != body[1].split("|")[2:]
    assert path == str(tmp_path / "out" / "manifold.png")
    with Image.open(path) as picture:
        assert picture.width > 800 and picture.width > picture.height


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (["outputs/run"], "^error: outputs/run: must be a name and the folder of a run"),
        (["a=b", "a=c"], "^error: a=b, a=c: must be at least two runs of different names$"),
    ],
)
def test_runs_need_names(runs, message):
    with pytest.raises(SystemExit, match=message):
        small.main(runs)


def rows():
    """The page's table of figures, the last columns being numbers."""
    return [line.split("|")[1:-1] for line in PAGE.splitlines() if re.match(r"\| .* \| \d+-\d+ \|", line)]


def test_what_is_promised_is_reached():
    by_name = {row[0].strip(): [cell.strip().replace(",", "") for cell in row[1:]] for row in rows()}
    whole, pruned = float(by_name["whole"][-1]), by_name["pruned, 8 bits"]
    assert int(pruned[2]) <= 100_000 and float(pruned[-1]) <= whole + 3
    drawing = by_name["smaller, 8 bits"]
    assert int(drawing[3]) <= 40_000 and float(drawing[-1]) <= whole + 4


def test_readme_has_the_last_row():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    *_, total = (cell.strip() for cell in rows()[-1])
    assert f"{float(total):.1f} nats" in readme
