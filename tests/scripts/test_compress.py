"""What is compressed must be a run like any other, smaller, and as good as it can be."""

import json

import compress
import numpy as np
import pytest

import vae
from vae.entry import programs
from vae.settings.compose import composed
from vae.settings.config import check, plain
from vae.use.compression import bytes_in_8_bits


@pytest.fixture
def typed(monkeypatch):
    """What would be trained: the configuration and the folder that train.py is called for."""
    found = []

    def note(arguments):
        *overrides, folder = arguments
        cfg = composed(*overrides)
        check(cfg)
        found.append((plain(cfg), folder.removeprefix("hydra.run.dir=").strip("'")))
        return 3  # as if it had failed, so that nothing more is done

    monkeypatch.setattr(programs, "run_train_py", note)

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            compress.main([*map(str, arguments)])
        assert stop.value.code == 3
        return found.pop()

    return call


def test_a_size_is_pruned_to(run, typed, tmp_path):
    folder = run("backbone.hidden=[30,20]", "beta=2", "prior=correlated")
    parent = vae.load(folder)
    most = round(0.5 * bytes_in_8_bits(parent) / 1000, 1)
    config, out = typed(folder, "--to", f"{most}kB", "--epochs", 7, "--out", tmp_path / "small")
    first, second = config["backbone"]["hidden"]
    assert 1 <= first < 30 and 1 <= second <= 20 and out == str(tmp_path / "small")
    assert config["parent"] == str(folder)
    assert config["epochs"] == config["trainer"]["max_epochs"] == 7
    for group in ("data", "prior", "posterior", "likelihood", "objective"):
        assert config[group] == parent.config[group]


def test_sparsity_prunes_and_keeps_the_objective(run, typed):
    folder = run("backbone=conv", "backbone.channels=[6,8]", "objective=iwae")
    config, out = typed(folder, "--sparsity", 0.5)
    assert config["objective"] == vae.load(folder).config["objective"] and config["parent"] == str(folder)
    assert config["backbone"]["channels"] != [6, 8] and out.endswith("_run_sparsity=0.5")
    whole, _ = typed(folder, "--sparsity", 0)
    assert whole["backbone"] == vae.load(folder).config["backbone"]


def test_data_are_where_the_user_is_and_not_where_training_runs(run, typed, image_folder, monkeypatch):
    folder = run("backbone.hidden=[8,6]")
    monkeypatch.chdir(image_folder.parent)
    config, _ = typed(folder, "--sparsity", 0.5, "--data-root", image_folder.name)
    assert config["data"]["root"] == str(image_folder)


def test_a_student_begins_anew(run, typed):
    folder = run("backbone.hidden=[30,20]", "beta=2")
    config, out = typed(folder, "--student", "hidden=[9,8,7]")
    assert config["parent"] is None and config["objective"]["teacher"] == str(folder)
    assert config["objective"]["_target_"].endswith("Distillation") and config["objective"]["beta"] == 2
    assert config["backbone"]["hidden"] == [9, 8, 7] and out.endswith("_run_hidden=[9,8,7]")


@pytest.mark.parametrize(
    ("overrides", "arguments", "message"),
    [
        ([], ["--to", "much"], r"^error: --to much: must be a size such as 100kB, 0\.5MB or 65536B$"),
        ([], ["--to", "3kB"], r"^error: --to 3kB: must leave at least [\d,]+ bytes, which single units take$"),
        ([], ["--to", ""], r"^error: --to : must be a size such as"),
        (
            [],
            ["--sparsity", "0.9999"],
            r"^error: --sparsity 0\.9999: must leave at least [\d,]+ parameters, which single",
        ),
        (["objective=autoencoder"], ["--student", "hidden=[3]"], "^error: .*run: must have a posterior to learn from"),
        (["prior=flow"], ["--to", "100kB"], "^error: .*prior=Flow: must be Gaussian"),
        (
            ["backbone=resnet", "backbone.channels=[8,8]"],
            ["--sparsity", "0.5"],
            "^error: .*must have the backbone",
        ),
    ],
)
def test_errors_are_one_line(run, overrides, arguments, message):
    with pytest.raises(SystemExit, match=message) as stop:
        compress.main([str(run(*overrides)), *arguments])
    assert "\n" not in str(stop.value)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run on strokes whose bound is no longer far from its best."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    small = ("data=strokes", "data.limit=3000", "backbone.hidden=[64,32]", "figures=none", "scheduler=cosine")
    vae.train(*small, "epochs=30", "optimizer.lr=3e-3", folder=folder)
    return folder


def total(folder):
    return json.loads((folder / "metrics.json").read_text())["test/total"]


@pytest.mark.slow
def test_a_student_of_the_teachers_shape_reaches_its_total(teacher, tmp_path, capsys):
    compress.main([str(teacher), "--student", "hidden=[64,32]", "--epochs", "30", "--out", str(tmp_path / "student")])
    assert total(tmp_path / "student") < total(teacher) + 1
    status = json.loads((tmp_path / "student" / "status.json").read_text())
    assert status["state"] == "completed" and status["config"]["objective"]["teacher"] == str(teacher)
    printed = capsys.readouterr().out
    assert f"{total(teacher):.2f}" in printed and f"{total(tmp_path / 'student'):.2f}" in printed


@pytest.mark.slow
def test_a_pruned_run_is_smaller_near_its_parent_and_like_any_other(teacher, tmp_path, capsys):
    most = 0.5 * bytes_in_8_bits(vae.load(teacher)) / 1000
    compress.main([str(teacher), "--to", f"{most:.1f}kB", "--epochs", "20", "--out", str(tmp_path / "small")])
    small = vae.load(tmp_path / "small")
    assert bytes_in_8_bits(small) <= 1000 * most and total(tmp_path / "small") < total(teacher) + 5
    assert small.sample(3).shape == (3, 1, 28, 28) and np.isfinite(small.sample(3).numpy()).all()
    names = {path.name for path in (tmp_path / "small").iterdir()}
    assert {"status.json", "metrics.json", "checkpoints", "history.csv", "report.html", ".hydra"} <= names
    assert "--to c --int8" in capsys.readouterr().out
