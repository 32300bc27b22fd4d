"""The card of a run or of a sweep: one HTML file with all that there is to see. Imports no torch and no matplotlib."""

from __future__ import annotations

import base64
import csv
import io
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vae.common.files import Bounded, read_json, replacing
from vae.common.tables import order, typed
from vae.runs import measured
from vae.runs.losses import ERROR, losses
from vae.runs.record import read_status
from vae.runs.results import EVALUATION, Run, results_table
from vae.settings.config import flatten, is_place
from vae.settings.ranges import PICTURES

CARD = "report.html"
WIDTH = 460  # pixels of a run's pictures on a sweep's card
IN_SWEEPS = ("latent/manifold", "latent/clusters")
KINDS = {".png": "png", ".gif": "gif"}

STYLE = """
:root { color-scheme: light dark; --page: #f3f4f7; --card: #fff; --edge: #dfe2e8; --ink: #1f2430; --quiet: #5f6777;
  --accent: #2456d6; }
@media (prefers-color-scheme: dark) { :root { --page: #12151b; --card: #1d222b; --edge: #333a47; --ink: #edf0f5;
  --quiet: #9aa4b5; --accent: #86a9ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 20px 48px; max-width: 1180px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 21px; overflow-wrap: anywhere; margin: 0 0 4px; }
h2 { font-size: 16px; margin: 0 0 10px; }
p { margin: 6px 0; color: var(--quiet); }
a { color: var(--accent); }
section, details { background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 14px 18px;
  margin-top: 14px; overflow-x: auto; }
summary { font-weight: 600; cursor: pointer; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 18px 3px 0; text-align: left; vertical-align: top; }
th { color: var(--quiet); font-weight: 600; }
thead th { border-bottom: 1px solid var(--edge); }
.number { text-align: right; white-space: nowrap; }
td { overflow-wrap: anywhere; }
td:first-child { overflow-wrap: break-word; }
@media (max-width: 500px) { th, td { padding-right: 11px; } }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13.5px; }
.pictures { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); }
figure { margin: 0; }
figure img { width: 100%; height: auto; background: #fff; border-radius: 6px; display: block; }
figcaption { font-size: 13px; color: var(--quiet); margin-top: 3px; }
"""


def write_run(folder: Path, status: Mapping[str, Any] | None = None) -> Path:
    """Write the card of a run into its folder; its `status` is that of its file, unless that is yet to be written."""
    return _write(folder, _run(folder, status or read_status(folder)))


def write_sweep(folder: Path, runs: Sequence[Run]) -> Path:
    """Write the card of several runs into the folder above them; it leads to the runs' own cards."""
    return _write(folder, _sweep(folder, runs))


def _write(folder: Path, text: str) -> Path:
    with replacing(folder / CARD) as temporary:
        # Names of files that are no UTF-8 are written as they are.
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
    return folder / CARD


# A run ----------------------------------------------------------------------------------------------------------------


def _run(folder: Path, status: Mapping[str, Any]) -> str:
    if not status:
        raise ValueError(f"{folder}: holds no run: there is no status.json in it")
    config, state = status["config"], status["state"]
    metrics = (read_json(folder / "metrics.json") or {}) if state == "completed" else {}
    told = [state, *([str(metrics["data"])] if "data" in metrics else []), f"{config.get('epochs', '?')} epochs"]
    head = f"<h1>{escape(folder.resolve().name)}</h1>\n<p>{escape(' · '.join(told))}</p>"
    if status.get("error"):
        head += f"\n<p>{escape(str(status['error']))}</p>"
    flat = flatten(config)
    shown = {key: value for key, value in flat.items() if not is_place(flat, key)}
    of_data = {"trained on": metrics.get("data")} if metrics else {}
    of_data |= {key.removeprefix("data."): value for key, value in shown.items() if key.startswith("data.")}
    others = {key: value for key, value in shown.items() if not key.startswith("data.")}
    parts = [
        _section("Result", _result(metrics)),
        _section("Command", f"<pre>{escape(_command(status))}</pre>"),
        _section("Pictures", _pictures(folder)),
        _section("Loss", _pairs(_ledger(metrics))),
        _section("Evaluation", _evaluation(folder) if metrics else ""),
        _section("Data", _pairs(of_data)),
        _folded("Configuration", _pairs(others)),
        _folded("Epochs", _history(folder / "history.csv") if metrics else ""),
        _folded("Record", _pairs(_record(status, metrics))),
    ]
    return _page(folder.resolve().name, head, parts)


def _result(metrics: Mapping[str, Any]) -> str:
    """The closing table, in nats per image."""
    table = losses(metrics)
    if not table:
        return ""
    notes = [f"Weights of epoch {metrics.get('epoch')} of {metrics.get('epochs')}."]
    if "±" in table[0]:
        notes.insert(0, f"± is the {ERROR}.")
    return _table(table[0], table[1:]) + f"<p>{escape(' '.join(notes))}</p>"


def _command(status: Mapping[str, Any]) -> str:
    """What to type to train such a run; what Python began is typed the same way."""
    return shlex.join(["python", "train.py", *map(str, status.get("overrides", []))])


def _ledger(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix("ledger/"): value for key, value in metrics.items() if key.startswith("ledger/")}


def _evaluation(folder: Path) -> str:
    """What `scripts/evaluate.py` prints."""
    found = read_json(folder / EVALUATION) or {}
    rows = measured.rows({key.removeprefix("test/"): value for key, value in found.items() if key.startswith("test/")})
    if not rows:
        return ""
    notes = [*measured.notes(rows), f"Weights of epoch {found.get('epoch')}."]
    return _table(measured.HEAD, rows) + "".join(f"<p>{escape(note)}</p>" for note in notes)


def _record(status: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("started", "resumed", "ended", "host", "git", "config_hash")
    record = {key: status[key] for key in kept if status.get(key)}
    measured = ("parameters", "device", "seconds/fit", "seconds/run")
    record |= {key: _number(metrics[key], 1) for key in measured if key in metrics}
    versions = status.get("versions", {})
    return record | ({"versions": ", ".join(f"{name} {each}" for name, each in versions.items())} if versions else {})


def _history(file: Path) -> str:
    if not file.is_file():
        return ""
    head, *rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
    return _table(head, [[_number(_float(cell), 3) if "." in cell else cell for cell in row] for row in rows])


def _float(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


# A sweep --------------------------------------------------------------------------------------------------------------


def _sweep(folder: Path, runs: Sequence[Run]) -> str:
    above = folder.resolve()
    names, cells = (table := results_table(runs)).cells()
    head = f"<h1>{escape(above.name)}</h1>\n<p>{len(runs)} run{'s' * (len(runs) > 1)}</p>"
    notes = "".join(f"<p>{escape(note)}</p>" for note in table.notes)
    parts = [_section("Results", _table(names, cells) + notes)]
    for run in sorted(runs, key=lambda run: (run.term != "total", order(run.validation))):
        name = run.folder.resolve().relative_to(above).as_posix()
        figures = [
            _figure(_small(run.folder / "figures" / f"{tag}.png"), tag) for tag in IN_SWEEPS if _is_there(run, tag)
        ]
        link = f'<p><a href="{quote(os.fsencode(name))}/{CARD}">all of it</a></p>'
        parts.append(_section(name, _grid(figures) + link))
    return _page(above.name, head, parts)


def _is_there(run: Run, tag: str) -> bool:
    return (run.folder / "figures" / f"{tag}.png").is_file()


def _small(path: Path) -> str:
    """A picture as a page embeds it, no wider than it is shown."""
    from PIL import Image

    with Bounded(path) as file, Image.open(file) as image:
        image.thumbnail((2 * WIDTH, 2 * WIDTH))  # two for each of a sharp screen's
        made = io.BytesIO()
        image.save(made, "png")
    return _embedded(made.getvalue(), "png")


# Pieces of pages ------------------------------------------------------------------------------------------------------


def _page(title: str, head: str, parts: Iterable[str]) -> str:
    body = "\n".join([head, *filter(None, parts)])
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def _folded(title: str, content: str) -> str:
    return f"<details>\n<summary>{escape(title)}</summary>\n{content}\n</details>" if content else ""


def _pairs(values: Mapping[str, Any]) -> str:
    """A table of names and values."""
    rows = [f"<tr><th>{escape(key)}</th><td>{escape(typed(value))}</td></tr>" for key, value in values.items()]
    return "<table>\n{}\n</table>".format("\n".join(rows)) if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of numbers are set to the right."""
    right = [all(_is_number(row[i]) for row in rows) for i in range(len(head))]
    kinds = [' class="number"' if each else "" for each in right]
    top = "".join(f"<th{kind}>{escape(name)}</th>" for name, kind in zip(head, kinds, strict=True))
    body = ["".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) for row in rows]
    lines = "\n".join(f"<tr>{line}</tr>" for line in body)
    return f"<table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table>"


def _is_number(text: str) -> bool:
    return not text or isinstance(_float(text.replace(",", "")), float)


def _number(value: Any, digits: int) -> str:
    """A number with so many digits; anything else as it is typed."""
    if value is None:
        return ""
    return f"{value:.{digits}f}" if isinstance(value, float) else typed(value)


def _pictures(run: Path) -> str:
    """All pictures of a run, films first."""
    folder = run / "figures"
    found = [path for path in folder.rglob("*.*") if path.suffix in KINDS]
    tags = {path: path.relative_to(folder).with_suffix("").as_posix() for path in found}
    place = {tag: i for i, tag in enumerate(PICTURES)}
    found.sort(key=lambda path: (path.suffix != ".gif", place.get(tags[path], len(place)), tags[path]))
    return _grid([_figure(_embedded(path.read_bytes(), KINDS[path.suffix]), tags[path]) for path in found])


def _grid(figures: Sequence[str]) -> str:
    return f'<div class="pictures">\n{"".join(figures)}</div>' if figures else ""


def _figure(source: str, tag: str) -> str:
    return f'<figure><img src="{source}" alt="{escape(tag)}"><figcaption>{escape(tag)}</figcaption></figure>\n'


def _embedded(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
