import io
import logging
import sys

import pytest
from gallery.screen import Screen

from vae.common import terminal
from vae.common.logs import TerminalHandler, brief
from vae.common.terminal import NoBar, bar, fitted


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Put a terminal of 40 columns in place of standard output; a fixture cannot, as pytest puts its own there."""
    stdout = Terminal()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdout", stdout)
    return stdout


def shown(stdout: Terminal) -> str:
    screen = Screen(columns=40)
    screen.write(stdout.getvalue())
    return str(screen)


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("short enough", "short enough"),
        (
            "error: prior=x: no such choice; choose one of a, b",
            "error: prior=x: no such choice; choose\none of a, b",
        ),
        (
            "model     a dense backbone, an isotropic prior; 7 weights",
            "model     a dense backbone, an isotropic\n          prior; 7 weights",
        ),
        (
            "          1 × kl: KL(q(z|x) ‖ p(z)), at a sample",
            "          1 × kl: KL(q(z|x) ‖ p(z)), at\n          a sample",
        ),
        (
            "run        outputs/runs/2030-01-01/12-00-00",
            "run\n        outputs/runs/2030-01-01/12-00-00",
        ),
        (
            "go on with: python train.py resume=outputs/12-00-00",
            "go on with: python train.py \\\nresume=outputs/12-00-00",
        ),
        (f"folder    {'x' * 60} y", f"folder\n{'x' * 60}\ny"),
    ],
)
def test_lines_break_between_words_and_commands_can_be_pasted(
    monkeypatch: pytest.MonkeyPatch, line: str, broken: str
) -> None:
    stdout = on_terminal(monkeypatch)
    assert fitted(f"{line}\n{line}", stdout) == f"{broken}\n{broken}"
    assert fitted(line, io.StringIO()) == line  # no terminal
    assert fitted(line, None) == line


def test_what_passes_is_taken_away_by_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = on_terminal(monkeypatch)
    log = logging.Logger("said")
    log.addHandler(TerminalHandler(stdout))
    terminal.meanwhile("reading")
    assert shown(stdout) == "reading"
    terminal.meanwhile("importing")
    assert shown(stdout) == "importing"
    log.info("begun")
    assert shown(stdout) == "begun"
    terminal.clear()
    assert shown(stdout) == "begun"


def test_messages_stand_above_the_bar_which_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = on_terminal(monkeypatch)
    log = logging.Logger("said")
    log.addHandler(TerminalHandler(stdout))
    with bar("drawing", 3) as drawing:
        for name in ("a", "b"):
            drawing.set_description_str(f"drawing {name}")
            log.info("%s is a message that is too long for its line", name, extra=brief(f"{name} is short"))
            drawing.update()
        lines = shown(stdout).splitlines()
        assert lines[:2] == ["a is short", "b is short"]
        assert lines[2].startswith("drawing b ") and len(lines) == 3
    assert shown(stdout) == "a is short\nb is short"


def test_a_bar_of_long_work_appears_only_if_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    for patience, appears in ((60.0, False), (0.0, True)):
        stdout = on_terminal(monkeypatch)
        monkeypatch.setattr(terminal, "PATIENCE", patience)
        with bar("measuring", 2) as outer, terminal.bar_of_long("log p(x)", 10) as inner:
            inner.update(4)
            inner.update(4)
            lines = shown(stdout).splitlines()
            assert (
                lines[0].startswith("measuring ")
                and [line.startswith("log p(x) ") for line in lines[1:]] == [True] * appears
            )
            outer.update()
        assert shown(stdout) == ""


def test_without_a_terminal_there_is_no_bar_and_the_whole_message(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    monkeypatch.setenv("COLUMNS", "20")
    log = logging.Logger("said")
    log.addHandler(TerminalHandler(file))
    terminal.meanwhile("reading")
    with bar("drawing", 3) as drawing:
        assert isinstance(drawing, NoBar)
        drawing.set_description_str("drawing a")
        drawing.update()
        drawing.update(2)
        log.info("a message too long for twenty columns", extra=brief("short"))
    assert file.getvalue() == "a message too long for twenty columns\n"
