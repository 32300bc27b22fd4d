import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import examples
import numpy as np
import pytest
import torch
from gallery import common, screen
from omegaconf import OmegaConf
from PIL import Image

import vae
from vae.common.types import WEIGHTS
from vae.data.base import DEFAULT_ROOT
from vae.settings.ranges import PICTURES

EVERY = common.named([])
PRIORS = {"isotropic": "vae.model.priors.Isotropic", "flow": "vae.model.priors.Flow"}


def entry(command, pictures, **more):
    return {"shows": "All there is.", "command": f"python train.py {command}", "pictures": pictures, **more}


@pytest.fixture
def gallery(tmp_path, monkeypatch):
    """Makes the entries all that there is, trained and shown in `trained` and `shown` of the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common, "EXAMPLES", tmp_path / "examples.yaml")
    monkeypatch.setattr(common, "TRAINED", tmp_path / "trained")
    monkeypatch.setattr(common, "SHOWN", tmp_path / "shown")
    return lambda **entries: OmegaConf.save(entries, common.EXAMPLES)


@pytest.fixture
def trained(monkeypatch):
    """What was asked to be trained; in the place of a training, folders of runs are written."""
    asked = []

    def run_train_py(arguments):
        *overrides, where = arguments
        asked.append(overrides)
        folder = Path(where.partition("=")[2].strip("'"))
        in_sweep = "-m" in overrides
        for i, prior in enumerate(PRIORS if in_sweep else ["isotropic"]):
            path = folder / f"{i}_{prior}" if in_sweep else folder
            config: dict[str, Any] = {
                "beta": 1.0,
                "seed": 0,
                "data": {"_target_": "vae.data.idx.IdxFiles", "root": "/home/me"},
            }
            config |= {"prior": {"_target_": PRIORS[prior], "latent_dim": 2}, "likelihood": {"_target_": "x"}}
            config |= {"objective": {"_target_": "vae.model.objectives.ELBO", "beta": 1.0}}
            choices = {"data": "mnist", "prior": prior, "likelihood": "bernoulli"}
            status = {"state": "completed", "error": None, "config": config, "choices": choices}
            terms = {"total": 100.04 + i, "recon": 95.0, "kl": 5.04 + i}
            metrics: dict[str, Any] = {
                f"{part}/{name}": value for part in ("val", "test") for name, value in terms.items()
            }
            metrics |= {"data": "mnist", "device": "GPU X1" if "seed=7" in overrides else "CPU (1 thread)"}
            (figures := path / "figures" / "latent").mkdir(parents=True, exist_ok=True)
            for name in ("manifold", "activity"):
                Image.new("RGB", (40, 30)).save(figures / f"{name}.png")
            Image.new("RGB", (40, 30)).save(figures / "evolution.gif")
            (path / "status.json").write_text(json.dumps(status))
            (path / "metrics.json").write_text(json.dumps(metrics))
        return 1 if "beta=13" in overrides else 0

    monkeypatch.setattr(examples.programs, "run_train_py", run_train_py)
    return asked


def test_a_run_is_trained_and_shown(gallery, trained, capsys):
    gallery(plane=entry("beta=2 data=mnist", ["latent/manifold", "latent/activity"]), other=entry("", ["losses"]))
    Path("shown/plane").mkdir(parents=True)
    Path("shown/plane/old.png").touch()
    examples.main(["plane"])
    assert trained == [["beta=2", "data=mnist"]]
    assert {path.name for path in Path("shown/plane").iterdir()} == {
        *("manifold.png", "activity.png", "metrics.json", "config.yaml")
    }
    config = OmegaConf.load("shown/plane/config.yaml")
    assert config.prior == {"_target_": PRIORS["isotropic"], "latent_dim": 2} and "root" not in config.data
    page = Path("shown/README.md").read_text()
    assert re.findall("^## (.*)", page, re.MULTILINE) == ["plane", "other"] and page.count("Not made yet.") == 1
    assert "100.0 = 95.0 + 5.0 on mnist" in page and "python train.py beta=2 data=mnist\n" in page
    assert "![manifold of plane](plane/manifold.png) | ![activity of plane](plane/activity.png) |" in page
    assert capsys.readouterr().out.splitlines()[-1] == "shown/README.md"


def test_a_film_is_shown_by_itself(gallery, trained):
    gallery(plane=entry("figures.film=true", ["latent/manifold", "latent/evolution.gif", "latent/activity"]))
    examples.main([])
    assert (
        Path("shown/plane/evolution.gif").read_bytes()
        == Path("trained/plane/figures/latent/evolution.gif").read_bytes()
    )
    rows = [line for line in Path("shown/README.md").read_text().splitlines() if line.startswith("| ![")]
    assert rows[0] == "| ![evolution of plane](plane/evolution.gif) |"
    assert rows[1].count("![") == 2


def test_the_runs_of_a_sweep_are_compared(gallery, trained):
    gallery(priors=entry("-m prior=isotropic,flow", ["rate_distortion", "manifolds"]))
    examples.main([])
    assert {path.name for path in Path("shown/priors").iterdir()} == {
        *("rate_distortion.png", "manifolds.png", "results.md", "config.yaml")
    }
    results = Path("shown/priors/results.md").read_text()
    assert re.search(r"\| flow \| 1 \| 101\.04 \|", results) and results.strip() in Path("shown/README.md").read_text()
    config = OmegaConf.load("shown/priors/config.yaml")
    assert config.prior == {"_target_": list(PRIORS.values()), "latent_dim": 2} and config.beta == 1


def test_the_weights_of_a_sweep_are_kept_by_their_overrides(gallery, trained, monkeypatch):
    kept = []
    monkeypatch.setattr("gallery.weights.keep_weights", lambda run, target: kept.append((run, target)))
    gallery(priors=entry("-m prior=isotropic,flow", ["manifolds"], weights=True))
    examples.main([])
    found = {(run.name, target.relative_to(Path("shown").resolve())) for run, target in kept}
    assert found == {(f"{i}_{name}", Path(f"priors/{name}/{WEIGHTS}")) for i, name in enumerate(PRIORS)}


def test_another_device_than_a_cpu_is_named(gallery, trained):
    gallery(
        run=entry("seed=7", ["latent/manifold"]),
        sweep=entry("-m seed=7 prior=isotropic,flow", ["manifolds"]),
        usual=entry("", ["latent/manifold"]),
        usual_sweep=entry("-m prior=isotropic,flow", ["manifolds"]),
    )
    examples.main([])
    run, sweep, usual, usual_sweep = Path("shown/README.md").read_text().split("## ")[1:]
    assert "100.0 = 95.0 + 5.0 on mnist; trained on GPU X1; [config.yaml]" in run
    assert "\n\nTrained on GPU X1.\n\n[config.yaml]" in sweep
    assert "rained on" not in usual + usual_sweep


def test_an_example_that_fails_is_named_and_the_others_are_made(gallery, trained):
    gallery(bad=entry("beta=13", ["latent/manifold"]), good=entry("", ["latent/manifold"]))
    with pytest.raises(SystemExit, match=r"^error: not completed: bad$"):
        examples.main([])
    assert Path("shown/good/manifold.png").exists() and not Path("shown/bad").exists()


def test_without_a_browser_photographs_stay(gallery, trained, monkeypatch, capsys):
    gallery(plane=entry("", ["latent/manifold"]), explorer=entry("", ["explorer"], of=["plane"]))
    monkeypatch.setattr(examples.screenshots, "browser", lambda: None)
    Path("shown/explorer").mkdir(parents=True)
    Path("shown/explorer/explorer.png").touch()
    examples.main(["explorer"])
    assert trained == [] and Path("shown/explorer/explorer.png").exists()
    assert "stays as it is, because none of the browsers chromium, " in capsys.readouterr().out


def test_lists_what_there_is(gallery, trained, capsys):
    gallery(plane=entry("beta=2", ["latent/manifold"]))
    examples.main(["--list"])
    assert "python train.py beta=2" in capsys.readouterr().out and trained == []
    with pytest.raises(SystemExit, match=r"^error: plain: no such example; there are plane$"):
        examples.main(["plain"])


def test_configurations_are_merged():
    merged = examples.common_values(
        [{"a": 1, "b": {"c": 2, "d": 3}, "e": {"f": 4}}, {"a": 1, "b": {"c": 2, "d": 5}, "e": None}]
    )
    assert merged == {"a": 1, "b": {"c": 2, "d": [3, 5]}, "e": [{"f": 4}, None]}


def test_pictures_lose_nothing_unless_they_are_large(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    pixels = {"small": random.integers(0, 256, (50, 60, 3), dtype=np.uint8), "grey": np.zeros((50, 60), np.uint8)}
    pixels["large"] = random.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    pixels["fewer colours"] = random.integers(0, 256, (70, 80, 3), dtype=np.uint8)
    monkeypatch.setattr(common, "PNG_BYTES", 20_000)
    monkeypatch.setattr(common, "WHOLE_BYTES", 12_000)
    for name, content in pixels.items():
        source, target = tmp_path / f"{name}.png", tmp_path / "kept" / f"{name}.png"
        Image.fromarray(content).save(source)
        common.keep(source, target)
        assert target.stat().st_size <= 20_000
        with Image.open(target) as kept:
            if name in ("small", "grey"):
                assert (np.asarray(kept) == content).all()
            else:
                assert kept.mode == "P" and (kept.size == content.shape[1::-1]) == (name == "fewer colours")


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("one\r\ntwo", "one\ntwo"),
        ("10 %\r100 %", "100 %"),
        ("a bar\r     \rdone", "done"),
        ("abc\b\bX", "aXc"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("first\r\nsecond\x1b[A\rF", "First\nsecond"),
        ("keep this\r\x1b[4Ctext\x1b[K", "keeptext"),
        ("all\x1b[2K\rnew", "new"),
        ("top\r\nbelow\x1b[A\r\x1b[J", ""),
        ("123456789012345", "1234567890\n12345"),
        ("1234567890\r\nnext", "1234567890\nnext"),
    ],
)
def test_a_screen_shows_what_a_terminal_would(written, seen):
    shown = screen.Screen(columns=10)
    shown.write(written)
    assert str(shown) == seen


def test_a_program_is_on_a_terminal(tmp_path):
    code = "import os, sys; print(sys.stdout.isatty(), os.get_terminal_size().columns, os.getcwd()); sys.exit(3)"
    assert screen.on_terminal([sys.executable, "-c", code], tmp_path) == (3, f"True 120 {tmp_path}\r\n")


def test_a_bar_is_seen_at_every_step():
    assert list(screen.screens("go\r\n 0 %\r50 %\r    \rend\r\n")) == ["go\n 0 %", "go\n50 %", "go", "go\nend"]
    assert "&lt;b&gt; 1" in screen.as_page("<b> 1", "t")


@pytest.mark.slow
def test_examples_are_trained_by_the_command_line_and_only_once(gallery, image_folder):
    small = f"data=images data.root={image_folder} data.channels=1 epochs=1 figures.only=[manifold]"
    gallery(
        run=entry(small, ["latent/manifold"]),
        sweep=entry(f"-m {small} beta=1,4", ["rate_distortion", "manifolds"]),
    )
    examples.main([])
    files = [path for path in Path("trained").rglob("*.ckpt") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert len(before) == 6 and Path("shown/sweep/manifolds.png").exists()
    examples.main([])
    assert before == {path: path.stat().st_mtime_ns for path in Path("trained").rglob("*.ckpt")}


def colours(path):
    """How many there are in a picture: one, where a page failed to load."""
    with Image.open(path) as picture:
        return len(picture.convert("RGB").getcolors(1 << 24))


@pytest.mark.slow
def test_pages_are_photographed(gallery, image_folder):
    if examples.screenshots.browser() is None:
        pytest.skip("no Chromium is installed")
    small = f"data=images data.root={image_folder} data.channels=1 epochs=1 figures.only=[manifold]"
    gallery(
        sweep=entry(f"-m {small} beta=1,4", ["manifolds"]),
        run=entry(small, ["latent/manifold"]),
        explorer=entry("", ["explorer"], of=["run"]),
        tensorboard=entry("", ["scalars", "images"], of=["sweep"]),
    )
    examples.main(["explorer", "tensorboard"])
    assert {path.name for path in Path("shown").iterdir()} == {"README.md", "explorer", "tensorboard"}
    for name in ("explorer/explorer", "tensorboard/scalars", "tensorboard/images"):
        assert colours(f"shown/{name}.png") > 50


@pytest.mark.slow
def test_the_screen_of_a_run_is_photographed(gallery, image_folder):
    if examples.screenshots.browser() is None:
        pytest.skip("no Chromium is installed")
    small = f"data=images data.root={image_folder} data.channels=1 epochs=2 figures=none hydra.run.dir={Path.cwd()}/run"
    gallery(terminal=entry(small, ["running", "finished"], of=[]))
    examples.main([])
    for name in ("running", "finished"):
        with Image.open(f"shown/terminal/{name}.png") as photograph:
            assert photograph.width > 1500 and photograph.height > 300
        assert colours(f"shown/terminal/{name}.png") > 20
    written = Path("trained/terminal/transcript.txt").read_text()
    examples.main([])
    assert Path("trained/terminal/transcript.txt").read_text() == written


# What is committed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("each", EVERY, ids=lambda each: each.name)
def test_every_example_can_be_trained_and_drawn(each, compose):
    if each.of is None:
        words = [text for text in each.arguments if text != "-m"]
        compose(*([text if "[" in text else text.partition(",")[0] for text in words] if each.is_sweep else words))
    assert each.pictures and set(each.of or ()) <= {other.name for other in EVERY}
    if each.of is None and not each.is_sweep:
        assert set(each.pictures) - {"latent/evolution.gif"} <= set(PICTURES)
        assert ("latent/evolution.gif" in each.pictures) == ("figures.film=true" in each.command)


@pytest.mark.parametrize("each", EVERY, ids=lambda each: each.name)
def test_every_committed_example_is_whole(each):
    texts = [] if each.of is not None else ["config.yaml", "results.md" if each.is_sweep else "metrics.json"]
    there = {path.name for path in each.shown.iterdir() if path.is_file()}
    assert there - {WEIGHTS} == {*each.files, *texts}
    kept = [file.parent for file in each.shown.rglob(WEIGHTS)]
    assert bool(kept) == each.weights and (each.is_sweep or len(kept) <= 1)
    for folder in kept:
        model = vae.load(folder)
        assert str(Path.home()) not in str(model.config)
        assert len(model.sample(2, labels=[0, 1] if "conditional" in each.name else None)) == 2
    for name in there - {WEIGHTS}:
        path = each.shown / name
        if name in texts:
            assert not re.search(r"(?<![\w.:/])/(home|root|tmp|work|Users|mnt)\b|\bC:\\", path.read_text(), re.I)
        else:
            assert path.stat().st_size <= (1_000_000 if path.suffix == common.FILM else 400_000)
            with Image.open(path) as picture:
                assert min(picture.size) > 100
    if "metrics.json" in texts:
        metrics = json.loads((each.shown / "metrics.json").read_text())
        assert math.isfinite(metrics["test/recon"]) and ("test/total" in metrics) == (
            each.name not in ("autoencoder", "rae")
        )
        if "test/total" in metrics:
            assert metrics["test/total"] == pytest.approx(metrics["test/recon"] + metrics["test/kl"], rel=1e-6)


def test_the_page_is_of_these_examples():
    page = (common.SHOWN / "README.md").read_text(encoding="utf-8")
    assert re.findall("^## (.*)", page, re.MULTILINE) == [each.name for each in EVERY]
    for each in EVERY:
        assert f"```bash\n{each.command}\n```" in page
    links = set(re.findall(r"\]\((.*?)\)", page))
    committed = {path.relative_to(common.SHOWN).as_posix() for path in common.SHOWN.rglob("*") if path.is_file()}
    assert links == committed - {"README.md"}


def test_all_that_is_shown_is_small():
    sizes = {path: path.stat().st_size for path in common.SHOWN.rglob("*") if path.is_file()}
    weights = sum(size for path, size in sizes.items() if path.name == WEIGHTS)
    assert weights < 15_000_000 and sum(sizes.values()) - weights < 12_500_000


@pytest.mark.parametrize(("most", "bits"), [(math.inf, torch.float16), (0, torch.float32)])
def test_an_example_keeps_the_weights_that_leave_its_total(
    run, tmp_path, monkeypatch, capsys, image_folder, most, bits
):
    from gallery import weights

    folder, target = run(), tmp_path / "shown" / WEIGHTS
    monkeypatch.setattr(weights, "MOST_CHANGE", most)
    weights.keep_weights(folder, target)
    stored = torch.load(target, weights_only=True)
    assert {each.dtype for each in stored["state_dict"].values()} == {bits} and "callbacks" not in stored
    assert stored["vae"]["config"]["data"]["root"] == DEFAULT_ROOT
    told = float(re.search(r"change the total by ([+-][\d.]+) nats", capsys.readouterr().out)[1])
    assert abs(told) < 0.01
    images = torch.rand(4, 1, 10, 12).numpy()
    half, whole = (vae.load(path).encode(images).mean for path in (target, folder))
    assert torch.allclose(half, whole, atol=2e-3)


def test_an_example_with_weights_can_be_loaded(gallery, trained, monkeypatch):
    gallery(plane=entry("", ["latent/manifold"], weights=True), other=entry("", ["latent/manifold"]))
    monkeypatch.setattr("gallery.weights.keep_weights", lambda run, target: target.write_text(run.name))
    examples.main([])
    assert Path("shown/plane/weights.ckpt").read_text() == "plane" and not Path("shown/other/weights.ckpt").exists()
    page = Path("shown/README.md").read_text()
    assert '[weights.ckpt](plane/weights.ckpt) for `vae.load("outputs/examples/plane")`' in page
    assert page.count("weights.ckpt") == 2
