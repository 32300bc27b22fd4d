"""Make the examples in outputs/examples again: train each by its command, keep what it shows, write the page."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import compare
import installed  # noqa: F401
import screenshots
from gallery import common
from gallery.common import Example, keep, named
from gallery.page import page, special_device
from gallery.photographs import PHOTOGRAPHS
from omegaconf import OmegaConf

from vae.common.files import relative, replacing
from vae.common.tables import Table
from vae.common.types import WEIGHTS
from vae.entry import programs
from vae.runs.results import Run, find_runs
from vae.settings.config import quoted

EXAMPLES = """
examples:
  python scripts/examples.py --list                # what there is; makes nothing
  python scripts/examples.py tutorial_2d beta
  python scripts/examples.py                       # all: about two hours on 2 CPU cores

Typed again, a command trains only what is not completed in outputs/gallery, and goes on where it stopped.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what the command line asks for; exits with 1 where something could not be trained."""
    options = _parser().parse_args(arguments)
    with programs.ending_in_one_line():
        chosen = named(options.names)
        if options.list:
            print(overview(chosen).text())
            return
        failed = [each.name for each in chosen if not make(each)]
        with replacing(common.SHOWN / "README.md") as temporary:
            temporary.write_text(page(named([])), encoding="utf-8")
        print(relative(common.SHOWN / "README.md"))
        if failed:
            raise RuntimeError(f"not completed: {', '.join(failed)}")


def overview(examples: Sequence[Example]) -> Table:
    """The examples' commands, and which are there."""
    rows = [{"name": each.name, "there": each.shown.exists(), "command": each.command} for each in examples]
    return Table(["name", "there"], ["name", "there", "command"], rows)


def make(example: Example) -> bool:
    """Train or photograph an example and show it; says whether that was possible."""
    print(f"── {example.name}: {example.command}", flush=True)
    if example.of is not None:
        return photograph(example, example.of)
    if not complete(example):
        return False
    runs = find_runs([example.trained])
    config = {"config.yaml": configuration(runs)}
    if example.is_sweep:
        comparison = example.trained / "comparison"
        compare.compare([example.trained], [], "validation", None, comparison / "results.md", comparison, None)
        results = _text(comparison / "results.md")
        if device := special_device(run.metrics for run in runs):
            results += f"\nTrained on {device}.\n"
        show(example, comparison, {"results.md": results, **config})
    else:
        show(example, example.trained / "figures", {"metrics.json": _text(example.trained / "metrics.json"), **config})
    if example.weights:
        from gallery.weights import keep_weights  # imports torch

        for run in runs:
            keep_weights(run.folder, example.kept(run.folder) / WEIGHTS)
    return True


def complete(example: Example) -> bool:
    """Train an example as far as it is not completed; says whether it is now."""
    where = "hydra.sweep.dir" if example.is_sweep else "hydra.run.dir"
    return programs.run_train_py([*example.arguments, f"{where}={quoted(str(example.trained))}"]) == 0


def photograph(example: Example, needed: Sequence[str]) -> bool:
    """Photograph an example where there is a browser, else leave the earlier photographs as they are."""
    browser = screenshots.browser()
    if browser is None:
        print(f"stays as it is, because none of the browsers {', '.join(screenshots.BROWSERS)} is installed")
        return True
    if not all(complete(each) for each in named([]) if each.name in needed):
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            PHOTOGRAPHS[example.name](example, browser, Path(folder))
        except RuntimeError as error:
            print(f"error: {error}", file=sys.stderr)
            return False
        show(example, Path(folder), {})
    return True


def show(example: Example, figures: Path, texts: Mapping[str, str]) -> None:
    """Write an example's pictures and texts where it is shown, and take away what is no longer of it."""
    for source, file in zip(example.drawn(figures), example.files, strict=True):
        keep(source, example.shown / file)
    for name, text in texts.items():
        with replacing(example.shown / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    for path in example.shown.iterdir():
        if path.is_file() and path.name not in (*example.files, *texts, *([WEIGHTS] if example.weights else [])):
            path.unlink()


def configuration(runs: Sequence[Run]) -> str:
    """The configuration of all runs as YAML, without the place of their data; lists where they differ."""
    configs = [
        run.config | {"data": {key: value for key, value in run.config["data"].items() if key != "root"}}
        for run in runs
    ]
    return OmegaConf.to_yaml(OmegaConf.create(common_values(configs)))


def common_values(values: Sequence[Any]) -> Any:
    """What some configurations have in common, with a list of the values in the place of each that differs."""
    first = values[0]
    if all(value == first for value in values):
        return first
    if all(isinstance(value, Mapping) and value.keys() == first.keys() for value in values):
        return {key: common_values([value[key] for value in values]) for key in first}
    return list(values)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = programs.described("examples.py", __doc__, EXAMPLES)
    parser.add_argument("names", nargs="*", metavar="name", help="of conf/examples.yaml (all)")
    parser.add_argument("--list", action="store_true", help="show the examples' commands, and make nothing")
    return parser


if __name__ == "__main__":
    main()
