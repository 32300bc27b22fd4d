"""The command line as its user types it: `python train.py …` in processes of their own."""

import csv
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gallery import screen
from hydra.core.hydra_config import HydraConfig
from moments import Moment

import vae
from vae.common import signals
from vae.entry import cli
from vae.entry.cli import replay_resumed
from vae.runs import record
from vae.runs.record import held, read_status
from vae.settings.compose import composed
from vae.settings.config import without_hydra

ROOT = Path(__file__).parents[2]


def train(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def small(image_folder: Path) -> list[str]:
    return ["data=images", f"data.root={image_folder}", "data.channels=1", "data.batch_size=8", "figures=none"]


def only_run(cwd: Path) -> Path:
    (folder,) = (cwd / "outputs" / "runs").glob("*/*")
    return folder


def test_a_run_is_recorded_from_start_to_end(tmp_path: Path, small: list[str]) -> None:
    done = train(*small, "epochs=2", "latent_dim=3", "prior=correlated", "figures.only=[clusters]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    folder = only_run(tmp_path)
    assert re.fullmatch(r"\d\d-\d\d-\d\d-\d{6}_.*latent_dim=3.*prior=correlated.*", folder.name)
    names = {path.name for path in folder.iterdir() if not path.name.startswith("events.out.tfevents.")}
    assert {".hydra", "train.log", "status.json", "metrics.json", "report.html", "checkpoints", "figures"} <= names
    assert (folder / "figures" / "latent" / "clusters.png").is_file()
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "completed"
    lines = done.stdout.splitlines()
    assert lines[0].startswith("data      images: 49 training, 5 validation, 6 test images of 1×10×12")
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert any(line.startswith("test ") for line in lines)
    assert "reading" not in done.stdout and " left" not in done.stdout  # bars are for terminals
    assert "tensorboard --logdir outputs" in lines[-1]
    log = (folder / "train.log").read_text()
    assert "`Trainer.fit` stopped" in log  # Lightning's lines are in the file …
    assert "Trainer.fit" not in done.stdout  # … and not on the terminal


@pytest.fixture(scope="module")
def on_terminal(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> tuple[Path, str]:
    """The folder of a run and all that it wrote on a terminal of 80 columns."""
    cwd = tmp_path_factory.mktemp("terminal")
    data = ["data=images", f"data.root={image_folder}", "data.channels=1", "data.batch_size=8"]
    rest = ["epochs=3", "figures.only=[clusters]", "evaluate=full", "evaluate.metrics=[geometry]"]
    command = [sys.executable, str(ROOT / "train.py"), *data, *rest, "hydra.run.dir=outputs/runs/2030-01-01/run"]
    status, written = screen.on_terminal(command, cwd, columns=80)
    assert status == 0
    return cwd / "outputs/runs/2030-01-01/run", written


def test_a_terminal_says_at_once_what_is_being_done(on_terminal: tuple[Path, str]) -> None:
    _, written = on_terminal
    assert written.startswith(f"vae {vae.__version__}: reading the configuration")
    shown = list(screen.screens(written))
    for doing in ("importing PyTorch", "reading the data", "drawing latent/clusters", "measuring test"):
        assert any(text.rpartition("\n")[2].startswith(doing) for text in shown) and doing not in shown[-1]
    assert shown[-1].startswith("data      images: 49 training, 5 validation, 6 test images of 1×10×12\n")
    assert not re.search(r"\x1b\[[\d;]*m", written)  # no colours


def test_a_terminal_has_a_line_an_epoch_above_the_bar(on_terminal: tuple[Path, str]) -> None:
    folder, written = on_terminal
    shown = [[" ".join(line.split()) for line in text.splitlines()] for text in screen.screens(written)]
    with (folder / "history.csv").open() as file:
        rows = [{key: f"{float(value):.2f}" for key, value in row.items()} for row in csv.DictReader(file)]
    for number, row in enumerate(rows, 1):
        train, val = (f"{row[f'{k}/total']} = {row[f'{k}/recon']} + {row[f'{k}/kl']}" for k in ("train", "val"))
        line = f"epoch {number}/3 train {train} val {val}"
        assert shown[-1].count(line) == 1
        below = [lines[-1] for lines in shown if lines[-2:-1] == [line]]
        assert number == 3 or any(text.startswith(f"epoch {number + 1}/3 ") and " left" in text for text in below)


def test_a_terminal_breaks_no_word_and_names_the_next_steps(on_terminal: tuple[Path, str]) -> None:
    *_, shown = screen.screens(on_terminal[1])  # of 120 columns
    assert max(map(len, shown.splitlines())) <= 80
    run = "outputs/runs/2030-01-01/run"
    for line in (
        f"pictures   {run}/figures/",
        f"explore    python scripts/explore.py {run}",
        "look       tensorboard --logdir outputs",
    ):
        assert line in shown.splitlines()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["latent_dim=0"], ["latent_dim=0", "integer from 1 to 1000000"]),
        (["prior=nonsense"], ["prior=nonsense", "correlated", "isotropic"]),
        (["--beta=4"], ["--beta=4", "write beta=4"]),
        (["prior=correlated", "prior.covariance=[[1,2],[2,1]]"], ["prior.covariance", "smallest eigenvalue is -1"]),
    ],
)
def test_a_wrong_value_is_one_line_and_leaves_nothing(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    done = train(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_what_fails_while_running_is_one_line_with_the_traceback_in_the_log(tmp_path: Path, small: list[str]) -> None:
    done = train(*small, "optimizer.lr=1e30", cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "no longer finite at step" in done.stderr
    folder = only_run(tmp_path)
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "failed"
    assert "no longer finite" in status["error"]
    assert "Traceback" in (folder / "train.log").read_text()
    assert "Traceback" not in done.stdout + done.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> tuple[Path, list[str]]:
    """An uninterrupted run and the arguments that made it."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    arguments = [
        "data=images",
        f"data.root={image_folder}",
        "data.channels=1",
        "data.batch_size=4",
        "epochs=12",
        "figures=none",
    ]
    done = train(*arguments, f"hydra.run.dir={folder}", cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return folder, arguments


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "state", "exit_status"),
    [
        (signal.SIGINT, "interrupted", 130),
        (signal.SIGTERM, "interrupted", 143),
        (signal.SIGKILL, "running", -9),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_end(
    tmp_path: Path, whole: tuple[Path, list[str]], signum: int, state: str, exit_status: int
) -> None:
    uninterrupted, arguments = whole
    folder = tmp_path / "a b" / "x=1,y=2"  # as awkward as names of runs get
    command = [sys.executable, str(ROOT / "train.py"), *arguments, f"hydra.run.dir='{folder}'"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch  3/12"):
                process.send_signal(signum)
        assert process.wait() == exit_status
    assert json.loads((folder / "status.json").read_text())["state"] == state

    resumed = train(f"resume={folder}", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on in epoch" in resumed.stdout
    first, second = (json.loads((run / "metrics.json").read_text()) for run in (uninterrupted, folder))
    assert first.keys() == second.keys()
    assert all(first[name] == second[name] for name in first if not name.startswith("seconds/"))
    first, second = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in (uninterrupted, folder)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("in_sweep", [False, True])
def test_a_job_stopped_at_any_moment_does_not_seem_to_run(
    in_sweep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one has begun, the next goes on with."""
    metrics = {"val/recon": 1.0, "test/recon": 1.0, "seconds/run": 1.0}
    monkeypatch.setattr("vae.training.run.train_run", lambda *_: metrics)
    slow = [(cli, "_keep"), (cli, "check"), (record, "_show"), (record, "_git_commit"), (record, "version")]
    for module, name in [*slow, (cli.gc, "collect"), (os, "fsync")]:
        monkeypatch.setattr(module, name, lambda *_, **__: None)
    cli.prepare()
    sweep = ["hydra.mode=MULTIRUN", "hydra.sweep.dir=a", "hydra.sweep.subdir=0", "hydra.job.num=0"]
    cfg = composed(*(sweep if in_sweep else ["hydra.run.dir=a/0"]), with_hydra=True)
    cfg.hydra.runtime.cwd = str(tmp_path)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
    own, states = without_hydra(cfg), []
    for number in itertools.count(1):
        moment = Moment(number, cli, record)
        try:
            with signals.listening(), signals.heeded(), moment:
                cli.train_job.__wrapped__(own)
        except signals.Interrupted:
            states.append(read_status(tmp_path / "a" / "0").get("state"))
            assert states[-1] != "running", moment.where
        else:
            break
    assert not moment.where and set(states) == {None, "interrupted", "completed"}


def test_a_completed_run_is_left_alone_unless_it_is_to_be_longer(tmp_path: Path, whole: tuple[Path, list[str]]) -> None:
    folder = shutil.copytree(whole[0], tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = train("resume=run", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert "run is complete: 12 epochs" in again.stdout
    other = train("resume=run", "beta=3", cwd=tmp_path)
    assert other.returncode != 0
    assert other.stderr.startswith("error: beta=3.0: the run in run has beta=1.0")
    shorter = train("resume=run", "epochs=5", cwd=tmp_path)
    assert shorter.returncode != 0
    assert shorter.stderr.startswith("error: epochs=5: ")
    with held(folder, "training this run"):
        refused = train("resume=run", "epochs=13", cwd=tmp_path)
    assert refused.returncode != 0
    assert refused.stderr == f"error: {folder}: another process is training this run\n"
    before[folder / ".lock"] = b""
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    longer = train("resume=run", "epochs=13", cwd=tmp_path)
    assert longer.returncode == 0, longer.stderr
    assert json.loads((folder / "metrics.json").read_text())["epochs"] == 13


def test_the_version_is_the_program_s(tmp_path: Path) -> None:
    done = train("beta=4", "--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"vae {vae.__version__}\n", "")


def test_help_reads_like_a_manual_and_lists_every_choice(tmp_path: Path) -> None:
    text = train("--help", cwd=tmp_path).stdout
    for word in ("USAGE", "KEYS", "GROUPS", "EXAMPLES", "latent_dim", "prior=correlated", "$(python train.py"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 80
    lists = re.sub(r"\n {15}", " ", text).splitlines()
    for group in (path.name for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name != "hydra"):
        (line,) = [line for line in lists if line.startswith(f"  {group} ")]
        assert all(path.stem in line for path in (ROOT / "conf" / group).glob("*.yaml"))


def test_the_configuration_is_shown_without_importing_torch(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "train.py"), "--cfg", "job", "prior=correlated"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "_target_: vae.model.priors.Correlated" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert not {"torch", "pytorch_lightning", "matplotlib", "numpy"} & imported


def test_resume_replays_the_runs_own_overrides(tmp_path: Path) -> None:
    status = {"state": "interrupted", "config": {}, "overrides": ["latent_dim=3", "epochs=5"]}
    (tmp_path / "status.json").write_text(json.dumps(status))
    replayed = replay_resumed(["--cfg", "job", f"resume={tmp_path}", "epochs=9"])
    assert replayed == ["--cfg", "job", "epochs=9", "latent_dim=3", f"hydra.run.dir='{tmp_path}'"]
    assert replay_resumed(["epochs=9"]) == ["epochs=9"]
    with pytest.raises(ValueError, match=r"^resume=.*nowhere: must be the folder of a run or a sweep"):
        replay_resumed([f"resume={tmp_path}/nowhere"])
    with pytest.raises(ValueError, match="must be the folder of a sweep with --multirun"):
        replay_resumed(["-m", f"resume={tmp_path}"])


def test_resume_replays_a_sweeps_own_overrides_and_launcher(tmp_path: Path) -> None:
    record = {
        "task": ["latent_dim=2,3", "beta=1,4"],
        "hydra": ["hydra/launcher=joblib", "hydra.sweep.dir=x", "hydra.mode=M"],
    }
    (tmp_path / "multirun.yaml").write_text(json.dumps({"hydra": {"overrides": record}}))
    kept = ["hydra/launcher=joblib", "latent_dim=2,3", f"hydra.sweep.dir='{tmp_path}'"]
    assert replay_resumed([f"resume={tmp_path}", "beta=1,4,9"]) == ["--multirun", "beta=1,4,9", *kept]
    assert replay_resumed(["-m", "beta=2", f"resume={tmp_path}"]) == ["--multirun", "beta=2", *kept]
