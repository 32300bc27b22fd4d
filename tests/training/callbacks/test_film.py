import shutil
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL.GifImagePlugin import GifImageFile
from trained_runs import assert_same_training, train_until

from vae.study import film as frames
from vae.training import run
from vae.training.callbacks.film import caption, is_due
from vae.training.films import write_mp4

GIF = Path("figures/latent/evolution.gif")


@pytest.fixture
def config(image_run):
    return partial(image_run, "epochs=3", "trainer.log_every_n_steps=2", "figures=none")


def kept(folder):
    found = {}
    for path in sorted((folder / "film").iterdir()):
        with np.load(path) as arrays:
            found[path.name] = {name: arrays[name] for name in arrays.files}
    return found


def assert_same_film(a, b):
    assert (a / GIF).read_bytes() == (b / GIF).read_bytes()
    first, second = kept(a), kept(b)
    assert first.keys() == second.keys()
    for name in first:
        for key, value in first[name].items():
            assert np.array_equal(value, second[name][key], equal_nan=True), f"{name} {key}"


def test_every_epoch_is_a_frame_and_training_stays_the_same(config, tmp_path):
    plain, filmed = tmp_path / "plain", tmp_path / "filmed"
    run.train_run(config(), plain)
    run.train_run(config("figures.film=true"), filmed)
    assert_same_training(plain, filmed)
    assert not (plain / "film").exists()
    assert list(kept(filmed)) == ["0000.npz", "0001.npz", "0002.npz", "0003.npz"]
    with GifImageFile(filmed / GIF) as gif:
        assert gif.n_frames == 4 and gif.info["loop"] == 0  # a frame that stays is one that lasts


@pytest.mark.parametrize(
    ("step", "latent_dim"),
    [(9, 2), *(pytest.param(step, 5, marks=pytest.mark.slow) for step in (3, 7, 9))],
    ids=["in an epoch", "in the first one of 5", "at the end of one of 5", "in one of 5"],
)
def test_a_resumed_run_has_the_film_of_an_uninterrupted_one(config, tmp_path, monkeypatch, step, latent_dim):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    settings = config("figures.film=true", f"latent_dim={latent_dim}")
    run.train_run(settings, whole)
    train_until(step, settings, stopped, monkeypatch)
    assert not (stopped / GIF).exists()
    run.train_run(settings, stopped)
    assert_same_film(whole, stopped)


def test_frames_of_epochs_that_the_run_has_not_reached_are_left_out(config, tmp_path):
    run.train_run(config("figures.film=true", "epochs=2"), tmp_path)
    shutil.copy(tmp_path / "film" / "0002.npz", tmp_path / "film" / "0009.npz")  # a former run of this folder's
    run.train_run(config("figures.film=true"), tmp_path)
    with GifImageFile(tmp_path / GIF) as gif:
        assert gif.n_frames == 4


def test_a_frame_that_fails_is_skipped(config, tmp_path, monkeypatch, caplog):
    original = frames.frame

    def fail(scene, dims):
        if scene.epoch == 2:
            raise RuntimeError("no film")
        return original(scene, dims)

    monkeypatch.setattr(frames, "frame", fail)
    run.train_run(config("figures.film=true"), tmp_path)
    assert list(kept(tmp_path)) == ["0000.npz", "0001.npz", "0003.npz"]
    assert "the film's frame of epoch 2 failed and is left out" in caplog.text
    with GifImageFile(tmp_path / GIF) as gif:
        assert gif.n_frames == 3


def test_a_long_run_has_a_short_film():
    due = [epoch for epoch in range(10_001) if is_due(epoch)]
    assert due[:51] == list(range(51)) and due[51:54] == [52, 54, 56] and len(due) < 300
    steps = np.diff([epoch for epoch in due if 100 <= epoch <= 200])
    assert set(steps.tolist()) == {4}


def test_a_caption_has_what_there_is():
    row = {f"{part}/{term}": value for part in ("train", "val") for term, value in
           (("recon", 140.04), ("kl", 6.55), ("total", 146.59))}  # fmt: skip
    sums = "146.6 = 140.0 + 6.5"
    assert caption(7, 30, row) == f"epoch \u20077   train {sums}   validation {sums} nats"
    assert caption(0, 3, {}) == "epoch 0   before training"
    recon = {"train/recon": 3.0, "val/recon": 4.0}
    assert caption(1, 3, recon) == "epoch 1   train recon 3.0   validation recon 4.0 nats"


def test_an_mp4_is_written_where_there_is_ffmpeg(tmp_path):
    frames = [np.full((5, 7, 3), 10 * i, np.uint8) for i in range(3)]
    program = tmp_path / "ffmpeg"
    with mpl.rc_context({"animation.ffmpeg_path": str(program)}):
        assert not write_mp4(tmp_path / "film.mp4", frames, 1.5) and not (tmp_path / "film.mp4").exists()
        program.write_text('#!/bin/sh\necho "$@" > arguments\nfor last; do :; done\ncat > "$last"\n'.replace(
            "arguments", str(tmp_path / "arguments")))  # fmt: skip
        program.chmod(0o755)
        assert write_mp4(tmp_path / "film.mp4", frames, 1.5)
        assert (tmp_path / "film.mp4").read_bytes() == b"".join(bytes([10 * i]) * (4 * 6 * 3) for i in range(3))
        assert "-s 6x4 -r 2.0 -i - -pix_fmt yuv420p" in (tmp_path / "arguments").read_text()
        program.write_text('#!/bin/sh\ncat > /dev/null\necho "no such codec" >&2\nexit 1\n')
        with pytest.raises(RuntimeError, match=r"^ffmpeg: no such codec$"):
            write_mp4(tmp_path / "film.mp4", frames, 1.5)
