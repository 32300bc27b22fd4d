"""The closing table: what a model loses of each part of the data, in nats per image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vae.common.types import TERMS

PARTS = {"train": "train", "val": "validation", "test": "test"}
ERROR = "standard error of the total that comes from one draw of z for each image"

# What a column is called, the metric that it holds and its digits after the point.
_COLUMNS = [*((term, term, 2) for term in TERMS), ("±", "total_error", 2), ("bits/dim", "bits_per_dim", 4)]


def losses(metrics: Mapping[str, Any]) -> list[list[str]]:
    """The head and the rows of the table, with the columns that a run has; nothing of a run without any."""
    columns = [column for column in _COLUMNS if any(f"{part}/{column[1]}" in metrics for part in PARTS)]
    if not columns:
        return []
    rows = [
        [name, *(_cell(metrics.get(f"{part}/{key}"), digits) for _, key, digits in columns)]
        for part, name in PARTS.items()
    ]
    return [["nats per image", *(name for name, _, _ in columns)], *rows]


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
