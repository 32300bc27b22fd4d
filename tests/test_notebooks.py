"""The notebooks run from top to bottom as Jupyter would run them, and are stored with what they show."""

import ast
import re
from pathlib import Path

import nbformat
import notebooks
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def of_code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(cell):
    """What a cell shows as text."""
    for output in cell.outputs:
        yield output.text if output.output_type == "stream" else output.get("data", {}).get("text/plain", "")


def shows(cell):
    """Whether something is to be seen below a cell: its last line is a value, or it prints or trains."""
    is_value = isinstance(ast.parse(cell.source).body[-1], ast.Expr)
    return is_value or "print(" in cell.source or "vae.train(" in cell.source


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["latent_2d", "latent_3d", "latent_correlated"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_stored_notebook_is_whole(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 700_000
    cells = of_code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs) >= 5
    for cell in cells:
        compile(cell.source, path.name, "exec")
        assert bool(cell.outputs) == shows(cell), cell.source
        assert cell.metadata.keys() <= {"tags"}
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr"
        for text in (cell.source, *texts(cell)):
            assert not re.search(r"(?<![\w.)])/\w|\w:\\|warning", text, re.IGNORECASE), text
    assert notebook.metadata.language_info == {"name": "python"}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    before = path.read_bytes()
    ran = notebooks.executed(path, tmp_path, epochs=1, limit=600, data="strokes")
    assert path.read_bytes() == before
    stored = nbformat.read(path, as_version=4)
    again = [cell for cell in of_code(ran) if cell.source in {cell.source for cell in of_code(stored)}]
    for cell, was in zip(again, of_code(stored), strict=True):
        assert [output.output_type for output in cell.outputs] == [output.output_type for output in was.outputs]
        assert not [output.text for output in cell.outputs if output.get("name") == "stderr"]
    assert "strokes" in "".join(text for cell in again for text in texts(cell))
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
