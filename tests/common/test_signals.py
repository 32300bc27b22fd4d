import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vae.common import signals
from vae.common.signals import Interrupted

ROOT = Path(__file__).parents[2]


@pytest.fixture
def heard() -> Iterator[None]:
    with signals.listening(), signals.heeded():
        yield


def send(signum: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), signum)


def test_the_first_signal_interrupts_and_later_ones_do_not(heard: None) -> None:
    with pytest.raises(Interrupted) as stop:
        send(signal.SIGTERM)
    send()
    assert (stop.value.signum, stop.value.exit_status, str(stop.value)) == (15, 143, "SIGTERM")
    assert signals.received() == signal.SIGTERM


def test_what_is_noted_is_acted_on_at_the_end(heard: None) -> None:
    done = []
    with pytest.raises(Interrupted), signals.noted():
        send()
        send()
        done.append("to the end")
        assert signals.received() == signal.SIGINT
    assert done


def test_patience_is_for_so_many(heard: None) -> None:
    with signals.noted(patience=1):
        send()
        with pytest.raises(Interrupted):
            send()
        with signals.noted():  # whatever is asked for inside
            send()


def test_an_error_inside_is_not_lost_for_a_signal_nor_the_signal_for_the_error() -> None:
    with pytest.raises(Interrupted), signals.listening(), pytest.raises(KeyError), signals.noted():
        send()
        raise KeyError


def test_inside_what_only_notes_them_signals_may_be_heeded(heard: None) -> None:
    done = []
    with pytest.raises(Interrupted), signals.noted():
        done.append("before")
        with signals.heeded():
            send()
            done.append("never")
    assert done == ["before"]


def test_what_was_noted_before_is_heeded_first() -> None:
    with signals.listening(), signals.noted():
        send()
        with pytest.raises(Interrupted), signals.heeded():
            pytest.fail("is not reached")
        send()  # noted again


def test_somebody_else_may_answer(heard: None) -> None:
    answers: list[int] = []
    signals.answer(answers.append)
    send()
    send()
    assert answers == [signal.SIGINT]


@pytest.mark.slow
def test_what_comes_where_python_ignores_errors_is_not_lost(heard: None, capsys: pytest.CaptureFixture[str]) -> None:
    class Profiler:
        def __del__(self) -> None:
            send()

    with pytest.raises(Interrupted):
        Profiler()  # is put away at once
        time.sleep(5)
    assert signals.received() == signal.SIGINT
    with signals.noted(patience=1):
        pass  # one signal came, not two
    assert not capsys.readouterr().err


def test_signals_are_taken_back_from_others(heard: None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signals.claim()
    with pytest.raises(Interrupted):
        send(signal.SIGTERM)


def test_afterwards_handlers_are_what_they_were() -> None:
    before = [signal.getsignal(signum) for signum in signals.SIGNALS]
    with signals.listening(), signals.listening():
        inside = [signal.getsignal(signum) for signum in signals.SIGNALS]
    assert [signal.getsignal(signum) for signum in signals.SIGNALS] == before != inside
    assert signals.received() is None


def test_other_threads_leave_signals_alone() -> None:
    seen = []

    def work() -> None:
        with signals.listening(), signals.noted():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


def test_an_interruption_travels_between_processes() -> None:
    arrived = pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM)))
    assert isinstance(arrived, Interrupted) and arrived.exit_status == 143


@pytest.mark.parametrize("module", ["hydra", "omegaconf.errors"])
def test_a_signal_while_the_program_is_imported_ends_it_afterwards(module: str, tmp_path: Path) -> None:
    """Where an exception would break off the import, or be taken for one of it."""
    hook = f"""
import os, runpy, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
sys.path.insert(0, {str(ROOT)!r})
sys.argv = ["train.py", "--cfg", "job"]
runpy.run_path({str(ROOT / "train.py")!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", hook], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_an_error_in_the_handling_of_an_interruption_is_one():
    def put_away() -> None:
        f: int
        try:
            raise Interrupted(2)
            f = 1
        finally:
            f  # noqa: B018

    with pytest.raises(UnboundLocalError) as caught:
        put_away()
    stop = signals.behind(caught.value)
    assert stop is not None and stop.exit_status == 130
    assert signals.behind(ValueError("x")) is None
