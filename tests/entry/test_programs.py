import argparse
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vae.entry import programs

SCRIPTS = Path(__file__).parents[2] / "scripts"
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
    program = importlib.import_module(name)
    monkeypatch.setattr(program, PROGRAMS[name], lambda *_, **__: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as stop:
        program.main(ARGUMENTS[name])
    assert stop.value.code == 130 and capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("error", [ValueError, OSError, RuntimeError, MemoryError])
def test_errors_are_one_line(error):
    with pytest.raises(SystemExit, match=r"^error: why$"), programs.ending_in_one_line():
        raise error("why")
    with pytest.raises(SystemExit, match=r"^error: two lines\.csv: why$"), programs.ending_in_one_line():
        raise error("two\nlines.csv: why")
    with pytest.raises(SystemExit, match=rf"^error: {error.__name__}$"), programs.ending_in_one_line():
        raise error


def test_our_own_mistakes_are_not_hidden():
    with pytest.raises(AssertionError), programs.ending_in_one_line():
        raise AssertionError


def test_a_training_tells_how_it_ended(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text("import sys; sys.exit(len(sys.argv))")
    monkeypatch.setattr(programs, "TRAIN", tmp_path / "train.py")
    assert programs.run_train_py(["beta=2", "seed=1"]) == 3


@pytest.mark.parametrize(
    ("send", "signum", "status"),
    [(os.killpg, signal.SIGINT, 130), (os.kill, signal.SIGINT, 130), (os.kill, signal.SIGTERM, 143)],
    ids=["as a terminal does", "Ctrl+C", "SIGTERM"],
)
def test_a_signal_waits_for_the_training_to_save(send, signum, status, tmp_path):
    (tmp_path / "train.py").write_text(
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "try:\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "except (KeyboardInterrupt, SystemExit):\n    time.sleep(1)\n    pathlib.Path('saved').touch()\n    raise"
    )
    code = (
        "import pathlib, sys; from vae.entry import programs; programs.TRAIN = pathlib.Path('train.py').resolve()\n"
        "programs.TERMINAL = 2\n"
        "with programs.ending_in_one_line():\n    sys.exit(programs.run_train_py([]))"
    )
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS.parent)}
    started = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    assert started.stdout is not None and started.stdout.readline() == b"ready\n"
    send(started.pid, signum)
    started.communicate(timeout=30)
    assert started.returncode == status and (tmp_path / "saved").exists()


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_gone_is_no_error(lines):
    code = (
        "import sys; from vae.entry import programs; sys.stdin.read()\n"
        f"with programs.ending_in_one_line():\n    for i in range({lines}):\n        print(i)"
    )
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS.parent)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes)
    assert started.stdout is not None
    started.stdout.close()
    started.stdout = None
    _, said = started.communicate(timeout=60)
    assert (started.returncode, said) == (141, b"")


def test_a_table_goes_into_a_whole_file_or_to_standard_output(tmp_path, capsys):
    out = tmp_path / "new" / "table.csv"
    with pytest.raises(ValueError, match="half"), programs.table_file(out) as file:
        file.write("a,b\n")
        raise ValueError("half")
    assert not list(out.parent.iterdir())
    with programs.table_file(out) as file:
        file.write("\udcff,ä\n")  # a name that is no UTF-8
    assert out.read_bytes() == b"\xff,\xc3\xa4\n"
    for name in ("-", "/dev/stdout"):
        with programs.table_file(Path(name)) as file:
            file.write(name)
    assert capsys.readouterr().out == "-/dev/stdout"


def test_a_table_needs_an_open_standard_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(ValueError, match=r"^-: standard output is closed$"), programs.table_file(Path("-")):
        pass


def test_a_run_that_cannot_be_written_to_is_refused_as_the_default_place(tmp_path, monkeypatch):
    file = tmp_path / "run" / "checkpoints" / "best.ckpt"
    file.parent.mkdir(parents=True)
    file.touch()
    assert programs.inside(tmp_path / "run") == programs.inside(file) == tmp_path / "run"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match=r"run: cannot be written to; name another place with --out$"):
        programs.inside(file)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", str(10**12), "9" * 30])
def test_counts_are_positive_and_not_without_end(text):
    with pytest.raises(
        argparse.ArgumentTypeError, match=f"^{text}: must be a positive integer, at most 1,000,000,000$"
    ):
        programs.positive(text)
