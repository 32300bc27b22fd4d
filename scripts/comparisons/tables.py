"""Tables of comparable runs: which runs are in one, and the words above it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vae.common.files import relative
from vae.common.tables import Table, natural, typed
from vae.runs import ranking, results
from vae.runs.ranking import Comparable
from vae.runs.results import Run


def matching(runs: Sequence[Run], conditions: Sequence[str]) -> Sequence[Run]:
    """The runs that fulfil all conditions such as prior=correlated."""
    for condition in conditions:
        key, equals, text = condition.partition("=")
        if not equals:
            raise ValueError(f"--where {condition}: must be key=value")
        known = {name for run in runs for name in (*run.config, *run.choices, *run.flat)}
        results.refuse_unknown_key(key, known)
        found = {typed(run.value(key)) for run in runs}
        runs = [run for run in runs if results.is_value(run.value(key), text)]
        if not runs:
            there = ", ".join(sorted(found - {""}, key=natural)[:12])
            raise ValueError(f"--where {condition}: no run has it; found are {there}")
    return runs


def left_out(runs: Sequence[Run]) -> str:
    """How many runs are in which other state than completed, and where to read more of them."""
    counts = Counter(run.state for run in runs)
    tables = sorted({run.folder.parent / "results.md" for run in runs})
    return "; see ".join(
        [
            ", ".join(f"{number} {state}" for state, number in counts.items()),
            *(str(relative(path)) for path in tables if path.exists()),
        ]
    )


def separate(sets: Sequence[Comparable]) -> list[str]:
    """A line that says why there are several tables; none of a single one."""
    return [f"{len(sets)} tables, not ranked with each other: {ranking.why_separate(sets)}"] if len(sets) > 1 else []


def heading(sets: Sequence[Comparable], number: int) -> str:
    """What a table is about."""
    each = sets[number]
    data = each.runs[0].metrics["data"]
    about = f"{count(each.runs)} on {data}: nats per image on the test set, ranked by validation"
    if len(sets) == 1:
        return about
    return f"{number + 1} of {len(sets)}: {settings(each.differences)}\n{about}"


def together(sets: Sequence[Comparable], tables: Sequence[Table]) -> Table:
    """All tables as one, with columns for what tells them apart."""
    differences = list(dict.fromkeys(key for each in sets for key in each.differences))
    empty = dict.fromkeys(differences, "")
    widest_first = sorted(tables, key=lambda table: -len(table.columns))  # an autoencoder has no total and no kl
    columns = list(dict.fromkeys(name for table in widest_first for name in table.columns))
    blank = dict.fromkeys(columns)
    rows = [
        {**blank, **empty, **each.differences, **row}
        for each, table in zip(sets, tables, strict=True)
        for row in table.rows
    ]
    keys = dict.fromkeys(key for table in tables for key in table.keys)
    return Table([*differences, *keys], [*differences, *columns], rows)


def own(each: Comparable, keys: Sequence[str]) -> list[str]:
    """The keys that any of the runs has: an autoencoder has no β."""
    return [key for key in keys if any(run.value(key) != "" for run in each.runs)]


def settings(values: Mapping[str, Any]) -> str:
    """Keys with their values, as one would type them."""
    return " ".join(f"{key}={typed(value)}" for key, value in values.items() if value != "")


def count(runs: Sequence[Run]) -> str:
    """How many runs these are."""
    return f"{len(runs)} run{'s' * (len(runs) > 1)}"
