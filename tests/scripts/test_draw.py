import os
import shutil

import draw
import numpy as np
import pytest
import torch
from PIL import Image

from vae.study import pictures


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}


def test_draws_every_picture_of_a_run(run, capsys):
    folder = run()
    draw.main([str(folder)])
    others = (*pictures.OF_LEVELS, *pictures.CODES_ALONE)
    assert names(folder / "figures") == {f"{tag}.png" for tag in pictures.TAGS if tag not in others}
    assert len(capsys.readouterr().out.splitlines()) == len(pictures.TAGS) - len(others)


def test_draws_what_is_asked_for_where_it_is_asked_for(run, tmp_path):
    checkpoint = run("latent_dim=3") / "checkpoints" / "last.ckpt"
    out = tmp_path / "elsewhere"
    draw.main([str(checkpoint), "manifold", "latent/clusters", "--out", str(out), "--grid", "square", "--dpi", "50"])
    assert names(out) == {"latent/manifold.png", "latent/clusters.png", "latent/clusters.gif"}
    assert Image.open(out / "latent" / "clusters.png").height < 300


def test_other_formats(run, tmp_path):
    draw.main([str(run()), "covariance", "--format", "pdf", "--out", str(tmp_path)])
    assert (tmp_path / "latent" / "covariance.pdf").read_bytes()[:4] == b"%PDF"


def test_curves_show_the_epochs_after_the_best(run, monkeypatch):
    seen = []
    monkeypatch.setitem(pictures.DRAW, "curves/losses", lambda scene: seen.append(scene) or pictures._losses(scene))
    draw.main([str(run()), "losses"])
    assert len(seen[0].history) == 3 and seen[0].note.endswith("epoch 2")


def test_the_grid_is_the_runs_own(run, tmp_path, monkeypatch):
    folder = run()
    for name, arguments in (("own", []), ("square", ["--grid", "square"])):
        draw.main([str(folder), "manifold", "--out", str(tmp_path / name), *arguments])
    own, square = (np.asarray(Image.open(tmp_path / name / "latent" / "manifold.png")) for name in ("own", "square"))
    assert np.array_equal(own, square)  # of an isotropic prior


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mainfold"], "error: picture=mainfold: must be one of manifold, clusters"),
        (["pairs"], "error: picture=latent/pairs: there is none of this run"),
        (["--data-root", "/nowhere"], "there is no folder /nowhere"),
    ],
)
def test_says_in_one_line_what_is_wrong(run, arguments, message):
    with pytest.raises(SystemExit) as stop:
        draw.main([str(run("latent_dim=1")), *arguments])
    assert message in str(stop.value) and "\n" not in str(stop.value)


def test_refuses_what_is_no_run(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*must be the folder of a run or a checkpoint file"):
        draw.main([str(tmp_path)])


def test_refuses_other_data_than_the_run_was_trained_on(run):
    with pytest.raises(SystemExit, match="the run was trained on mnist, but its configuration now gives images"):
        draw.main([str(run(data="mnist"))])


def test_refuses_other_classes_than_the_run_was_trained_on(run, image_folder, tmp_path):
    other = shutil.copytree(image_folder, tmp_path / "other")
    (other / "b").rename(other / "c")
    with pytest.raises(SystemExit, match=r"the run was trained on classes a, b, but its data now have a, c; say"):
        draw.main([str(run()), "--data-root", str(other)])


@pytest.mark.parametrize("target", ["os.system", "vae.data.images.ThreadPoolExecutor", "vae.data.idx.nothing"])
def test_builds_no_foreign_data_source(run, target):
    folder = run()
    path = folder / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["vae"]["config"]["data"]["_target_"] = target
    torch.save(checkpoint, path)
    with pytest.raises(SystemExit, match=f"asks for the data source {target}"):
        draw.main([str(folder)])


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        draw.main(["--help"])
    assert stop.value.code == 0 and "examples:" in capsys.readouterr().out


@pytest.mark.parametrize("dpi", ["0", "-1", "nan", "inf", "1e9", "fine"])
def test_pixels_can_be_seen_and_counted(dpi, capsys):
    with pytest.raises(SystemExit):
        draw.main(["run", "--dpi", dpi])
    assert f"--dpi: {dpi}: must be a number from 10 to 1200" in capsys.readouterr().err


def test_a_run_that_cannot_be_written_to_is_drawn_elsewhere(run, tmp_path, monkeypatch):
    folder = run()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SystemExit, match=r"^error: .*run: cannot be written to; name another place with --out$"):
        draw.main([str(folder), "losses"])
    draw.main([str(folder), "losses", "--out", str(tmp_path / "elsewhere")])
    assert names(tmp_path / "elsewhere") == {"curves/losses.png"}
