"""The programs that use a trained model must do what the library does, and say in one line what they cannot do."""

import csv
import os
from pathlib import Path

import encode
import numpy as np
import pytest
import reconstruct
import sample
import score
import torch
from PIL import Image

import vae
from vae.data import stream
from vae.entry import programs
from vae.figures.images import reconstructions


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(stream, "MOST", 7)
    monkeypatch.setattr("vae.use.trained.BLOCK", 7)


def pixels(images):
    return (255 * images).round().byte().squeeze(1).numpy()


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_samples_in_an_npz_are_the_librarys(run, tmp_path):
    out = tmp_path / "new" / "samples.npz"
    sample.main([str(run()), "--n", "20", "--seed", "3", "--out", str(out)])
    with np.load(out) as found:
        assert list(found) == ["images"]
        assert np.array_equal(found["images"], pixels(vae.load(tmp_path / "run").sample(20, seed=3)))


def test_samples_of_colours(run, tmp_path):
    sample.main([str(run("data.channels=3")), "--n", "3", "--out", str(tmp_path / "a.npz")])
    sample.main([str(tmp_path / "run"), "--n", "3", "--out", str(tmp_path / "a")])
    images = np.load(tmp_path / "a.npz")["images"]
    assert images.shape == (3, 10, 12, 3)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a" / "00002.png")), images[2])


def test_samples_of_a_conditional_model_are_of_all_classes_or_of_one(run, tmp_path):
    folder = str(run("conditional=true"))
    model = vae.load(folder)
    sample.main([folder, "--n", "9", "--out", str(tmp_path / "a.npz")])
    sample.main([folder, "--n", "9", "--class", "b", "--out", str(tmp_path / "b")])
    with np.load(tmp_path / "a.npz") as found:
        assert found["labels"].tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0] and found["classes"].tolist() == ["a", "b"]
        assert np.array_equal(found["images"], pixels(model.sample(9, labels=found["labels"])))
    rows = table(tmp_path / "b" / "labels.csv")
    assert [row["file"] for row in rows] == [f"0000{i}.png" for i in range(9)] and {row["class"] for row in rows} == {
        "b"
    }
    images = np.stack([np.asarray(Image.open(tmp_path / "b" / row["file"])) for row in rows])
    assert np.array_equal(images, pixels(model.sample(9, labels="b")))


def test_codes_are_the_librarys(run, tmp_path, image_folder):
    encode.main([str(run()), str(image_folder), "--out", str(tmp_path / "codes.csv")])
    rows = table(tmp_path / "codes.csv")
    assert list(rows[0]) == ["file", "mean_0", "mean_1", "std_0", "std_1"] and len(rows) == 60
    q = vae.load(tmp_path / "run").encode([Image.open(image_folder / row["file"]) for row in rows])
    for name, values in (("mean", q.mean), ("std", q.stddev)):
        found = torch.tensor([[float(row[f"{name}_{i}"]) for i in range(2)] for row in rows])
        assert torch.allclose(found, values, atol=1e-5)


def test_folders_are_the_classes_of_a_conditional_model(run, tmp_path, image_folder):
    folder = str(run("conditional=true"))
    encode.main([folder, str(image_folder), "--out", str(tmp_path / "own.csv")])
    encode.main([folder, str(image_folder), "--class", "a", "--out", str(tmp_path / "all.csv")])
    own, as_a = table(tmp_path / "own.csv"), table(tmp_path / "all.csv")
    assert all((x == y) == x["file"].startswith("a/") for x, y in zip(own, as_a, strict=True))


def test_images_are_thresholded_as_the_runs_were(run, tmp_path, image_folder):
    encode.main([str(run("data.binarize=threshold")), str(image_folder), "--out", str(tmp_path / "codes.csv")])
    row = table(tmp_path / "codes.csv")[0]
    binary = np.asarray(Image.open(image_folder / row["file"])) >= 128
    expected = vae.load(tmp_path / "run").encode(binary).mean[0]
    assert [float(row["mean_0"]), float(row["mean_1"])] == pytest.approx(expected.tolist(), abs=1e-5)


def test_reconstructions_keep_their_names(run, tmp_path, image_folder):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("x.png", "x.bmp"):
        Image.open(image_folder / "a" / "0.png").save(photos / name)
    reconstruct.main([str(run()), str(photos), "--out", str(tmp_path / "out")])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x.bmp.png", "x.png"]
    expected = pixels(vae.load(tmp_path / "run").reconstruct(Image.open(photos / "x.png")))[0]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "x.png")), expected)


def test_a_sheet_shows_the_first_images(run, tmp_path, image_folder, monkeypatch):
    seen = []
    monkeypatch.setattr("vae.figures.images.reconstructions", lambda *given, **more: seen.append(given))
    monkeypatch.setattr(programs, "save_picture", lambda path, figure: seen.append(path))
    monkeypatch.setattr(stream, "MOST", 30)
    reconstruct.main([str(run()), str(image_folder), "--out", str(tmp_path / "sheet.png")])
    (originals, decoded), path = seen
    assert path == tmp_path / "sheet.png" and originals.shape == decoded.shape == (12, 1, 10, 12)
    assert torch.allclose(vae.load(tmp_path / "run").reconstruct(originals), decoded)


def test_the_worst_images_come_first(run, tmp_path, image_folder, capsys, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(30):
        Image.new("L", (12, 10), 255 * (i == 17)).save(photos / f"{i:02d}.png")
    folder = str(run())
    model = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    model["state_dict"]["vae.backbone.decoder.4.bias"] -= 3  # a model of dark images
    torch.save(model, tmp_path / "run" / "checkpoints" / "best.ckpt")
    seen = []
    monkeypatch.setattr("vae.figures.images.reconstructions", lambda *a: seen.append(a) or reconstructions(*a))
    score.main([folder, str(photos), "--out", str(tmp_path / "scores")])
    seen.append(tmp_path / "scores" / "worst.png")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "−ELBO of 30 images; the higher, the more unlike images"
    assert lines[4].split()[0] == "1" and lines[4].endswith("17.png") and lines[-1].endswith("scores")
    rows = table(tmp_path / "scores" / "scores.csv")
    values = [float(row["nats"]) for row in rows]
    assert rows[0]["image"] == "17.png" and values == sorted(values, reverse=True) and len(rows) == 30
    one = vae.score(vae.load(folder), Image.open(photos / "17.png"), samples=500).item()
    assert values[0] == pytest.approx(one, rel=0.02)
    (_, _, captions, note), path = seen
    assert captions[0] == f"17.png\n{values[0]:.0f}" and [name.split("\n")[-1] for name in captions] == [
        f"{value:.0f}" for value in values[:12]
    ]
    assert note == "images · the highest −ELBO of 30 images, in nats" and path.name == "worst.png"
    assert Image.open(path).width >= 1200


def test_long_names_of_files_are_cut_into_lines():
    assert score._short("photos/17.png") == "17.png"
    assert score._short("a" * 7 + "bcd.png") == "a" * 7 + "\nbcd.png"
    lines = score._short("x" * 40 + "20210304_1234.png").split("\n")
    assert "".join(lines).endswith("20210304_1234.png") and lines[0][0] == "…" and max(map(len, lines)) <= 7
    assert len(lines) == 3


def test_one_image_is_no_plural(run, tmp_path, capsys):
    Image.new("L", (8, 8)).save(tmp_path / "one.png")
    score.main([str(run()), str(tmp_path / "one.png")])
    assert capsys.readouterr().out.startswith("−ELBO of 1 image; the higher")


WRONG = [
    (sample, "--class a --out x.npz", "--class a: must be left out, because the model is not conditional"),
    (sample, "--out x.png", "--out x.png: must be an .npz, or a folder for PNGs"),
    (sample, "--out run", "run: exists already; name a new or an empty folder"),
    (encode, "nowhere --out x.csv", "nowhere: there is no such file or folder"),
    (reconstruct, "nowhere --out x", "nowhere: there is no such file or folder"),
    (reconstruct, "run --out x", "run: there are no images"),
    (score, "text.png --out x", "text.png: no readable image"),
]


def test_says_in_one_line_what_is_wrong_and_leaves_nothing(run, tmp_path, monkeypatch):
    folder = str(run())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no image")
    before = sorted(tmp_path.iterdir())
    for program, arguments, message in WRONG:
        with pytest.raises(SystemExit) as stop:
            program.main([folder, *arguments.split()])
        assert str(stop.value) == f"error: {message}" and sorted(tmp_path.iterdir()) == before


def test_a_conditional_model_wants_a_class_that_it_has(run, tmp_path, image_folder):
    folder = str(run("conditional=true"))
    with pytest.raises(SystemExit, match=r"^error: --class c: must be one of a, b$"):
        sample.main([folder, "--class", "c", "--out", str(tmp_path / "x.npz")])
    with pytest.raises(SystemExit, match=r"^error: --class: must be one of a, b, because .* names none$"):
        encode.main([folder, str(image_folder / "a"), "--out", str(tmp_path / "x.csv")])


@pytest.mark.parametrize("program", [sample, encode, reconstruct, score])
def test_help_has_examples(program, capsys):
    with pytest.raises(SystemExit) as stop:
        program.main(["--help"])
    assert stop.value.code == 0 and "examples:" in capsys.readouterr().out


def test_counts_must_be_positive(run, capsys):
    with pytest.raises(SystemExit):
        sample.main([str(run()), "--n", "0", "--out", "x.npz"])
    assert "--n: 0: must be a positive integer" in capsys.readouterr().err


def test_tables_go_to_standard_output(run, tmp_path, image_folder, capsys, monkeypatch):
    folder = str(run())
    monkeypatch.chdir(tmp_path)
    for program, name, head in (
        (encode, "codes.csv", "file,mean_0,mean_1,"),
        (score, "scores/scores.csv", "image,nats\n"),
    ):
        program.main([folder, str(image_folder), "--out", name.split("/")[0]])
        written = Path(name).read_text()
        capsys.readouterr()
        for out in ("-", "/dev/stdout"):
            program.main([folder, str(image_folder), "--out", out])
            assert capsys.readouterr().out == written and written.startswith(head)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes.csv", "run", "scores"]


def test_a_place_that_cannot_be_is_refused_before_the_work(run, tmp_path, image_folder, monkeypatch):
    folder = str(run())
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.npz").symlink_to("pipe")
    monkeypatch.setattr(programs, "chunks", lambda *_: pytest.fail("images were read"))
    monkeypatch.setattr("vae.use.trained.Trained.samples", lambda *_: pytest.fail("something was sampled"))
    for program, arguments in (
        (encode, [str(image_folder), "--out", "pipe"]),
        (reconstruct, [str(image_folder), "--out", "pipe"]),
        (score, [str(image_folder), "--out", "pipe"]),
        (sample, ["--out", "link.npz"]),
    ):
        with pytest.raises(SystemExit, match=r"^error: .*pipe: (must be a regular file|exists already)"):
            program.main([folder, *arguments[:-1], str(tmp_path / arguments[-1])])
        assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link.npz").is_symlink()
