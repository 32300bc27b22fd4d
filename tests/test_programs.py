import importlib
import signal
import sys
from pathlib import Path

import pytest

from vae import programs

SCRIPTS = Path(__file__).parents[1] / "scripts"
PROGRAMS = {  # with the function that does the work
    "compare": "compare",
    "draw": "draw",
    "encode": "encode",
    "evaluate": "_runs",
    "explore": "explore",
    "reconstruct": "reconstruct",
    "sample": "sample",
    "score": "score",
}
ARGUMENTS = {name: ["run"] for name in PROGRAMS} | {
    "encode": ["run", "photos", "--out", "x.csv"],
    "reconstruct": ["run", "photos", "--out", "x"],
    "sample": ["run", "--out", "x"],
    "score": ["run", "photos"],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_ctrl_c_is_one_line_and_130(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    program = importlib.import_module(name)
    monkeypatch.setattr(program, PROGRAMS[name], lambda *_, **__: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as stop:
        program.main(ARGUMENTS[name])
    assert stop.value.code == 130 and capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("error", [ValueError, OSError, RuntimeError])
def test_errors_are_one_line(error):
    with pytest.raises(SystemExit, match=r"^error: why$"), programs.ending_in_one_line():
        raise error("why")


def test_our_own_mistakes_are_not_hidden():
    with pytest.raises(AssertionError), programs.ending_in_one_line():
        raise AssertionError
