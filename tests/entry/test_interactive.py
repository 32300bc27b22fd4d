"""From Python: the runs that `python train.py` makes, and their pictures."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import vae
from vae.common import logs
from vae.common.types import WEIGHTS
from vae.data.base import DataError
from vae.figures.style import rasterise
from vae.model import checkpoints
from vae.training import run


@pytest.fixture
def small(image_folder):
    """Overrides of a run that takes a second."""
    return ["data=images", f"data.root={image_folder}", "data.channels=1", "data.batch_size=8", "figures=none"]


def test_it_trains_what_the_command_line_would(compose, small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    overrides = [*small, "epochs=2", "latent_dim=3", "prior=correlated"]
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.to_terminal()  # as any program does
    model = vae.train(*overrides, folder="runs of a day/x=1,y=2")
    assert (root.handlers, root.level) == before
    monkeypatch.setattr(logging.getLogger("vae"), "handlers", [])
    assert isinstance(model, vae.Trained) and model.latent_dim == 3
    folder = Path("runs of a day/x=1,y=2")
    metrics = json.loads((folder / "metrics.json").read_text())
    expected = run.train_run(compose(*overrides), tmp_path / "plain")
    for name, value in expected.items():
        assert name.startswith("seconds/") or metrics[name] == value, name
    for name, weights in vae.load(tmp_path / "plain").vae.state_dict().items():
        assert torch.equal(model.vae.state_dict()[name], weights)

    said = capsys.readouterr()
    assert said.err == ""
    lines = said.out.splitlines()
    assert (
        lines[0].startswith("data      images: 49 training") and sum(line.startswith("epoch ") for line in lines) == 2
    )
    assert not any("Trainer.fit" in line for line in lines)
    assert "`Trainer.fit` stopped" in (folder / "train.log").read_text()
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "completed" and status["choices"]["prior"] == "correlated"
    assert (folder / ".hydra" / "overrides.yaml").read_text().splitlines() == [f"- {text}" for text in overrides]


def test_a_complete_run_is_loaded_another_refused_and_a_longer_one_goes_on(small, tmp_path, capsys):
    first = vae.train(*small, "epochs=1", folder=tmp_path)
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = vae.train(*small, "epochs=1", folder=tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == written
    assert torch.equal(again.sample(5), first.sample(5))
    with pytest.raises(ValueError, match=r"^beta=3\.0: the run in .* has beta=1\.0; going on may only change epochs"):
        vae.train(*small, "epochs=1", "beta=3", folder=tmp_path)
    capsys.readouterr()
    vae.train(*small, "epochs=2", folder=tmp_path)
    assert "going on in epoch 2 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["latent_dim=0"], "^latent_dim=0: must be an integer from 1 to 1000000$"),
        (["prior=nonsense"], "^prior=nonsense: no such choice; choose one of autoregressive, "),
        (["beta=1,4"], "beta=1,4"),
        (["latent_dims=3"], "latent_dims"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_and_leaves_nothing(small, tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        vae.train(*small, *overrides, folder=tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_what_fails_while_training_says_where_the_traceback_is(small, tmp_path):
    with pytest.raises(ValueError, match=r"no longer finite at step .* \(traceback: .*train\.log\)$"):
        vae.train(*small, "optimizer.lr=1e30", folder=tmp_path)


def test_a_scene_draws_the_runs_best_weights_and_all_its_epochs(small, tmp_path):
    model = vae.train(*small, "epochs=3", "figures.grid=quantile", folder=tmp_path)
    scene = vae.scene(tmp_path)
    assert len(scene.history) == 3 and scene.grid == "quantile"
    assert vae.scene(tmp_path / "checkpoints" / "last.ckpt", "square").grid == "square"
    x = scene.test_images([0, 1])
    assert torch.equal(model.encode(x).mean, scene.vae.encode(x).mean)
    assert np.array_equal(rasterise(scene.draw("manifold")), rasterise(scene.draw("latent/manifold")))


@pytest.mark.parametrize("conditional", ["false", "true"])
def test_weights_without_their_data_are_seen_by_what_the_model_draws(
    small, image_folder, tmp_path, caplog, conditional
):
    shutil.copytree(image_folder, tmp_path / "photos")
    vae.train(*small, f"data.root={tmp_path / 'photos'}", f"conditional={conditional}", folder=tmp_path / "run")
    checkpoint = checkpoints.read(tmp_path / "run/checkpoints/best.ckpt")
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    for name in (WEIGHTS, "other.ckpt"):
        checkpoints.write_weights(checkpoint, tmp_path / name)
    scene = vae.scene(tmp_path / WEIGHTS)
    assert "there are no test images, so the model draws some" in caplog.text
    drawn = vae.load(tmp_path / WEIGHTS).sample(1, labels=0 if conditional == "true" else None)
    assert torch.allclose(scene.test_images([0]), drawn, atol=1 / 255)
    assert len(scene.classes) == (2 if conditional == "true" else 0)
    assert scene.note.startswith("drawn by a model of ") and scene.draw("clusters")
    for path, root in ((tmp_path / WEIGHTS, str(tmp_path / "missing")), (tmp_path / "other.ckpt", None)):
        with pytest.raises(DataError, match=r"photos|missing"):
            vae.scene(path, data_root=root)
