"""Sweeps as their user runs them: every job checked first, none done twice, one table at the end."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from vae.common.signals import Interrupted
from vae.runs import sweep
from vae.settings.compose import composed

ROOT = Path(__file__).parents[2]
VALUES = ["latent_dim=2,3", "beta=1,4"]


@pytest.fixture
def small(image_folder: Path) -> list[str]:
    return ["data=images", f"data.root={image_folder}", "data.channels=1", "data.batch_size=8", "figures=none"]


def train(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def results(folder: Path) -> list[dict[str, str]]:
    """The rows of a sweep's table, without times."""
    with (folder / "results.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def states(folder: Path) -> dict[str, str]:
    """The state of every job by its number."""
    files = folder.glob("*/status.json")
    return {path.parent.name.partition("_")[0]: json.loads(path.read_text())["state"] for path in files}


def plan(
    folder: Path, *combinations: list[str], subdir: str = "${hydra.job.num}_${hydra.job.override_dirname}"
) -> list[sweep.Job]:
    """Of an imaginary program with a key, epochs and a place of its data."""

    def compose(overrides: list[str]) -> DictConfig:
        values = dict(text.split("=") for text in overrides)
        hydra = {"job": {"num": None, "override_dirname": ",".join(overrides)}, "sweep": {"subdir": subdir}}
        return OmegaConf.create(
            config(int(values["x"]), int(values.get("epochs", 1)), values.get("root", "here")) | {"hydra": hydra}
        )

    return sweep.plan(folder, combinations, compose)


def config(x: int, epochs: int = 1, root: str = "here") -> dict[str, object]:
    return {"x": x, "epochs": epochs, "data": {"_target_": "vae.data.idx.IdxFiles", "root": root}}


def record(folder: Path, x: int, state: str, epochs: int = 1, **more: object) -> None:
    folder.mkdir(parents=True)
    status = {"folder": folder.name, "config": config(x, epochs), "state": state, **more}
    (folder / "status.json").write_text(json.dumps(status))


@pytest.fixture(autouse=True)
def anything_goes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "plan" in request.node.name:
        monkeypatch.setattr(sweep, "check", lambda cfg, typed: None)
        monkeypatch.setattr(sweep, "check_machine", lambda cfg, gpus: None)


def test_a_plan_names_the_jobs_and_leaves_out_what_is_twice(tmp_path: Path) -> None:
    jobs = plan(tmp_path, ["y=1", "x=1"], ["y=1", "x=2"], ["y=1", "x=01"])
    assert [job.folder for job in jobs] == ["0_x=1", "1_x=2"]
    assert [job.label for job in jobs] == ["x=1", "x=2"]  # y is the same in all
    assert jobs[1].launched == ["y=1", "x=2", "hydra.sweep.subdir='1_x=2'"]
    assert not any(job.done for job in jobs)


def test_a_plan_names_what_is_new_by_what_tells_it_from_what_is_there(tmp_path: Path) -> None:
    record(tmp_path / "0_x=1", 1, "completed", overrides=["y=1", "x=1"])
    (job,) = plan(tmp_path, ["y=1", "x=2"])
    assert (job.folder, job.label) == ("1_x=2", "")
    (job,) = plan(tmp_path, ["y=1", "x=2", "z=5"])
    assert job.folder == "1_x=2,z=5"


def test_a_plan_of_a_single_job_names_all_of_it_but_where_its_data_lie(tmp_path: Path) -> None:
    compose = partial(composed, with_hydra=True)
    (job,) = sweep.plan(tmp_path, [["latent_dim=3", "data=mnist", "data.root=/d"]], lambda given: compose(*given))
    assert job.folder == "0_data=mnist,latent_dim=3"
    jobs = sweep.plan(tmp_path, [["data=mnist", "data.root=/d", f"beta={b}"] for b in (1, 4)], lambda g: compose(*g))
    assert [job.folder for job in jobs] == ["0_beta=1", "1_beta=4"]


def test_a_planned_job_knows_by_which_keys_it_is_told_apart(tmp_path: Path) -> None:
    jobs = plan(tmp_path, ["y=1", "x=1"], ["y=1", "x=2"])
    with sweep.begun(tmp_path, jobs, OmegaConf.create()):
        assert sweep.told_apart_by(tmp_path / "1_x=2") == ["x"]
        assert sweep.told_apart_by(tmp_path / "1_x=2" / "elsewhere") == []


def test_a_value_typed_in_three_ways_is_one_job(tmp_path: Path) -> None:
    combinations = [["latent_dim=3", beta] for beta in ("beta=1", "beta=1.0", "beta='1'", "beta=2")]
    jobs = sweep.plan(tmp_path, combinations, lambda overrides: composed(*overrides, with_hydra=True))
    assert [job.overrides for job in jobs] == [combinations[0], combinations[3]]


def test_a_plan_finds_earlier_jobs_by_their_configuration(tmp_path: Path) -> None:
    record(tmp_path / "0_x=1", 1, "completed")
    record(tmp_path / "1_x=2", 2, "interrupted")
    record(tmp_path / "7_x=3", 3, "failed")
    jobs = plan(tmp_path, ["x=3"], ["x=9"], ["x=2"], ["x=1"])
    assert [(job.folder, job.done) for job in jobs] == [
        ("7_x=3", False), ("8_x=9", False), ("1_x=2", False), ("0_x=1", True),
    ]  # fmt: skip


def test_a_plan_takes_what_is_complete_for_done_wherever_the_data_lies_now(tmp_path: Path) -> None:
    record(tmp_path / "0_x=1", 1, "completed")
    (job,) = plan(tmp_path, ["x=1", "root=elsewhere"])
    assert (job.folder, job.done) == ("0_x=1", True)


def test_a_plan_trains_jobs_further_but_none_for_two(tmp_path: Path) -> None:
    record(tmp_path / "0_x=1", 1, "completed", epochs=2)
    (job,) = plan(tmp_path, ["x=1", "epochs=5"])
    assert (job.folder, job.done) == ("0_x=1", False)
    (job,) = plan(tmp_path, ["x=1", "epochs=1"])
    assert (job.folder, job.done) == ("1_epochs=1,x=1", False)
    jobs = plan(tmp_path, ["x=1", "epochs=5"], ["x=1", "epochs=2"])
    assert [(job.folder, job.done) for job in jobs] == [("1_epochs=5,x=1", False), ("0_x=1", True)]


def test_a_plan_refuses_a_folder_for_two_jobs_and_one_that_holds_another(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^hydra\.sweep\.subdir=same: must be another folder .*; x=1 is trained there$"
    ):
        plan(tmp_path, ["x=1"], ["x=2"], subdir="same")
    record(tmp_path / "same", 1, "completed")
    (job,) = plan(tmp_path, ["x=1"], subdir="same")
    assert job.done
    with pytest.raises(ValueError, match=r"^hydra\.sweep\.subdir=same: .*; a run with another configuration is there$"):
        plan(tmp_path, ["x=2"], subdir="same")


def test_a_plan_ignores_a_copy_of_a_job(tmp_path: Path) -> None:
    record(tmp_path / "0_x=1", 1, "completed")
    shutil.copytree(tmp_path / "0_x=1", tmp_path / "1-old")
    assert list(sweep.jobs_in(tmp_path)) == ["0_x=1"]
    assert [job.folder for job in plan(tmp_path, ["x=1"], ["x=2"])] == ["0_x=1", "1_x=2"]


def test_a_job_tells_its_number_and_the_time_that_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    now = datetime.now(UTC)
    jobs = [sweep.Job([f"x={x}"], f"x={x}", f"{x}_x={x}", done=x == 0) for x in range(6)]
    with sweep.begun(tmp_path, jobs, OmegaConf.create()):
        again = sweep.begun(tmp_path, [], OmegaConf.create())
        with pytest.raises(ValueError, match="another process is running this sweep"), again:
            pass
    content = json.loads((tmp_path / sweep.PLAN).read_text())
    (tmp_path / sweep.PLAN).write_text(json.dumps(content | {"started": now.timestamp() - 600}))
    sweep.announce(tmp_path, "1_x=1")
    record(tmp_path / "1_x=1", 1, "completed", ended=now.isoformat())
    record(tmp_path / "2_x=2", 2, "failed", ended=now.isoformat())
    record(tmp_path / "3_x=3", 3, "interrupted", ended=(now - timedelta(days=1)).isoformat())  # before this sweep
    sweep.announce(tmp_path, "3_x=3")
    assert caplog.messages[-2:] == ["job 2 of 6 · x=1", "job 4 of 6 · x=3 · about 15 min left"]


@pytest.mark.parametrize("raised", [Interrupted(signal.SIGTERM), TypeError("put away too early")])
def test_an_error_in_the_handling_of_an_interruption_is_an_interruption(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, raised: BaseException
) -> None:
    job = sweep.Job(["x=1"], "x=1", "0_x=1", done=False)
    with pytest.raises(Interrupted, match="SIGTERM"), sweep.begun(tmp_path, [job], OmegaConf.create()):
        try:
            raise Interrupted(signal.SIGTERM)
        except Interrupted:
            raise raised from None
    assert caplog.messages[-1:] == [f"the sweep is interrupted; go on with: {sweep.resume(tmp_path)}"]


def test_a_launcher_that_fails_before_the_first_job_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with sweep.begun(tmp_path, [sweep.Job(["x=1"], "x=1", "0_x=1", done=False)], OmegaConf.create()):
        raise OSError("no route to host")
    assert caplog.messages[-1:] == ["the launcher failed: OSError: no route to host"]
    with pytest.raises(SystemExit, match=r"^error: 1 of 1 jobs not completed; to try again: "):
        sweep.Results().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert not (tmp_path / "results.csv").exists()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert sweep.duration(seconds) == text


def test_a_wrong_value_in_one_job_is_refused_before_any_trains(tmp_path: Path, small: list[str]) -> None:
    done = train("-m", *small, "latent_dim=2,0", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "error: latent_dim=0: must be an integer from 1 to 1000000\n"
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_a_sweep_goes_on_past_a_failure_and_can_be_corrected(tmp_path: Path, small: list[str]) -> None:
    done = train("-m", *small, "epochs=1", "latent_dim=2,3", "optimizer.lr=1e30,1e-3", cwd=tmp_path)
    assert done.returncode == 1
    (folder,) = (tmp_path / "outputs" / "sweeps").glob("*/*")
    assert states(folder) == {"0": "failed", "1": "completed", "2": "failed", "3": "completed"}
    lines = done.stdout.splitlines()
    assert lines[0] == f"4 jobs in {folder.relative_to(tmp_path)}"
    assert lines[1] == "job 1 of 4 · latent_dim=2 optimizer.lr=1e+30"
    assert lines[2].startswith("error: the loss is no longer finite at step ")
    assert lines[3].startswith("job 2 of 4 · latent_dim=2 optimizer.lr=0.001 · about ")
    assert lines[4].startswith("  test ")
    assert not any(line.startswith("epoch") for line in lines)  # these are in the jobs' own logs
    assert "epoch 1/1" in next(folder.glob("1_*/train.log")).read_text()
    assert done.stderr.startswith("error: 2 of 4 jobs not completed") and len(done.stderr.splitlines()) == 1

    rows = results(folder)
    assert [row["status"] for row in rows] == ["completed", "completed", "failed", "failed"]
    assert float(rows[0]["total"]) <= float(rows[1]["total"])
    assert all("no longer finite" in row["error"] for row in rows[2:])
    assert (folder / "results.md").read_text().count("| completed") == 2

    metrics = {path: path.stat().st_mtime_ns for path in folder.glob("*/metrics.json")}
    again = train(f"resume={folder}", "optimizer.lr=1e-3,1e-4", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "4 jobs in" in again.stdout and "2 are done already" in again.stdout
    assert states(folder) == {"0": "failed", "1": "completed", "2": "failed"} | dict.fromkeys("345", "completed")
    assert all(path.stat().st_mtime_ns == before for path, before in metrics.items())


@pytest.mark.slow
def test_a_job_of_a_sweep_is_the_run_that_it_is_alone(tmp_path: Path, small: list[str]) -> None:
    assert train("-m", *small, "epochs=2", "beta=4,1", "seed=1", "hydra.sweep.dir=many", cwd=tmp_path).returncode == 0
    assert train(*small, "epochs=2", "seed=1", "hydra.run.dir=one", cwd=tmp_path).returncode == 0
    (job,) = (tmp_path / "many").glob("1_*")
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (job, tmp_path / "one"))
    assert first.keys() == second.keys()
    assert all(first[name] == second[name] for name in first if not name.startswith("seconds/"))


@pytest.mark.slow
def test_a_sweep_killed_again_and_again_ends_like_an_undisturbed_one(tmp_path: Path, small: list[str]) -> None:
    arguments = ["-m", *small, "epochs=12", *VALUES]
    assert train(*arguments, "hydra.sweep.dir=whole", cwd=tmp_path).returncode == 0
    chance = random.Random(0)
    command = [*arguments, "hydra.sweep.dir=parts"]
    finished: dict[Path, int] = {}
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *command], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("job "):
                    time.sleep(chance.uniform(0, 2.5))
                    process.send_signal(signal.SIGKILL)
                    break
        now = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*/metrics.json")}
        assert finished.items() <= now.items()  # no finished job ran again
        finished = now
        command = ["resume=parts"]
    done = train("resume=parts", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_and_says_how_to_go_on(tmp_path: Path, small: list[str]) -> None:
    command = [sys.executable, str(ROOT / "train.py"), "-m", *small, "epochs=300", "beta=1,4", "hydra.sweep.dir=s"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("job 1"):
                while not list((tmp_path / "s").glob("0_*/checkpoints/last.ckpt")):
                    time.sleep(0.1)
                process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    assert lines[-1] == "warning: the sweep is interrupted; go on with: python train.py resume=s\n"
    assert states(tmp_path / "s") == {"0": "interrupted"}
    assert results(tmp_path / "s")[0]["status"] == "interrupted"


@pytest.mark.slow
def test_many_jobs_in_one_process_leave_nothing_behind(tmp_path: Path, small: list[str]) -> None:
    script = tmp_path / "watched.py"
    script.write_text(
        """
import gc, logging, runpy, sys, threading
from pathlib import Path
from matplotlib.figure import Figure
from vae.training import run

def watched(*arguments, original=run.train_run):
    value = original(*arguments)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    figures = sum(isinstance(each, Figure) for each in gc.get_objects())
    handlers = len(logging.getLogger().handlers) + len(logging._handlerList)
    print("AFTER", pages * 4096 / 2**20, threading.active_count(), handlers, figures, len(gc.callbacks), flush=True)
    return value

run.train_run = watched
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""
    )
    wide = ["backbone.hidden=[2000,512]", "figures=default", "figures.only=[samples]"]
    arguments = ["-m", *small, "epochs=1", *wide, "seed=range(25)"]
    done = subprocess.run(
        [sys.executable, str(script), str(ROOT / "train.py"), *arguments],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    after = [list(map(float, line.split()[1:])) for line in done.stdout.splitlines() if line.startswith("AFTER")]
    assert len(after) == 25
    assert all(counts[1:] == after[1][1:] for counts in after[1:])  # threads, handlers, figures, callbacks
    memory = [counts[0] for counts in after]  # MiB
    assert memory[-1] - memory[5] < 19  # a finished model with its optimiser would be 24 a job
