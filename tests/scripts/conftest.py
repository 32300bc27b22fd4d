import logging

import pytest
import torch

from vae.model.build import build, build_model
from vae.model.checkpoints import about

ROW = {f"{part}/{term}": 1.0 for part in ("train", "val") for term in ("loss", "total", "recon", "kl")}


@pytest.fixture
def run(compose, image_folder, tmp_path):
    """The folder of a run of three epochs that never happened, with further overrides."""

    def make(*overrides, **changed):
        config = compose("data=images", f"data.root={image_folder}", "data.channels=1", *overrides)
        data = build(config, "data").load()
        weights = {
            f"vae.{name}": value
            for name, value in build_model(config, data.shape, len(data.classes)).state_dict().items()
        }
        folder = tmp_path / "run" / "checkpoints"
        folder.mkdir(parents=True)
        for name, epochs in (("best", 2), ("last", 3)):
            history = [{"epoch": epoch, **ROW} for epoch in range(1, epochs + 1)]
            checkpoint = {
                "vae": about(config, data) | changed,
                "state_dict": weights,
                "epoch": epochs - 1,
                "global_step": 10 * epochs,
                "callbacks": {"Scalars": {"history": history}},
            }
            torch.save(checkpoint, folder / f"{name}.ckpt")
        return folder.parent

    return make


@pytest.fixture(autouse=True)
def lightning_speaks_afterwards():
    """Some programs silence Lightning for their whole process, which here has other tests to run."""
    log = logging.getLogger("pytorch_lightning")
    level = log.level
    yield
    log.setLevel(level)
