"""`trainer=ddp`: two processes on a CPU do what one does, and leave what one leaves."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vae
from vae.common.seeding import derive
from vae.data.loader import BatchLoader
from vae.evaluation.terms import mean_terms
from vae.model.build import build, build_model
from vae.training import run
from vae.training.assembly import refuse_to_share

ROOT = Path(__file__).parents[2]
TERMS = ("total", "recon", "kl")
CODES = ["posterior=codebook", "posterior.codes=20", "posterior.decay=0.8", "posterior.revive=0.5", "backbone=conv"]
CODES += [
    "prior=autoregressive",
    "prior.layers=1",
    "trainer.precision=64-true",
]  # rounding changes no neighbours
DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


@pytest.fixture
def small(image_folder: Path) -> list[str]:
    """49 training images: with batches of 8 or 3 the last one has one image, so that one process has none."""
    data = ["data=images", f"data.root={image_folder}", "data.channels=1", "data.batch_size=8"]
    return [*data, "epochs=3", "trainer.log_every_n_steps=2", "figures=none"]


def train(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=120)


def state(folder: Path) -> str:
    return json.loads((folder / "status.json").read_text())["state"]


def checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same_training(a: Path, b: Path) -> None:
    """The weights, random numbers and history are the same but for the order in which numbers were added."""
    one, other = checkpoint(a), checkpoint(b)
    for name, weight in one["state_dict"].items():
        assert torch.allclose(weight, other["state_dict"][name], rtol=1e-3, atol=1e-4), name
    assert torch.equal(one["callbacks"]["Randomness"]["cpu"], other["callbacks"]["Randomness"]["cpu"])
    assert one["global_step"] == other["global_step"]
    rows, other_rows = (content["callbacks"]["Scalars"]["history"] for content in (one, other))
    assert len(rows) == len(other_rows)
    for row, other_row in zip(rows, other_rows, strict=True):
        # In validation each process knows the use of its own codes.
        own = {"seconds", "val/perplexity", "val/codes_used"}
        assert {name: value for name, value in row.items() if name not in own} == pytest.approx(
            {name: value for name, value in other_row.items() if name not in own}, rel=1e-3
        )


@pytest.mark.parametrize(
    ("trainer", "count"),
    [
        ({"devices": 1, "accelerator": "auto"}, 1),
        ({"devices": [3], "accelerator": "gpu"}, 1),
        ({"devices": 4, "accelerator": "cpu"}, 4),
        ({"devices": [0, 2], "accelerator": "gpu"}, 2),
        ({"devices": "auto", "accelerator": "cpu"}, 1),
        ({"devices": "auto", "accelerator": "auto"}, 8),
        ({"devices": "auto", "accelerator": "gpu"}, 8),
    ],
)
def test_a_process_for_each_device(trainer: dict[str, Any], count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert run.process_count(trainer) == count


def test_auto_is_one_process_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert run.process_count({"devices": "auto", "accelerator": "auto"}) == 1


@pytest.mark.parametrize("devices", ["auto", "1", "8", "[0]", "[0,2]"])
def test_numbers_and_indices_of_devices(devices: str, compose: Callable[..., dict[str, Any]]) -> None:
    compose("trainer=ddp", f"trainer.devices={devices}")


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["objective=tc"], r"objective \(TC\)"),
        (["objective=mmd"], r"objective \(MMD\)"),
        (["objective=dip"], r"objective \(DIP\)"),
        (["objective=factor"], r"objective \(Factor\)"),
        (["objective=wasserstein"], r"objective \(Wasserstein\)"),
        (["objective.free_bits=0.1"], r"objective \(ELBO\)"),
        (["objective.capacity=5"], r"objective \(ELBO\)"),
        (["likelihood=gaussian", "likelihood.sigma=optimal"], r"likelihood \(Gaussian\)"),
    ],
)
def test_what_needs_a_whole_batch_is_not_shared(
    overrides: list[str], what: str, compose: Callable[..., dict[str, Any]]
) -> None:
    config = compose("data=strokes", *overrides)
    model, objective = build_model(config, (1, 28, 28), 10), build(config, "objective")
    objective.attach(model)
    with pytest.raises(
        ValueError, match=rf"^trainer\.devices=2: must be 1 with this {what}, which needs a whole batch"
    ):
        refuse_to_share(2, objective, model)


@pytest.mark.parametrize("devices", ["0", "-1", "1.5", "true", "all", "[]", "[0,0]", "[a]", "null"])
def test_other_devices_are_refused(devices: str, compose: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(
        ValueError, match=r"^trainer\.devices=.*: must be auto, an integer from 1 to 1024, or a list of diff"
    ):
        compose("trainer=ddp", f"trainer.devices={devices}")


def test_one_process_is_pointed_to_many(compose: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"^trainer\.devices=2: must be 1, or \[index\] .*; trainer=ddp takes several"):
        compose("trainer.devices=2")
    with pytest.raises(ValueError, match=r"^trainer\.strategy=fsdp: must be one of ddp, "):
        compose("trainer=ddp", "trainer.strategy=fsdp")


def test_one_device_needs_no_further_process(
    small: list[str], compose: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(run, "run_processes")
    for folder, trainer in (("a", "default"), ("b", "ddp")):
        settings = compose(*small, f"trainer={trainer}", "trainer.accelerator=cpu", "trainer.devices=1")
        run.train_run(settings, tmp_path / folder)
    a, b = (checkpoint(tmp_path / folder)["state_dict"] for folder in ("a", "b"))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_two_processes_leave_one_run(small: list[str], tmp_path: Path) -> None:
    done = train(*small, *DDP, "figures=default", "figures.only=[manifold,losses]", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = (tmp_path / "outputs" / "runs").glob("*/*")
    assert state(folder) == "completed"
    names = sorted(path.name for path in folder.iterdir())
    (events,) = [name for name in names if name.startswith("events.out.tfevents.")]
    others = [".hydra", ".lock", "checkpoints", "figures", "history.csv", "metrics.json", "projector"]
    others += ["projector_config.pbtxt", "report.html", "status.json", "train.log"]
    assert names == sorted([*others, events])
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]

    written = EventAccumulator(str(folder), size_guidance={"images": 0})
    written.Reload()
    assert [event.step for event in written.Images("latent/manifold")] == [7, 14, 21]
    assert [event.step for event in written.Scalars("val/total")] == [7, 14, 21]
    assert [event.step for event in written.Scalars("test/total")] == [0, 21]

    lines = done.stdout.splitlines()
    for start, count in (("data ", 1), ("processes 2, each", 1), ("epoch ", 3), ("test ", 1), ("look ", 1)):
        assert sum(line.startswith(start) for line in lines) == count
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["device"] == "2 × CPU (1 thread)"
    log = (folder / "train.log").read_text()
    assert log.count("`Trainer.fit` stopped") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "overrides"),
    [
        (
            2,
            [
                "prior=correlated",
                "posterior=tied",
                "data.binarize=dynamic",
                "data.flip=true",
                "scheduler=one_cycle",
                "ema=0.9",
            ],
        ),
        (3, ["data.batch_size=7", "data.val_fraction=0.3", "backbone=conv", "trainer.gradient_clip_val=0.5"]),
        (2, ["data.batch_size=1", "trainer.precision=64-true", "epochs=1"]),
        (2, CODES),
        (2, ["objective=vae_gan", "objective.critic.channels=[4,6]", "backbone=conv", "trainer.precision=64-true"]),
    ],
    ids=["2 of 8 images", "3 of 7", "2 of 1", "2 of codes", "2 with a critic"],
)
def test_processes_train_and_measure_like_one(
    devices: int, overrides: list[str], small: list[str], compose: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    alone = run.train_run(compose(*small, *overrides, "trainer.accelerator=cpu"), tmp_path / "alone")
    settings = compose(*small, *DDP, f"trainer.devices={devices}", *overrides)
    together = run.train_run(settings, tmp_path / "together")
    assert_same_training(tmp_path / "alone", tmp_path / "together")
    for part in ("train", "val", "test"):
        for term in TERMS:
            name = f"{part}/{term}"
            assert together[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-4), name
    assert together.keys() == alone.keys()

    # The checkpoint that they report, evaluated by this process: while training they have measured the same.
    source = build(settings, "data")
    data = source.load()
    model = vae.load(tmp_path / "together").vae.to(torch.float64 if "64" in settings["trainer"]["precision"] else None)
    dynamic = source.binarize == "dynamic"
    torch.manual_seed(derive(0, "val"))
    val = mean_terms(model, BatchLoader(data.val, 4 * source.batch_size, derive("val"), dynamic=dynamic))
    history = checkpoint(tmp_path / "together")["callbacks"]["Scalars"]["history"]
    (reported,) = (row for row in history if row["epoch"] == together["epoch"])
    assert settings["report"] == "last" or reported == min(history, key=lambda row: row["val/total"])
    for term in TERMS:
        assert reported[f"val/{term}"] == pytest.approx(val[term], rel=1e-5)
        assert together[f"val/{term}"] == pytest.approx(val[term], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "exit_status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_goes_on_also_with_another_number_of_processes(
    small: list[str], compose: Callable[..., dict[str, Any]], tmp_path: Path, signum: int, exit_status: int
) -> None:
    long = [*small, "data.batch_size=4", "epochs=12"]
    folder = tmp_path / "run"
    command = [sys.executable, str(ROOT / "train.py"), *long, *DDP, f"hydra.run.dir={folder}"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("epoch  3/12"):
                os.killpg(process.pid, signum)  # as a terminal does
        assert process.wait() == exit_status
    assert state(folder) == "interrupted"
    assert lines[-1].startswith("warning: interrupted; go on with: python train.py resume=")
    assert sum(line.startswith("epoch") for line in lines) < 12
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]

    run.train_run(compose(*long, "trainer.accelerator=cpu"), folder)
    run.train_run(compose(*long, "trainer.accelerator=cpu"), tmp_path / "whole")
    assert_same_training(folder, tmp_path / "whole")


FAILING = """
import os
from vae.model.priors import Isotropic

class Failing(Isotropic):
    steps = 0

    def forward(self, state=None):
        self.steps += 1
        if os.environ.get("LOCAL_RANK") == "1" and self.steps > 5:
            raise ValueError("prior: out of order")
        return super().forward()
"""


@pytest.mark.slow
def test_a_failing_process_ends_the_run(small: list[str], tmp_path: Path) -> None:
    (tmp_path / "mypkg.py").write_text(FAILING)
    own = ["prior._target_=mypkg.Failing", "hydra.run.dir=run"]
    done = train(*small, *DDP, *own, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "error: prior: out of order (traceback: run/train.log)\n"
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["error"]) == ("failed", "ValueError: prior: out of order")
    log = (tmp_path / "run" / "train.log").read_text()
    assert "in process 2 of 2:" in log and "mypkg.py" in log


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run(small: list[str], tmp_path: Path) -> None:
    done = train(*small, *DDP, "optimizer.lr=1e30", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the loss is no longer finite at step 2 (epoch 1): ")
    assert state(tmp_path / "run") == "failed"


@pytest.mark.slow
def test_the_jobs_of_a_sweep_have_their_processes_one_after_the_other(small: list[str], tmp_path: Path) -> None:
    done = train("-m", *small, *DDP, "epochs=1", "latent_dim=1,2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folders = [path.parent for path in sorted((tmp_path / "outputs" / "sweeps").rglob("status.json"))]
    assert [state(folder) for folder in folders] == ["completed", "completed"]
    for folder in folders:
        assert len(list(folder.glob("events.out.tfevents.*"))) == 1
