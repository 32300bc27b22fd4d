"""Processes around the work that tests/support/work.py has for them."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from work import fail_in_turn, fail_peculiarly, hang, leave_traces, talk, vanish, wait_for_a_signal

from vae.common.signals import Interrupted
from vae.training import parallel
from vae.training.parallel import run_processes


def await_ready(folder: Path) -> None:
    end = time.monotonic() + 60
    while len(list(folder.glob("ready *"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)


def signal_once_ready(folder: Path, *signums: int) -> None:
    """Send signals to this process as soon as two processes are ready."""

    def send() -> None:
        await_ready(folder)
        for signum in signums:
            os.kill(os.getpid(), signum)
            time.sleep(0.2)

    threading.Thread(target=send).start()


def test_every_process_gets_the_arguments_and_knows_which_it_is(tmp_path: Path) -> None:
    run_processes(3, leave_traces, tmp_path, [1, None])
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    (port,) = {text.split()[-1] for text in found.values()}
    assert found == {f"{rank} of 3": f"[1, None] {rank} {port}" for rank in range(3)}
    assert "LOCAL_RANK" not in os.environ


def test_the_first_process_alone_is_heard(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.INFO):
        run_processes(2, talk)
    first, second = caplog.records
    assert (first.getMessage(), first.name, first.file_only) == ("from 0", "work", True)  # type: ignore[attr-defined]
    assert second.getMessage().startswith("something <unlocked")
    assert "KeyError: 'nothing'" in logging.Formatter().format(second)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("first", [0, 1])
def test_the_first_failure_is_raised_with_its_traceback(first: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError) as caught:
        run_processes(2, fail_in_turn, first)
    assert str(caught.value) == "data.root=x: must be there"
    (note,) = caught.value.__notes__
    assert note.startswith(f"in process {first + 1} of 2:\nTraceback") and "fail_in_turn" in note
    assert capfd.readouterr() == ("", "")


def test_an_error_that_cannot_travel_is_told() -> None:
    with pytest.raises(RuntimeError, match=r"^Peculiar: this and that\n"):
        run_processes(2, fail_peculiarly)


def test_the_others_end_when_one_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "GRACE", 0.5)
    start = time.perf_counter()
    with pytest.raises(RuntimeError, match=r"^process 2 of 2 ended with SIGKILL$"):
        run_processes(2, vanish)
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_the_end_awaited(tmp_path: Path, signum: int) -> None:
    before = [signal.getsignal(each) for each in parallel.SIGNALS]
    signal_once_ready(tmp_path, signum)
    with pytest.raises(Interrupted) as stop:
        run_processes(2, wait_for_a_signal, tmp_path)
    assert stop.value.exit_status == 128 + signum
    assert {path.name for path in tmp_path.glob("stopped *")} == {"stopped 0", "stopped 1"}
    assert [signal.getsignal(each) for each in parallel.SIGNALS] == before


def test_a_second_signal_ends_what_hangs(tmp_path: Path) -> None:
    signal_once_ready(tmp_path, signal.SIGINT, signal.SIGINT)
    start = time.perf_counter()
    with pytest.raises(Interrupted):
        run_processes(2, hang, tmp_path)
    assert time.perf_counter() - start < 30


def test_nothing_goes_on_without_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; import work; from vae.training.parallel import run_processes\n"
        f"run_processes(2, work.hang, Path({str(tmp_path)!r}))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as starter:
        await_ready(tmp_path)
        starter.kill()
    for path in tmp_path.glob("ready *"):
        while Path("/proc", path.read_text()).exists():
            time.sleep(0.01)


def test_processes_need_no_main_thread(tmp_path: Path) -> None:
    thread = threading.Thread(target=run_processes, args=(2, leave_traces, tmp_path, "x"))
    thread.start()
    thread.join()
    assert len(list(tmp_path.iterdir())) == 2
