import errno
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from moments import Moment

from vae.common import files, logs, signals
from vae.common.signals import Interrupted
from vae.runs import record
from vae.runs.record import RefusedError, read_status, recorded, refuse_other_configuration
from vae.settings.config import fingerprint

DATA = {"_target_": "vae.data.idx.IdxFiles", "root": "a", "limit": None}
CONFIG = {"epochs": 3, "beta": 1.0, "data": DATA, "trainer": {"devices": 1}}


def test_completed(tmp_path: Path) -> None:
    with recorded(tmp_path, CONFIG, {"prior": "correlated"}):
        running = read_status(tmp_path)
        assert running["state"] == "running"
        assert running["ended"] is None
        assert running["pid"] == os.getpid()
        assert running["config_hash"] == fingerprint(CONFIG) == fingerprint(running["config"])
        assert running["choices"] == {"prior": "correlated"}
        assert {"python", "torch", "hydra-core"} <= running["versions"].keys()
    status = read_status(tmp_path)
    assert status["state"] == "completed"
    assert status["started"] <= status["ended"]
    assert status["resumed"] == []


def test_failed_keeps_the_reason_and_raises_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), recorded(tmp_path, CONFIG):
        1 / 0  # noqa: B018
    status = read_status(tmp_path)
    assert (status["state"], status["error"]) == ("failed", "ZeroDivisionError: division by zero")


@pytest.mark.parametrize(("signum", "exit_status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_interrupt_once_and_handlers_come_back(tmp_path: Path, signum: int, exit_status: int) -> None:
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted) as stop, recorded(tmp_path, CONFIG), signals.heeded():
        try:
            os.kill(os.getpid(), signum)
        finally:
            os.kill(os.getpid(), signum)  # an impatient second one must not disturb the tidying up
    assert stop.value.exit_status == exit_status
    assert read_status(tmp_path)["state"] == "interrupted"
    assert signal.getsignal(signum) is before


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes time and writes no status."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(record, "_show", lambda *_: None)
    monkeypatch.setattr(record, "_git_commit", lambda: None)
    monkeypatch.setattr(record, "version", lambda name: None)


def train(folder: Path, fails: bool) -> None:
    with recorded(folder, CONFIG), signals.heeded():
        if fails:
            raise ZeroDivisionError


@contextmanager
def heard() -> Iterator[None]:
    with signals.listening(), signals.heeded():
        yield


@pytest.mark.parametrize(
    ("command", "resumed", "fails"),
    [(True, False, False), (True, True, False), (True, True, True), (False, True, False)],
)
def test_a_signal_at_any_moment_leaves_no_run_that_seems_to_run(
    tmp_path: Path, quick: None, command: bool, resumed: bool, fails: bool
) -> None:
    """In a command, which listens from its start, and in Python, where somebody else handles signals before and after.

    The state is read while the error is there: with its end Python closes what it left open.
    """
    with pytest.raises(ValueError), recorded(tmp_path / "before", CONFIG):
        raise ValueError
    elsewhere: list[int] = []

    def other(signum: int, frame: object) -> None:
        elsewhere.append(signum)

    before = signal.signal(signal.SIGTERM, other)
    try:
        for number in itertools.count(1):
            folder = tmp_path / str(number)
            folder.mkdir()
            if resumed:
                shutil.copy(tmp_path / "before" / "status.json", folder)
            moment = Moment(number, record, signals, files, logs, sys.modules[__name__])
            elsewhere.clear()
            end: BaseException | None = None
            try:
                with heard() if command else nullcontext(), moment:
                    train(folder, fails)
            except (Interrupted, ZeroDivisionError) as error:
                end = error
            if not moment.where:
                break
            assert read_status(folder).get("state") != "running", moment.where
            assert end or elsewhere, f"{moment.where}: the signal is lost"
            assert signal.getsignal(signal.SIGTERM) is other, f"{moment.where}: the handler stays"
    finally:
        signal.signal(signal.SIGTERM, before)
    assert number > 300


def test_an_error_behind_an_interruption_is_one(tmp_path: Path) -> None:
    with pytest.raises(Interrupted), recorded(tmp_path, CONFIG), signals.heeded():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            raise ValueError("there is nothing to put away yet")
    status = read_status(tmp_path)
    assert (status["state"], status["error"]) == ("interrupted", "Interrupted: SIGTERM")


def test_a_run_whose_log_cannot_be_opened_is_not_running(tmp_path: Path) -> None:
    (tmp_path / "train.log").mkdir()
    with pytest.raises(IsADirectoryError), recorded(tmp_path, CONFIG):
        pass
    assert not (tmp_path / "status.json").exists()


def test_a_resumed_run_keeps_its_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="first"), recorded(tmp_path, CONFIG):
        raise ValueError("first")
    first = read_status(tmp_path)
    with recorded(tmp_path, CONFIG):
        pass
    second = read_status(tmp_path)
    assert second["started"] == first["started"]
    assert len(second["resumed"]) == 1
    assert second["error"] is None


def test_two_processes_do_not_train_one_run(tmp_path: Path) -> None:
    with recorded(tmp_path, CONFIG):
        with pytest.raises(ValueError, match="another process is training this run"), recorded(tmp_path, CONFIG):
            pass
        assert read_status(tmp_path)["state"] == "running"  # untouched by the refused one


def test_the_record_of_an_end_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when the run fails, and still so when that is to be written."""

    def full(*names: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"), recorded(tmp_path, CONFIG):
        monkeypatch.setattr(os, "replace", full)
        full()
    monkeypatch.undo()
    status = read_status(tmp_path)
    assert status["state"] == "failed" and status["ended"] and "No space" in status["error"]


def test_nothing_is_written_for_a_refused_run(tmp_path: Path) -> None:
    with recorded(tmp_path, CONFIG):
        pass
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RefusedError, match=r"^beta=4\.0: "), recorded(tmp_path, CONFIG | {"beta": 4.0}):
        pass
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"state": 3, "config": {}}'])
def test_a_broken_status_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "status.json").write_text(content)
    with pytest.raises(ValueError, match=r"^/.*status\.json: "):
        read_status(tmp_path)


def test_going_on_may_change_length_place_and_device_only(tmp_path: Path) -> None:
    longer = CONFIG | {"epochs": 9, "data": DATA | {"root": "b"}, "trainer": {"devices": 2}}
    refuse_other_configuration(tmp_path, CONFIG, longer)
    with pytest.raises(ValueError, match=r"^beta=4\.0: the run in .* has beta=1\.0"):
        refuse_other_configuration(tmp_path, CONFIG, CONFIG | {"beta": 4.0})
    with pytest.raises(ValueError, match=r"^data\.limit=5: .* has data\.limit=None"):
        refuse_other_configuration(tmp_path, CONFIG, CONFIG | {"data": DATA | {"limit": 5}})
    with pytest.raises(ValueError, match=r"^epochs=2: the run in .* is set to 3 already"):
        refuse_other_configuration(tmp_path, CONFIG, CONFIG | {"epochs": 2})
    images = DATA | {"_target_": "vae.data.images.ImageFolder"}  # whose root is the data
    with pytest.raises(ValueError, match=r"^data\.root=b: .* has data\.root=a"):
        refuse_other_configuration(tmp_path, CONFIG | {"data": images}, CONFIG | {"data": images | {"root": "b"}})
