"""What is kept so that it need not be made again."""

import logging
import multiprocessing
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from vae.data import cache
from vae.data.cache import cached, held

made: list[str] = []


@pytest.fixture(autouse=True)
def nothing_made() -> None:
    made.clear()


def make() -> str:
    made.append("new")
    return "new"


def get(path: Path) -> str:
    return cached(path, Path.read_text, make, Path.write_text)


def test_it_is_made_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert [get(tmp_path / "folder" / "a.txt") for _ in range(3)] == ["new"] * 3
    assert made == ["new"] and not caplog.records
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {"a.txt", "a.lock"}


def test_what_cannot_be_read_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\n")
    assert get(tmp_path / "a.txt") == get(tmp_path / "a.txt") == "new" and made == ["new"]
    [record] = caplog.records
    assert "a.txt cannot be read and is made again" in record.getMessage()


def in_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path.write_text("no folder")
    return path / "a.txt"


def without_a_home(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # whom no list of users has
    return Path("~/a.txt")


def on_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    return path / "a.txt"


def at_a_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (path / "a.txt").mkdir(parents=True)
    return path / "a.txt"


PLACES = [in_a_file, without_a_home, on_a_full_disk, at_a_folder]


@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_kept_is_used_all_the_same(
    tmp_path: Path, place: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = place(tmp_path / "x", monkeypatch)
    assert get(path) == "new" and made == ["new"]
    last = caplog.records[-1]
    assert last.levelno == logging.WARNING and "\n" not in last.getMessage()
    assert last.getMessage().startswith(f"{path} cannot be kept, so it is made anew each time: ")
    assert not list(tmp_path.rglob(".*"))


def test_another_program_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache, "WAIT", 0.1)
    with held(tmp_path / "a.lock"):
        assert get(tmp_path / "a.txt") == "new"
    assert "a.txt cannot be kept" in caplog.text and not (tmp_path / "a.txt").exists()


def test_what_goes_wrong_in_the_making_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    def fail() -> str:
        raise OSError("no images")

    with pytest.raises(OSError, match="no images"):
        cached(tmp_path / "a.txt", Path.read_text, fail, Path.write_text)


def slowly(folder: Path) -> str:
    time.sleep(0.3)
    (folder / f"made by {os.getpid()}").touch()
    return "new"


def get_in_a_process(folder: Path, barrier: Any, results: Any) -> None:
    barrier.wait()
    results.put(cached(folder / "a.txt", Path.read_text, partial(slowly, folder), Path.write_text))


def test_processes_that_start_together_make_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vae.data.cache"])
    barrier, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=get_in_a_process, args=(tmp_path, barrier, results)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == ["new"] * 3
    for process in processes:
        process.join(timeout=30)
        assert process.exitcode == 0
    assert len(list(tmp_path.glob("made by *"))) == 1
