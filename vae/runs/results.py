"""Runs in folders, and how they differ. Imports no torch and no matplotlib."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vae.common.files import read_json
from vae.common.tables import Table, natural, order, typed
from vae.common.types import TERMS
from vae.settings.config import flatten, has_beta, is_place
from vae.settings.keys import unknown_key

AFTERWARDS = ("figures", "evaluate", "logger")  # groups that change nothing of what is trained
EVALUATION = "evaluation.json"
VALIDATION = "best first by the validation total (of an autoencoder recon); the other figures are of the test images"


@dataclass(frozen=True)
class Run:
    """One run, read from its folder."""

    folder: Path
    state: str
    error: str | None
    config: dict[str, Any]
    choices: dict[str, str]  # of each group: the YAML's name, or the class that was typed in its place
    metrics: dict[str, Any]  # with those of its evaluation; empty unless the run is completed

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The configuration with full keys."""
        return flatten(self.config)

    @property
    def term(self) -> str:
        """The term to rank the run by: its total; recon where nothing else applies."""
        return "total" if "test/total" in self.metrics else "recon"

    @property
    def validation(self) -> float | None:
        """The value to rank the run by, so that the test images choose none."""
        return self.metrics.get(f"val/{self.term}")

    def value(self, key: str) -> Any:
        """The text to type for a key to get this run; empty where it has no such key."""
        if key == "beta" and not has_beta(self.config):
            return ""
        if key in self.choices:
            return self.choices[key]
        return _target(self.config, key) if isinstance(self.config.get(key), Mapping) else self.flat.get(key, "")


# Reading --------------------------------------------------------------------------------------------------------------


def find_runs(folders: Iterable[str | Path]) -> list[Run]:
    """The runs in folders of runs, of sweeps, or above these: each once, in natural order of their paths."""
    found: dict[Path, Path] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder")
        inside = list(run_folders(folder))
        if not inside:
            raise ValueError(f"{folder}: holds no run: there is no status.json in it or below it")
        found = {path.resolve(): path for path in inside} | found
    runs = [read_run(found[path]) for path in sorted(found, key=lambda path: natural(str(path)))]
    return [run for run in runs if run is not None]


def read_run(folder: Path) -> Run | None:
    """The run in a folder; None where there is none."""
    path = folder / "status.json"
    status = read_json(path)
    if status is None:
        return None
    state, config, choices = (status.get(key) for key in ("state", "config", "choices"))
    overrides = status.get("overrides", [])
    if not (
        isinstance(state, str)
        and isinstance(config, dict)
        and isinstance(choices, dict)
        and isinstance(overrides, list)
    ):
        raise ValueError(f"{path}: is no run's status: must hold state, config and choices")
    typed_classes = {group: _target(config, group) for group in _replaced(map(str, overrides)) if group in config}
    metrics = _figures(folder / "metrics.json") if state == "completed" else {}
    terms = TERMS if "test/total" in metrics else ("recon",)
    has_terms = all(f"{part}/{term}" in metrics for part in ("val", "test") for term in terms)
    if state == "completed" and not (has_terms and isinstance(metrics.get("data"), str)):
        raise ValueError(f"{folder / 'metrics.json'}: must hold total, recon and kl of val/ and test/, and data")
    if metrics:
        found = _figures(folder / EVALUATION)
        metrics |= {name: value for name, value in found.items() if name.startswith("test/")}
    return Run(folder, state, status.get("error"), config, choices | typed_classes, metrics)


def _figures(path: Path) -> dict[str, Any]:
    """The content of a run's file, with numbers where numbers belong; empty where there is no file."""
    found = read_json(path) or {}
    for name, value in found.items():
        if name.startswith(("val/", "test/")) and not isinstance(value, int | float):
            raise ValueError(f"{path}: {name} must be a number, not {value!r:.40}")
    return found


def _target(config: Mapping[str, Any], group: str) -> str:
    """The class of a group's node; an empty text where there is none."""
    node = config.get(group)
    return str(node.get("_target_", "")) if isinstance(node, Mapping) else ""


def run_folders(folder: Path) -> Iterator[Path]:
    """The folders of runs in `folder`, itself included if it is one; folders inside of runs are left out."""
    for path, subfolders, files in os.walk(folder):
        if "status.json" in files:
            subfolders.clear()
            yield Path(path)


def _replaced(typed: Iterable[str]) -> list[str]:
    """The groups with a typed class."""
    return [found[1] for text in typed if (found := re.match(r"\+{0,2}(\w+)\._target_=", text))]


# How runs differ ------------------------------------------------------------------------------------------------------

FOLLOWING = {"report": "objective"}  # keys that some choices of a group set


def _alike(runs: Sequence[Run], name: str) -> Iterable[Sequence[Run]]:
    """The runs in parts within which a difference in a key of the top level counts."""
    return partition(runs, [FOLLOWING[name]]).values() if name in FOLLOWING else [runs]


def differing(runs: Sequence[Run]) -> list[str]:
    """The keys by which runs differ: those of the top level, then groups, then keys inside of groups.

    A key inside of a group counts only if it differs among runs with the same choice and does not repeat a top-level
    key, and so does one that a choice sets. Pictures and the place of the data do not count.
    """
    names = dict.fromkeys(name for run in runs for name in run.config if name not in AFTERWARDS)
    groups = [name for name in names if any(isinstance(run.config.get(name), Mapping) for run in runs)]
    top = [name for name in names if name not in groups]
    found = [name for name in (*top, *groups) if any(differ(some, name) for some in _alike(runs, name))]
    for group in groups:
        keys = dict.fromkeys(key for run in runs for key in run.flat if key.startswith(f"{group}."))
        same_choice = partition(runs, [group]).values()
        found += [key for key in keys if any(_matters(some, key, top) for some in same_choice)]
    return found


def differ(runs: Sequence[Run], key: str) -> bool:
    return len({hashable(run.value(key)) for run in runs}) > 1


def _matters(runs: Sequence[Run], key: str, top: Sequence[str]) -> bool:
    """Whether runs differ by a key inside of a group that does not merely repeat one at the top level."""
    if not differ(runs, key) or is_place(runs[0].flat, key):
        return False
    return not any(all(run.flat.get(key) == run.config.get(name) for run in runs) for name in top)


def partition(runs: Iterable[Run], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Run]]:
    """The runs by their values of some keys, in order of appearance."""
    parts: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        parts.setdefault(tuple(hashable(run.value(key)) for key in keys), []).append(run)
    return parts


def hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple((key, hashable(each)) for key, each in value.items())
    return tuple(map(hashable, value)) if isinstance(value, list) else value


def is_value(value: Any, text: str) -> bool:
    """Whether a text is a way to type a value: 1e-3 for 0.001, [[2.0, 1], [1, 2]] with any spaces."""
    try:
        return hashable(json.loads(text)) == hashable(value) or text == value
    except ValueError:
        return typed(value) == text.replace(" ", "")


def refuse_unknown_key(key: str, known: Collection[str]) -> None:
    """Raise a `ValueError` that names the near ones unless the key is known."""
    if key not in known:
        group = key.rpartition(".")[0]
        siblings = [name for name in known if name.rpartition(".")[0] == group]
        top = [name for name in known if "." not in name]
        raise ValueError(unknown_key(key, siblings) if siblings else unknown_key(group, top))


# The table of a sweep -------------------------------------------------------------------------------------------------


def results_table(runs: Sequence[Run]) -> Table:
    """One row a run: its differences and its results, the lowest validation total first."""
    keys = differing(runs)
    common = os.path.commonpath([run.folder.resolve().parent for run in runs])
    rows = []
    for run in runs:
        row = {"status": run.state, **{key: run.value(key) for key in keys}}
        row |= {"validation": run.validation} | {term: run.metrics.get(f"test/{term}") for term in TERMS}
        row |= {"seconds": run.metrics.get("seconds/run")}
        row |= {"folder": run.folder.resolve().relative_to(common).as_posix(), "error": run.error}
        rows.append(row)
    # Runs without a total are ranked by recon, below the others.
    rows.sort(key=lambda row: (row["total"] is None, order(row["validation"]), natural(row["folder"])))
    failures: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] == "failed":
            failures.setdefault(" ".join(str(row["error"]).split()), []).append(row["folder"])
    notes = [VALIDATION] if len(runs) > 1 else []
    for error, (name, *more) in failures.items():
        others = f" and {len(more)} more" if more else ""
        notes.append(f"{name}{others}: {error}")
    return Table(keys, ["status", *keys, "validation", *TERMS, "seconds", "folder", "error"], rows, notes)
