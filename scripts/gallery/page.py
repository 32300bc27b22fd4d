"""The page of all examples: what one sees, the command, the figures and the pictures of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gallery.common import FILM, Example
from vae.common.files import read_json
from vae.common.types import WEIGHTS

HEAD = """# Examples

Made by `python scripts/examples.py`: all of it comes from the commands above the pictures. A run has 30 epochs and
seed 0 unless its command says otherwise, and was trained on a CPU unless another device is named with its figures.
These are nats per image on the test set: total = recon + kl.
"""


def page(examples: Sequence[Example]) -> str:
    """The page as Markdown."""
    return "\n".join([HEAD, *map(section, examples)])


def section(example: Example) -> str:
    """One example, as far as it is there."""
    parts = [f"## {example.name}", example.shows, f"```bash\n{example.command}\n```"]
    parts += [*figures(example), *pictures(example)] if example.shown.exists() else ["Not made yet."]
    return "".join(f"{part}\n\n" for part in parts)[:-1]


def figures(example: Example) -> list[str]:
    """What came out, and where all of it is."""
    if example.of is not None:
        return []
    results = "results.md" if example.is_sweep else "metrics.json"
    links = f"[config.yaml]({example.name}/config.yaml), [{results}]({example.name}/{results})"
    for file in sorted(example.shown.rglob(WEIGHTS)):
        path = file.relative_to(example.shown.parent).as_posix()
        links += f', [{WEIGHTS}]({path}) for `vae.load("outputs/examples/{Path(path).parent.as_posix()}")`'
    if example.is_sweep:
        return [(example.shown / results).read_text(encoding="utf-8").strip(), links]
    metrics = read_json(example.shown / results) or {}
    figures = f"{metrics['test/recon']:.1f}"
    if "test/total" in metrics:
        figures = f"{metrics['test/total']:.1f} = {figures} + {metrics['test/kl']:.1f}"
    else:
        figures = f"recon {figures} at the posterior's mean"
    device = special_device([metrics])
    return ["; ".join([f"{figures} on {metrics['data']}", *([f"trained on {device}"] if device else []), links])]


def special_device(measured: Iterable[Mapping[str, Any]]) -> str:
    """On what runs were trained, by their metrics; nothing for CPUs. The same seed comes to other figures elsewhere."""
    devices = dict.fromkeys(str(metrics["device"]) for metrics in measured)
    return "" if all("CPU" in device for device in devices) else " and ".join(devices)


def pictures(example: Example) -> list[str]:
    """Tables of the pictures with their names above them: of a run two in a row, of all that is wider one."""
    films = [file for file in example.files if Path(file).suffix == FILM]
    others = [file for file in example.files if file not in films]
    across = 1 if example.is_sweep or example.of is not None else 2
    rows = [[film] for film in films] + [others[i : i + across] for i in range(0, len(others), across)]
    return [_row(example, row) for row in rows]


def _row(example: Example, files: Sequence[str]) -> str:
    names = [Path(file).stem for file in files]
    links = [f"![{name} of {example.name}]({example.name}/{file})" for name, file in zip(names, files, strict=True)]
    return f"| {' | '.join(names)} |\n|{'---|' * len(files)}\n| {' | '.join(links)} |"
