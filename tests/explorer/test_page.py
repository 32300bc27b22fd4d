import json
import re

import pytest
import torch
from page_models import CLASSES, MODELS
from torch.distributions import Normal, kl_divergence

from vae.data.base import Split
from vae.data.loader import BatchLoader
from vae.explorer.page import SCRIPTS, _part, describe, page
from vae.figures import style
from vae.model.build import build_model
from vae.study.scene import Scene


def embedded(text):
    """The runs that a page holds, as a browser reads them."""
    return json.loads(re.search(r'<script type="application/json" id="runs">(.*?)</script>', text, re.DOTALL)[1])


def kl_of(scene):
    """KL of each dimension of diagonal Gaussians, by torch, mean over the test images."""
    codes, prior = scene.codes, scene.prior
    q, p = Normal(codes.means.double(), codes.variances.double().sqrt()), Normal(prior.mean, prior.scale)
    return kl_divergence(q, p).mean(0).tolist()


@pytest.mark.parametrize("name", MODELS)
def test_a_page_holds_a_run(scene_of, name):
    scene = scene_of(name)
    (run,) = embedded(page([describe(scene, "a < b")]))
    assert (run["name"], run["classes"], len(run["names"])) == ("a < b", list(CLASSES), scene.latent_dim)
    assert run["colours"] == style.colours(3)
    assert run["dims"] == scene.active(2)
    assert (name == "vamp") == ("outlines" in run["prior"])
    assert len(run["kl"]) == scene.latent_dim and run["kl"] == pytest.approx(kl_of(scene), abs=1e-3)
    assert (run["density"] is not None) == (scene.latent_dim == 1)
    assert ("draws" in run["prior"]) == (name == "vamp") and ("factor" in run["prior"]) == (name != "vamp")
    assert run["networks"]["classes"] == (3 if "conditional" in name else 0)
    assert sorted(set(run["codes"]["labels"])) == [0, 1, 2]


def test_the_same_run_gives_the_same_page(scene_of):
    before = torch.get_rng_state()
    pages = {page([describe(scene_of("vamp"), "run")]) for _ in range(2)}
    assert len(pages) == 1
    assert not torch.equal(before, torch.get_rng_state())  # by making the scenes, which the next lines do not do
    scene, before = scene_of("vamp"), torch.get_rng_state()
    describe(scene, "run")
    assert torch.equal(before, torch.get_rng_state())


def test_asks_for_nothing_from_elsewhere(scene_of):
    text = page([describe(scene_of("dense"), "one"), describe(scene_of("conv"), "two")])
    assert [run["name"] for run in embedded(text)] == ["one", "two"]
    assert "default-src 'none'" in text and "{{" not in text
    assert not re.search(
        r"://|@import|\bimport\(|\bfetch\(|XMLHttpRequest|\beval\(|new Function|<link [^>]*href=\"(?!data:)", text
    )
    assert not re.search(r"\bsrc=|url\(", text)
    assert text.count("<script") == 2 and len(SCRIPTS) + 1 == text.count('"use strict";')


def test_two_default_models_fit_into_five_megabytes(compose):
    config = compose("data=strokes")
    vae = build_model(config, (1, 28, 28), 10).eval()
    images = torch.randint(0, 256, (5000, 1, 28, 28), dtype=torch.uint8)
    loader = BatchLoader(Split(images, torch.arange(5000) % 10), 500)
    about = {"config": config, "shape": [1, 28, 28], "data": "strokes", "classes": list("0123456789")}
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.mul_(1.7)  # as large as trained ones: they need more bits
    run = describe(Scene(vae, loader, about, 1), "run")
    assert len(page([run, run]).encode()) < 5e6


def test_images_without_classes_have_one_colour(scene_of):
    scene = scene_of("dense")
    scene.classes = []
    scene.loader.labels = torch.zeros(40, dtype=torch.int64)
    run = describe(scene, "run")
    assert run["classes"] == [] and run["colours"] == [style.CODES] and set(run["codes"]["labels"]) == {0}


def test_help_names_every_key():
    keys = [*re.findall(r"^  (\w): ", _part("explorer.js"), re.MULTILINE), "t"]
    named = re.findall(r"<kbd>(\w)</kbd>", _part("page.html"))
    assert len(keys) > 5 and {key.upper() for key in keys} == {key for key in named if key.isupper()}


def test_points_of_an_autoencoder_have_no_kl(scene_of):
    scene = scene_of("dense")
    scene.at_mean = True
    assert describe(scene, "run")["kl"] is None
