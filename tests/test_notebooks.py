"""The notebooks run from top to bottom as Jupyter would run them, and are stored with what they show."""

import ast
import importlib
import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import vae

nbformat = pytest.importorskip("nbformat")  # which a bare GPU machine lacks
notebooks = importlib.import_module("notebooks")

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


@pytest.fixture
def set_up():
    """Does what the first cell of all notebooks does; returns what it has pip install."""
    (source,) = {of_code(nbformat.read(path, as_version=4))[0].source for path in NOTEBOOKS}
    asked = []
    shell = SimpleNamespace(run_line_magic=lambda name, line: asked.append((name, line)))

    def run():
        exec(source, {"get_ipython": lambda: shell})
        return asked

    return run


def test_nothing_is_installed_where_the_program_is(set_up, capsys):
    assert set_up() == [] and capsys.readouterr().out == f"vae {vae.__version__}\n"


@pytest.mark.parametrize("place", [".", "project", "../.."])
@pytest.mark.parametrize("missing", ["vae", "pytorch_lightning"])
def test_elsewhere_the_project_around_a_notebook_is_installed(set_up, tmp_path, monkeypatch, place, missing):
    folder = tmp_path / "a b" / "docs" / "notebooks"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    lacking(monkeypatch, missing)
    with pytest.raises(SystemExit, match=r"^vae is not installed, and its project is not in [^\n]*$"):
        set_up()
    project = (folder / place).resolve()
    (project / "vae").mkdir(parents=True)
    (project / "vae" / "__init__.py").touch()
    assert set_up() == [("pip", f'install --quiet "{project}"')]


def lacking(monkeypatch, missing):
    """Find nothing of this name but a folder, which Python takes for a package without a file."""
    find = importlib.util.find_spec
    empty = SimpleNamespace(origin=None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: empty if name == missing else find(name))


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
