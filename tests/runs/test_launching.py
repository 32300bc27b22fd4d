"""Sweeps on more than one process: each launcher in real sweeps, stopped ones too, and what they share."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.ray_launcher import needs
from vae.common.signals import Interrupted
from vae.entry.cli import prepare
from vae.runs import launching
from vae.runs.launching import EndTogether, OneGPUEach, jobs_at_once, stop_jobs, visible_gpus
from vae.settings.compose import CONF, composed
from vae.settings.errors import explain

ROOT = CONF.parent
PRESETS = sorted(path.stem for path in (CONF / "hydra" / "launcher").glob("*.yaml"))
PLUGINS = {  # what must be installed
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
    "ray": "ray",
    "optuna": "hydra_plugins.hydra_optuna_sweeper",
}

AT_ONCE = {
    "joblib": "hydra.launcher.n_jobs",
    "ray": "hydra.launcher.ray.init.num_cpus",
    "together": "hydra.launcher.at_once",
}

pytestmark = pytest.mark.filterwarnings("ignore:\\s*'hydra/.*' is validated against ConfigStore schema")


def of_hydra(*overrides: str) -> DictConfig:
    prepare()
    return composed(*overrides, with_hydra=True).hydra


# The presets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_makes_its_launcher(preset: str) -> None:
    pytest.importorskip(PLUGINS.get(preset, "greenlet"))
    hydra = of_hydra(f"hydra/launcher={preset}", "hydra.sweep.dir=somewhere")
    launcher = Plugins.instance()._instantiate(hydra.launcher)
    assert f"{type(launcher).__module__}.{type(launcher).__name__}" == hydra.launcher._target_
    expected = {"joblib": {"one_gpu_each", "end_together"}, "submitit_local": {"one_gpu_each"}}
    assert hydra.callbacks.keys() - of_hydra().callbacks.keys() == expected.get(preset, set())


@pytest.mark.parametrize("choice", [f"launcher={preset}" for preset in PRESETS if preset in PLUGINS])
def test_a_launcher_that_is_not_installed_is_one_line(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plugins.instance(), "class_name_to_class", {})
    hydra = of_hydra(f"hydra/{choice}")
    if choice == "launcher=ray":  # our own class is there; Ray is not
        monkeypatch.undo()
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Exception) as caught:
        Plugins.instance()._instantiate(hydra.launcher)
    assert re.fullmatch(r"\S+.* is not installed; it comes with: pip install .*\[sweep\]\"", explain(caught.value))


def test_the_search_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["sweeper"], "optuna.yaml", raising=False)
    with pytest.raises(Exception) as caught:
        composed("hydra/sweeper=optuna")
    assert re.fullmatch(r"\S+.* is not installed; it comes with: pip install .*\[search\]\"", explain(caught.value))


# GPUs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program of this name and content first in PATH, and asks nothing of the environment."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def write(script: str) -> None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return write


@pytest.mark.parametrize(
    ("script", "gpus"), [("echo 0; echo 1; echo 2", ["0", "1", "2"]), ("echo No devices were found; exit 6", [])]
)
def test_gpus_are_counted_without_torch(nvidia_smi: Callable[[str], None], script: str, gpus: list[str]) -> None:
    nvidia_smi(script)
    assert visible_gpus() == gpus
    assert jobs_at_once() == (len(gpus) or -1)


def test_without_nvidia_s_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []


@pytest.mark.parametrize(
    ("given", "gpus"),
    [("2,5", ["2", "5"]), ("GPU-1a, GPU-2b", ["GPU-1a", "GPU-2b"]), ("", []), ("-1", []), ("0,-1,1", ["0"])],
)
def test_gpus_that_the_user_hides_stay_hidden(monkeypatch: pytest.MonkeyPatch, given: str, gpus: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == gpus


def test_each_job_has_one_gpu_and_a_process_keeps_its_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    callback = pickle.loads(pickle.dumps(OneGPUEach()))
    seen = []
    for inherited in ("2,5,7", ""):  # joblib's processes, submitit's
        for job in range(4):
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", inherited)
            callback.on_job_start(OmegaConf.create({"hydra": {"job": {"num": job}}}))
            seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert seen == ["2", "5", "7", "2"] * 2
    callback.on_job_start(OmegaConf.create({"hydra": {"job": {"num": 1}}}))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"


def test_without_a_gpu_nothing_is_set(monkeypatch: pytest.MonkeyPatch, nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi("exit 9")
    OneGPUEach().on_job_start(OmegaConf.create({"hydra": {"job": {"num": 1}}}))
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(
    ("machine", "most", "free"),
    [
        ("MemTotal: 9 kB\nMemAvailable: 3 kB\n", None, 3072),
        ("MemAvailable: 3 kB\n", "2000", 1900),
        ("MemAvailable: 3 kB\n", "max", 3072),
        ("MemTotal: 9 kB\n", None, None),  # an old kernel's
        (None, None, None),
    ],
)
def test_free_memory_is_the_machine_s_or_the_container_s(
    machine: str | None, most: str | None, free: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(launching, "CGROUP", tmp_path)
    for name, text in (("meminfo", machine), ("memory.max", most), ("memory.current", "100")):
        if text is not None:
            (tmp_path / name).write_text(text)
    assert launching.free_memory() == free


@pytest.mark.parametrize(
    ("resources", "asked", "given"), [({"GPU": 4.0}, None, 1), ({}, None, 0), ({"GPU": 4.0}, 0.25, 0.25), ({}, 1, 1)]
)
def test_a_ray_job_needs_a_gpu_where_there_is_any(resources: dict, asked: float | None, given: float) -> None:
    remote = {"num_cpus": 1, "num_gpus": asked}
    assert needs(remote, {"CPU": 8.0} | resources) == {"num_cpus": 1, "num_gpus": given}


def test_an_interruption_travels_between_processes() -> None:
    arrived = pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM)))
    assert isinstance(arrived, Interrupted) and arrived.exit_status == 143


def test_the_main_process_neither_awaits_nor_follows_itself(tmp_path: Path) -> None:
    """Where joblib has one process only, it trains in the main one."""
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "status.json").write_text(json.dumps({"state": "running", "config": {}, "pid": os.getpid()}))
    stop_jobs(tmp_path, start=0.0, signum=signal.SIGTERM)
    threads = threading.active_count()
    EndTogether().on_job_start(OmegaConf.create())
    assert threading.active_count() == threads


# Real sweeps ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sweep(tmp_path: Path, image_folder: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a sweep of tiny runs into `tmp_path / "sweep"`, in a session of its own as a terminal would."""

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        small = ["data=images", f"data.root={image_folder}", "data.channels=1", "data.batch_size=8", "figures=none"]
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), "-m", *small, f"hydra.sweep.dir={tmp_path / 'sweep'}", *arguments],
            cwd=tmp_path, env=os.environ | environment, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return start


def statuses(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/status.json"))]


def still_there(session: int) -> list[str]:
    """The commands of a session's processes, after a moment to end."""
    for _ in range(100):
        alive = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if os.getsid(int(path.name)) == session and ") Z " not in (path / "stat").read_text():
                    alive.append((path / "cmdline").read_text())
            except OSError:
                pass  # ended in between
        if not alive:
            break
        time.sleep(0.1)
    return alive


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_a_launcher_completes_two_jobs(launcher: str, sweep: Callable, tmp_path: Path) -> None:
    pytest.importorskip(PLUGINS.get(launcher, "greenlet"))
    process = sweep("epochs=1", "seed=0,1", f"hydra/launcher={launcher}")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, ""), out
    assert [status["state"] for status in statuses(tmp_path / "sweep")] == ["completed"] * 2
    assert len({status["pid"] for status in statuses(tmp_path / "sweep")} - {process.pid}) >= 1
    assert all((path.parent / "metrics.json").is_file() for path in (tmp_path / "sweep").glob("*/status.json"))
    assert still_there(process.pid) == []


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "ray", "together"])
def test_a_job_that_fails_leaves_the_others_alone(launcher: str, sweep: Callable, tmp_path: Path) -> None:
    pytest.importorskip(PLUGINS.get(launcher, "greenlet"))
    process = sweep("epochs=1", "optimizer.lr=1e30,1e-3", f"hydra/launcher={launcher}")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1, out
    failed, completed = statuses(tmp_path / "sweep")
    assert (failed["state"], completed["state"]) == ("failed", "completed")
    assert "no longer finite" in failed["error"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "signum", "exit_status"),
    [
        ("joblib", "SIGINT", 130),
        ("joblib", "SIGTERM", 143),
        ("joblib", "SIGKILL", -9),
        ("ray", "SIGTERM", 143),
        ("together", "SIGINT", 130),
        ("together", "SIGTERM", 143),
    ],
)
def test_a_stopped_sweep_leaves_interrupted_jobs_and_no_process(
    launcher: str, signum: str, exit_status: int, sweep: Callable, tmp_path: Path
) -> None:
    pytest.importorskip(PLUGINS.get(launcher, "greenlet"))
    process = sweep(
        "epochs=100000", "seed=0,1,2", f"hydra/launcher={launcher}",
        f"{AT_ONCE[launcher]}=2",
    )  # fmt: skip
    for _ in range(600):
        if len(list((tmp_path / "sweep").glob("*/checkpoints/last.ckpt"))) == 2:
            break
        time.sleep(0.1)
    if signum == "SIGINT":  # a terminal tells all of its processes
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(getattr(signal, signum))
    assert process.wait(timeout=60) == exit_status
    assert still_there(process.pid) == []
    assert [status["state"] for status in statuses(tmp_path / "sweep")] == ["interrupted"] * 2  # the third never began
    process.communicate()


@pytest.mark.slow
def test_slurm_is_asked_for_what_the_preset_says(sweep: Callable, tmp_path: Path) -> None:
    """Without a cluster: an sbatch that runs the array here, and an srun that only runs its command."""
    pytest.importorskip(PLUGINS["slurm"])
    programs = {
        "sbatch": """
            for script; do :; done; cp "$script" "$(dirname "$0")/script"
            for task in 0 1; do
              SLURM_JOB_ID=7$task SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task SLURM_CPUS_PER_TASK=1 \\
                bash "$script" > /dev/null 2>&1 &
            done
            echo Submitted batch job 7""",
        "srun": """
            while [ "${1#--}" != "$1" ]; do [ "$1" = --unbuffered ] || shift; shift; done
            exec "$@" """,
        "sacct": "echo 'JobID|State|NodeList'; echo '7_0|RUNNING|here'; echo '7_1|RUNNING|here'",
    }
    (tmp_path / "bin").mkdir()
    for name, script in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    process = sweep(
        "epochs=1", "seed=0,1", "hydra/launcher=slurm",
        "hydra.launcher.partition=night", "hydra.launcher.timeout_min=30", "hydra.launcher.gpus_per_node=1",
        PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    )  # fmt: skip
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, ""), out
    assert [status["state"] for status in statuses(tmp_path / "sweep")] == ["completed"] * 2
    lines = (tmp_path / "bin" / "script").read_text().splitlines()
    asked = ["partition=night", "time=30", "gpus-per-node=1", "cpus-per-task=4", "mem=8GB", "signal=USR2@120"]
    assert {f"#SBATCH --{option}" for option in asked} <= set(lines)
    assert "export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK" in lines


@pytest.mark.slow
def test_a_search_minimises_the_validation_total(sweep: Callable, tmp_path: Path) -> None:
    pytest.importorskip(PLUGINS["optuna"])
    process = sweep("epochs=1", "hparams_search=optuna", "hydra.sweeper.n_trials=2")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "\x1b" not in out + err  # no colours in a pipe
    best = OmegaConf.load(tmp_path / "sweep" / "optimization_results.yaml")
    runs = [path.parent for path in (tmp_path / "sweep").glob("*/status.json")]
    totals = [json.loads((run / "metrics.json").read_text())["val/total"] for run in runs]
    assert len(runs) == 2 and best.best_value == pytest.approx(min(totals))
    assert best.best_params.keys() == {"latent_dim", "beta", "optimizer.lr"}
    assert [status["state"] for status in statuses(tmp_path / "sweep")] == ["completed"] * 2


@pytest.mark.slow
def test_what_cannot_be_trained_together_is_trained_all_the_same(sweep: Callable, tmp_path: Path) -> None:
    choices = ["seed=0,1", "objective=elbo,iwae,factor", "hydra/launcher=together", "epochs=1"]
    process = sweep(*choices)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, ""), out
    assert out.splitlines()[1:3] == [
        "together: 2 and then 2 jobs",
        "one by one: 2 jobs: objective=factor has a critic with steps of its own",
    ]
    assert [status["state"] for status in statuses(tmp_path / "sweep")] == ["completed"] * 6
    assert {status["pid"] for status in statuses(tmp_path / "sweep")} == {process.pid}
    again = sweep(*choices, "seed=0,1,2")
    out, err = again.communicate(timeout=120)
    assert (again.returncode, err) == (0, ""), out
    assert "9 jobs in" in out and "6 are done already" in out
    assert {status["pid"] for status in statuses(tmp_path / "sweep")} == {process.pid, again.pid}
