"""The reference: a page for each room of the program, of all its modules, out of their docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from website.places import ROOT

FENCE = "```"


def reference() -> Iterator[tuple[str, str]]:
    """The names and texts of all pages, the index first."""
    rooms = [path.parent for path in sorted((ROOT / "vae").rglob("__init__.py"))]
    tree = f"{FENCE}{{toctree}}\n:hidden:\n\n" + "\n".join(map(dotted, rooms)) + f"\n{FENCE}\n"
    rows = "".join(f"| [{dotted(room)}]({dotted(room)}.md) | {_sentence(room)} |\n" for room in rooms)
    yield "index", f"# Reference\n\n| room | what it is |\n|---|---|\n{rows}\n{tree}"
    for room in rooms:
        modules = [path for path in sorted(room.glob("*.py")) if not path.stem.startswith("__")]
        text = f"# {dotted(room)}\n\n{_sentence(room)}\n"
        if room == ROOT / "vae":
            text += f"\n{FENCE}{{eval-rst}}\n.. automodule:: vae\n   :no-index:\n{FENCE}\n"
        yield dotted(room), text + "".join(f"\n{_of_module(dotted(path))}" for path in modules)


def dotted(path: Path) -> str:
    """The name by which Python imports a file or folder."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _of_module(name: str) -> str:
    return f"## {name}\n\n{FENCE}{{eval-rst}}\n.. automodule:: {name}\n{FENCE}\n"


def _sentence(room: Path) -> str:
    return ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
