"""A terminal: a command that runs on one, what is then on its screen, and how that looks."""

from __future__ import annotations

import html
import os
import pty
import re
import subprocess
import termios
from collections.abc import Iterator, Sequence
from pathlib import Path

COLUMNS, ROWS = 120, 40
CONTROL = re.compile(r"\x1b\[([\d;?]*)([A-Za-z])|\x1b[()].|(.)", re.DOTALL)
PAGE = """<!doctype html>
<meta charset="utf-8">
<style>
  body { margin: 8px; }
  div { width: max-content; overflow: hidden; border: 1px solid #3b4252; border-radius: 9px; background: #1b1f27; }
  header { padding: 9px 14px; background: #2b313c; color: #9aa4b5; font: 12px "DejaVu Sans", sans-serif; }
  header b { display: inline-block; width: 11px; height: 11px; margin-right: 7px; border-radius: 50%%; }
  header span { margin-left: 10px; vertical-align: 1px; }
  pre { margin: 0; padding: 14px 18px 16px; width: %(columns)dch; color: #dde3ec; }
  pre { font: 14px/19px "DejaVu Sans Mono", "Liberation Mono", monospace; }
</style>
<div>
  <header><b style="background: #ec6a5e"></b><b style="background: #f4bf4f"></b><b style="background: #61c554"></b><span>%(title)s</span></header>
  <pre>%(text)s</pre>
</div>
"""  # noqa: E501


def on_terminal(command: Sequence[str], folder: Path, columns: int = COLUMNS) -> tuple[int, str]:
    """Run a command in a folder on a terminal of its own; its exit status and all that it wrote there."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (ROWS, columns))
    # These would overrule the terminal's own size.
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        written = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    return process.returncode, written.decode(errors="replace")


def _read(end: int) -> bytes:
    try:
        return os.read(end, 1 << 16)
    except OSError:  # on Linux, once the other end is closed
        return b""


class Screen:
    """The characters on a terminal of endless height."""

    def __init__(self, columns: int = COLUMNS):
        self.columns = columns
        self.lines: list[list[str]] = [[]]
        self.row = self.column = 0

    def __str__(self) -> str:
        return "\n".join("".join(line).rstrip() for line in self.lines).rstrip()

    def write(self, text: str) -> None:
        """Put text there as a terminal does: carriage returns, backspaces and cursor moves overwrite."""
        for numbers, command, character in CONTROL.findall(text):
            if command:
                self._obey(command, int(numbers) if numbers.isdecimal() else None)
            elif character == "\r":
                self.column = 0
            elif character == "\n":
                self._to(self.row + 1)
            elif character == "\b":
                self.column = max(0, self.column - 1)
            elif character.isprintable():
                self._put(character)

    def _put(self, character: str) -> None:
        if self.column == self.columns:
            self.column = 0
            self._to(self.row + 1)
        line = self.lines[self.row]
        line.extend(" " * (self.column - len(line)))
        line[self.column : self.column + 1] = character
        self.column += 1

    def _to(self, row: int) -> None:
        self.row = max(0, row)
        self.lines.extend([] for _ in range(self.row + 1 - len(self.lines)))

    def _obey(self, command: str, number: int | None) -> None:
        """Colours and all that moves or erases nothing are left out."""
        match command:
            case "A" | "B":
                self._to(self.row + (number or 1) * (1 if command == "B" else -1))
            case "C" | "D":
                to = self.column + (number or 1) * (1 if command == "C" else -1)
                self.column = min(max(0, to), self.columns - 1)
            case "G":
                self.column = (number or 1) - 1
            case "K":
                line = self.lines[self.row]
                start, end = {1: (0, self.column + 1), 2: (0, len(line))}.get(number or 0, (self.column, len(line)))
                line[start:end] = " " * (end - start)
            case "J" if not number:
                del self.lines[self.row + 1 :], self.lines[self.row][self.column :]


def screens(written: str) -> Iterator[str]:
    """What was to be seen at each return of the cursor to the start of a line, and at the end."""
    screen = Screen()
    for piece in re.split(r"(?=\r(?!\n))", written):
        screen.write(piece)
        yield str(screen)


def as_page(text: str, title: str) -> str:
    """A terminal's window with this text as HTML, on a transparent ground."""
    return PAGE % {"columns": COLUMNS, "title": html.escape(title), "text": html.escape(text)}
