import importlib
import os
import signal
import subprocess
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


def test_a_training_tells_how_it_ended(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text("import sys; sys.exit(len(sys.argv))")
    monkeypatch.setattr(programs, "TRAIN", tmp_path / "train.py")
    assert programs.train(["beta=2", "seed=1"]) == 3


def test_ctrl_c_waits_for_the_training_to_save(tmp_path):
    (tmp_path / "train.py").write_text(
        "import pathlib, time\n"
        "try:\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(1)\n    pathlib.Path('saved').touch()"
    )
    code = (
        "import pathlib; from vae import programs; programs.TRAIN = pathlib.Path('train.py').resolve()\n"
        "with programs.ending_in_one_line():\n    programs.train([])"
    )
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS.parent)}
    started = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    assert started.stdout is not None and started.stdout.readline() == b"ready\n"
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does
    started.communicate(timeout=30)
    assert started.returncode == 130 and (tmp_path / "saved").exists()
