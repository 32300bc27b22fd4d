"""Execute the notebooks in docs/notebooks from top to bottom and store what they show."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import installed  # noqa: F401

from vae.common.files import replacing
from vae.entry import programs

if TYPE_CHECKING:
    from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).parent.parent / "docs" / "notebooks"

EXAMPLES = """
examples:
  python scripts/notebooks.py
  python scripts/notebooks.py docs/notebooks/latent_2d.ipynb
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Execute what the command line asks for, and print one path a line."""
    parser = programs.described("notebooks.py", __doc__, EXAMPLES)
    parser.add_argument("notebooks", type=Path, nargs="*", metavar="notebook", help="a file (all in docs/notebooks)")
    programs.run(store, parser.parse_args(arguments))


def store(notebooks: Sequence[Path]) -> None:
    """Write each notebook as it is after running in an empty folder, where nothing stays."""
    import nbformat

    for path in notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, Path(folder))
        with replacing(path) as temporary:
            nbformat.write(notebook, temporary)
        print(path)


def executed(path: Path, folder: Path, **parameters: Any) -> NotebookNode:
    """The notebook after running in `folder`, with other values than those in its cell of parameters."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)
    if parameters:
        (at,) = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
        given = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(given))
    client = NotebookClient(
        notebook,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],  # else the kernel warns of its own sockets
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise RuntimeError(f"{path}: a cell fails with {error.ename}: {error.evalue}") from error
    notebook.metadata.language_info = {"name": "python"}  # not of which version it was
    return notebook


if __name__ == "__main__":
    main()
