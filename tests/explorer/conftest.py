from collections.abc import Callable

import pytest
import torch
from page_models import CLASSES, MODELS, build

from vae.data.base import Split
from vae.data.loader import BatchLoader
from vae.explorer.page import describe, page
from vae.study.scene import Scene


@pytest.fixture(scope="session")
def scene_of() -> Callable[[str], Scene]:
    """Makes a scene of one of `MODELS` with random test images in three classes."""

    def make(name: str) -> Scene:
        setup, vae = MODELS[name], build(name)
        images = torch.randint(0, 256, (40, *setup.shape), dtype=torch.uint8)
        loader = BatchLoader(Split(images, torch.arange(40) % 3), 16)
        objective = {"_target_": "vae.model.objectives.ELBO", "beta": 1.0}
        prior = {"_target_": type(vae.prior).__name__}
        config = {"latent_dim": setup.latent_dim, "prior": prior, "objective": objective}
        return Scene(vae, loader, {"config": config, "data": "images", "classes": CLASSES}, 1)

    return make


@pytest.fixture
def show(browser, scene_of, tmp_path):
    """Opens the page of some of `MODELS`; afterwards nothing may have failed, and nothing been asked for."""

    def opened(*scenes, **screen):
        """Scenes, or names of `MODELS`."""
        runs = [describe(scene_of(of), of) if isinstance(of, str) else describe(of, "run") for of in scenes]
        file = tmp_path / "explorer.html"
        file.write_text(page(runs), encoding="utf-8")
        browser.open(file.as_uri(), **screen)
        browser.settle()
        return browser

    yield opened
    assert browser.errors == []
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"} and len(browser.requests) <= 2
