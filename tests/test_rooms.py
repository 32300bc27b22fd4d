"""The house: what may import what, see docs/architecture.md."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

VAE = Path(__file__).parents[1] / "vae"
ROOMS = (  # imports run downwards
    *("entry", "explorer", "training", "use", "study", "evaluation", "model", "data", "figures"),
    *("runs", "settings", "common"),
)


def imported(path: Path) -> set[str]:
    """The modules of this package that a file imports, at its top or later."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
    return {name for name in found if name.startswith("vae.")}


def test_every_folder_is_a_room_that_says_what_it_is_for():
    folders = {path.parent.name: path for path in VAE.glob("*/__init__.py")}
    assert folders.keys() == set(ROOMS)
    for path in VAE.rglob("*/__init__.py"):
        (only,) = ast.parse(path.read_text(encoding="utf-8")).body  # a docstring
        assert isinstance(only, ast.Expr)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_downwards(room):
    above = ROOMS[: ROOMS.index(room)]
    upwards = {
        f"{path.relative_to(VAE)} imports {name}"
        for path in (VAE / room).rglob("*.py")
        for name in imported(path)
        if name.split(".")[1] in above
    }
    assert not upwards


@pytest.mark.parametrize("room", ["figures", "evaluation"])
def test_what_computes_and_draws_touches_no_files(room):
    for path in (VAE / room).rglob("*.py"):
        assert not {name for name in imported(path) if name.startswith(("vae.common.files", "vae.training"))}, path


@pytest.mark.parametrize("room", ["runs", "settings"])
def test_rooms_without_torch(room):
    modules = ", ".join(f"vae.{room}.{path.stem}" for path in (VAE / room).glob("*.py") if path.stem != "__init__")
    code = f"import sys, {modules}; assert not {{'torch', 'matplotlib', 'pytorch_lightning'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
