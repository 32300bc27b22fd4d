import os
import signal
from pathlib import Path

import pytest

from vae.config import fingerprint
from vae.record import Interrupted, read_status, recorded, refuse_other_configuration

CONFIG = {"epochs": 3, "beta": 1.0, "data": {"root": "a", "limit": None}, "trainer": {"devices": 1}}


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
    with pytest.raises(Interrupted) as stop, recorded(tmp_path, CONFIG):
        try:
            os.kill(os.getpid(), signum)
        finally:
            os.kill(os.getpid(), signum)  # an impatient second one must not disturb the tidying up
    assert stop.value.exit_status == exit_status
    assert read_status(tmp_path)["state"] == "interrupted"
    assert signal.getsignal(signum) is before


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


def test_going_on_may_change_length_place_and_device_only(tmp_path: Path) -> None:
    longer = CONFIG | {"epochs": 9, "data": {"root": "b", "limit": None}, "trainer": {"devices": 2}}
    refuse_other_configuration(tmp_path, CONFIG, longer)
    with pytest.raises(ValueError, match=r"^beta=4\.0: the run in .* has beta=1\.0"):
        refuse_other_configuration(tmp_path, CONFIG, CONFIG | {"beta": 4.0})
    with pytest.raises(ValueError, match=r"^data\.limit=5: .* has data\.limit=None"):
        refuse_other_configuration(tmp_path, CONFIG, CONFIG | {"data": {"root": "a", "limit": 5}})
