from collections.abc import Callable

import pytest
import torch
from page_models import CLASSES, MODELS, build

from vae.data.base import Part
from vae.data.loader import BatchLoader
from vae.study.scene import Scene


@pytest.fixture(scope="session")
def scene_of() -> Callable[[str], Scene]:
    """Makes a scene of one of `MODELS` with random test images in three classes."""

    def make(name: str) -> Scene:
        setup, vae = MODELS[name], build(name)
        images = torch.randint(0, 256, (40, *setup.shape), dtype=torch.uint8)
        loader = BatchLoader(Part(images, torch.arange(40) % 3), 16)
        objective = {"_target_": "vae.model.objectives.ELBO", "beta": 1.0}
        prior = {"_target_": type(vae.prior).__name__}
        config = {"latent_dim": setup.latent_dim, "prior": prior, "objective": objective}
        return Scene(vae, loader, {"config": config, "data": "images", "classes": CLASSES}, 1)

    return make
