"""Tables for the terminal, for Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

LONG = 32  # characters of a cell: with longer ones a table's lines would wrap
GAP = "  "  # between columns


class Table(NamedTuple):
    """Rows of raw values under columns, and notes below; `keys` are the columns of configuration values."""

    keys: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()

    def csv(self) -> str:
        """All columns in full precision."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self.rows:
            writer.writerow([typed(row[name]) if name in self.keys else row[name] for name in self.columns])
        return file.getvalue()

    def markdown(self) -> str:
        """For GitHub and the like."""
        names, cells = self.cells()
        rule = ["---:" if self._is_number(name) else "---" for name in names]
        escaped = [[text.replace("|", "\\|") for text in row] for row in cells]
        lines = [[_label(name) for name in names], rule, *escaped]
        return "".join([*(f"| {' | '.join(line)} |\n" for line in lines), *(f"\n{note}\n" for note in self.notes)])

    def text(self, width: int | None = None) -> str:
        """For a terminal, by default of this one's width: the last column is cut to fit."""
        names, cells = self.cells()
        explained: dict[str, str] = {}
        for row in cells:
            for i, text in enumerate(row[:-1]):
                if len(text) > LONG:
                    row[i] = explained.setdefault(text, f"({len(explained) + 1})")
        lines = [[_label(name) for name in names], *cells]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        room = (width or shutil.get_terminal_size().columns) - sum(widths[:-1]) - len(GAP) * (len(names) - 1)
        widths[-1] = min(widths[-1], max(room, len(names[-1]), 8))
        signs = [">" if self._is_number(name) else "<" for name in names]
        head, *body = [
            GAP.join(f"{_cut(text, w):{sign}{w}}" for text, sign, w in zip(line, signs, widths, strict=True)).rstrip()
            for line in lines
        ]
        rule = "─" * (sum(widths) + len(GAP) * (len(widths) - 1))
        return "\n".join(
            [rule, head, rule, *body, rule, *(f"{n} {text}" for text, n in explained.items()), *self.notes]
        )

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """The columns that are shown, and the rows' texts in them. Errors are in the notes."""
        hidden = ["error", *(name for name in self.columns if name.endswith("±") and not self._is_number(name))]
        names = [name for name in self.columns if name not in hidden]
        columns = [
            _short([row[name] for row in self.rows])
            if name in self.keys
            else [_shown(row[name], self._digits(name)) for row in self.rows]
            for name in names
        ]
        return names, [list(row) for row in zip(*columns, strict=True)]

    def _digits(self, name: str) -> int:
        """Digits after the point: one more for shares and scores than for nats."""
        values = [row[name.removesuffix(" ±")] for row in self.rows]
        return 3 if all(isinstance(value, float) and abs(value) <= 1 for value in values if value is not None) else 2

    def _is_number(self, name: str) -> bool:
        values = [row[name] for row in self.rows if row[name] not in (None, "")]
        return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _short(values: Sequence[Any]) -> list[str]:
    """Values as typed, with four digits where that tells them apart: a search chooses values with sixteen."""
    exact = [typed(value) for value in values]
    rounded = [typed(float(f"{value:.4g}")) if isinstance(value, float) else typed(value) for value in values]
    return rounded if len(set(rounded)) == len(set(exact)) else exact


def typed(value: Any) -> str:
    """A value as one would type it on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(typed, value))}]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def natural(text: str) -> list[Any]:
    """A sort key that puts 2_… before 10_…."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", text))]


def _shown(value: Any, digits: int) -> str:
    if isinstance(value, bool):
        return "←" if value else ""
    return f"{value:.{digits}f}" if isinstance(value, float) else "" if value is None else str(value)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _label(column: str) -> str:
    return "±" if column.endswith("±") else column


def order(value: Any) -> tuple[int, Any]:
    """A sort key: numbers, then words, then missing values."""
    if value is None or value == "" or value != value:  # NaN counts as missing
        return 2, 0
    is_number = isinstance(value, int | float)
    return (0, value) if is_number else (1, natural(typed(value)))
