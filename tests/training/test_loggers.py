"""Loggers beside TensorBoard, with the real packages where they are installed."""

import csv
import json
import logging
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from noted import Noted
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trained_runs import train_until, without_seconds

from vae.runs.record import recorded
from vae.settings.config import flatten
from vae.training import run
from vae.training.loggers import MLflow

Compose = Callable[..., dict[str, Any]]
ROOT = Path(__file__).parents[2]
Values = list[tuple[str, int, float]]  # by tag and step


@pytest.fixture
def config(image_run: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compose:
    """The plain configuration of a short run, with a store of MLflow's for the test alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/outputs/mlflow.db")
    return partial(image_run, "epochs=3", "trainer.log_every_n_steps=2", "figures=none")


def train(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    with recorded(folder, config):
        return run.train_run(config, folder)


def train_in_parts(config: Compose, folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    """Interrupted in the second epoch, complete after it, and after the third one killed before that could be saved."""
    train_until(10, config(*overrides, "epochs=2"), folder, monkeypatch, train)
    train(config(*overrides, "epochs=2"), folder)
    last = folder / "checkpoints" / "last.ckpt"
    shutil.copy(last, folder / "saved")
    train(config(*overrides), folder)
    shutil.move(folder / "saved", last)
    train(config(*overrides), folder)


def in_tensorboard(folder: Path) -> Values:
    """Every scalar; those of the test images are also at step 0, as lines across their charts."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    found = [(tag, each.step, each.value) for tag in events.Tags()["scalars"] for each in events.Scalars(tag)]
    return sorted(each for each in found if not (each[0].startswith("test/") and each[1] == 0))


def in_csv(folder: Path) -> Values:
    with (folder / "csv" / "metrics.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return sorted((tag, int(row["step"]), row[tag]) for row in rows for tag in row if tag != "step")


def assert_same(found: Values, expected: Values) -> None:
    """The same values once each, but for seconds; single precision is TensorBoard's."""
    assert [each[:2] for each in found] == [each[:2] for each in expected]
    for (tag, step, value), (_, _, other) in zip(found, expected, strict=True):
        if tag != "train/seconds":
            assert value == pytest.approx(other, rel=1e-6), (tag, step)


PICTURES = ["figures=default", "figures.only=[manifold,losses]", "figures.every_n_epochs=2"]


# A file ---------------------------------------------------------------------------------------------------------------


def test_a_file_has_what_tensorboard_has(config: Compose, tmp_path: Path) -> None:
    settings = config("logger=csv")
    metrics = train(settings, tmp_path / "run")
    found = in_csv(tmp_path / "run")
    assert_same(found, in_tensorboard(tmp_path / "run"))
    assert {tag: value for tag, _, value in found if tag.startswith("test/")}.items() <= metrics.items()
    assert "latent_dim: 2" in (tmp_path / "run" / "csv" / "hparams.yaml").read_text()
    assert without_seconds(metrics) == without_seconds(train(config(), tmp_path / "other"))


def test_a_file_goes_on_where_the_run_does(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    train(config("logger=csv"), tmp_path / "whole")
    train_in_parts(config, tmp_path / "parts", monkeypatch, "logger=csv")
    tests = [each for each in in_csv(tmp_path / "parts") if each[0].startswith("test/")]
    assert {step for _, step, _ in tests} == {14, 21}  # the run of two epochs had an end, too
    parts = in_csv(tmp_path / "parts")
    assert_same([each for each in parts if each not in tests or each[1] == 21], in_csv(tmp_path / "whole"))
    assert not [str(each.message) for each in recwarn if "directory" in str(each.message)]


# MLflow ---------------------------------------------------------------------------------------------------------------


def in_mlflow(folder: Path) -> tuple[Any, Any, Values]:
    """The client, the only run of this name, and its values."""
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{folder.parent}/outputs/mlflow.db")
    experiment = client.get_experiment_by_name("vae").experiment_id
    [found] = [each for each in client.search_runs([experiment]) if each.info.run_name == folder.name]
    history = [each for tag in found.data.metrics for each in client.get_metric_history(found.info.run_id, tag)]
    return client, found, sorted((each.key, each.step, each.value) for each in history)


def test_mlflow_has_what_tensorboard_has(config: Compose, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    settings = config("logger=[csv,mlflow]", "logger.mlflow.tags={by: me}", *PICTURES)
    metrics = train(settings, tmp_path / "run")
    client, found, values = in_mlflow(tmp_path / "run")
    assert_same(values, in_tensorboard(tmp_path / "run"))
    assert_same(values, in_csv(tmp_path / "run"))
    assert found.data.metrics["test/total"] == metrics["test/total"]
    assert found.data.params == {key: str(value)[:250] for key, value in flatten(settings).items()}
    assert found.data.tags["by"] == "me" and found.info.status == "FINISHED"

    listed = client.list_artifacts(found.info.run_id, "images")
    pictures = sorted(Path(each.path).name.split("+")[:3] for each in listed if each.path.endswith(".png"))
    assert pictures == [["latent~manifold", "step", "14"], ["latent~manifold", "step", "21"]]
    kept = Path(client.download_artifacts(found.info.run_id, "configuration.json", str(tmp_path)))
    assert json.loads(kept.read_text()) == settings
    assert not Path("mlruns").exists()


def test_a_run_in_mlflow_goes_on(config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    ends: list[str] = []

    def end(self: Any, state: str) -> None:
        original(self, state)
        ends.append(in_mlflow(tmp_path / "parts")[1].info.status)

    original = MLflow.end
    monkeypatch.setattr(MLflow, "end", end)
    train_in_parts(config, tmp_path / "parts", monkeypatch, "logger=mlflow")
    assert ends == ["KILLED", "FINISHED", "FINISHED", "FINISHED"]
    assert_same(in_mlflow(tmp_path / "parts")[2], in_tensorboard(tmp_path / "parts"))


def test_a_failed_run_is_failed_in_mlflow(config: Compose, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    with pytest.raises(FloatingPointError):
        train(config("logger=mlflow", "optimizer.lr=1e30"), tmp_path / "run")
    assert in_mlflow(tmp_path / "run")[1].info.status == "FAILED"


@pytest.mark.slow
def test_jobs_side_by_side_make_one_store(tmp_path: Path, image_folder: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    small = ["data=images", f"data.root={image_folder}", "data.batch_size=8", "epochs=1", "figures=none"]
    jobs = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "logger=mlflow", "seed=0,1", *small]
    command = [sys.executable, str(ROOT / "train.py"), *jobs]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mlflow" not in done.stdout + done.stderr
    totals = {name: in_mlflow(tmp_path / name)[1].data.metrics["test/total"] for name in ("0_seed=0", "1_seed=1")}
    assert totals == {
        path.parent.name: json.loads(path.read_text())["test/total"] for path in tmp_path.glob("**/metrics.json")
    }
    assert sorted(path.name for path in tmp_path.glob("outputs/*")) == [
        *(".mlflow.db.lock", "mlflow-artifacts", "mlflow.db", "sweeps"),
    ]


# Weights & Biases -----------------------------------------------------------------------------------------------------


def records(path: Path) -> Iterator[Any]:
    """What a file of W&B holds: a log as LevelDB writes it, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 2**15 - at % 2**15 < 7:  # no room for a record's head in this block
            at += 2**15 - at % 2**15
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def in_wandb(folder: Path) -> tuple[list[Any], Values]:
    """The records of all parts of a run, which have one number, and its values."""
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    assert len({path.name for path in files}) == 1
    found = [record for path in files for record in records(path)]
    values = []
    for record in found:
        flat = [item for item in record.history.item if len(item.nested_key) < 2]  # of a picture there are several
        row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in flat}
        step = row.pop("trainer/global_step", None)
        values += [(tag, step, value) for tag, value in row.items() if isinstance(value, int | float) and tag[0] != "_"]
    return found, sorted(values)


def test_wandb_has_what_tensorboard_has(config: Compose, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wandb")
    settings = config("logger=wandb", "logger.wandb.tags=[a,b]", *PICTURES)
    train(settings, tmp_path / "run")
    found, values = in_wandb(tmp_path / "run")
    assert_same(values, in_tensorboard(tmp_path / "run"))
    [about] = [record.run for record in found if record.HasField("run")][-1:]
    assert (about.display_name, about.project, [*about.tags]) == ("run", "vae", ["a", "b"])
    assert [record.exit.exit_code for record in found if record.HasField("exit")] == [0]
    told = {item.key: json.loads(item.value_json) for record in found for item in record.config.update}
    assert settings.items() <= told.items()
    pictures = [path.name.split("_")[0] for path in (tmp_path / "run").glob("wandb/offline-run-*/files/media/**/*.png")]
    assert pictures == ["manifold", "manifold"]
    assert "wandb" not in "".join(capfd.readouterr())


def test_a_run_in_wandb_goes_on(config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    train_until(10, config("logger=wandb", "epochs=2"), tmp_path / "run", monkeypatch, train)
    train(config("logger=wandb", "epochs=2"), tmp_path / "run")
    found, values = in_wandb(tmp_path / "run")
    assert [record.exit.exit_code for record in found if record.HasField("exit")] == [1, 0]
    assert_same(values, in_tensorboard(tmp_path / "run"))


# Any ------------------------------------------------------------------------------------------------------------------


def test_a_logger_of_one_s_own_is_told_all(config: Compose, tmp_path: Path) -> None:
    settings = config("+logger.mine._target_=noted.Noted", *PICTURES)
    train(settings, tmp_path / "run")
    assert Noted.told[0] == settings and Noted.told[-1] == "success"
    values = [(tag, step, value) for step, row in Noted.told[1:-1] for tag, value in row.items()]
    assert_same(sorted(values), in_tensorboard(tmp_path / "run"))


def test_a_run_goes_on_without_a_logger_that_fails(
    config: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config("+logger.mine._target_=noted.Noted", "+logger.mine.fails_at=9", "logger=csv")
    metrics = train(settings, tmp_path / "run")
    [said] = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert said == "logger.mine failed and is left out from here on: nobody answers"
    assert max(step for step, _ in Noted.told[1:]) == 7
    assert_same(in_csv(tmp_path / "run"), in_tensorboard(tmp_path / "run"))
    assert without_seconds(metrics) == without_seconds(train(config(), tmp_path / "other"))


def test_a_logger_that_cannot_be_opened_is_refused_in_one_line(config: Compose, tmp_path: Path) -> None:
    (tmp_path / "run" / "csv").mkdir(parents=True)
    (tmp_path / "run" / "csv" / "hparams.yaml").mkdir()
    with pytest.raises(ValueError, match=r"^logger\.csv: cannot be opened: .*hparams\.yaml"):
        train(config("logger=csv"), tmp_path / "run")
    assert not list((tmp_path / "run").glob("events*")) and not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_may_go_on_with_other_loggers(config: Compose, tmp_path: Path) -> None:
    train(config("epochs=1"), tmp_path / "run")
    train(config("logger=csv"), tmp_path / "run")
    later = [each for each in in_tensorboard(tmp_path / "run") if each[1] > 7]
    assert_same(in_csv(tmp_path / "run"), later)
