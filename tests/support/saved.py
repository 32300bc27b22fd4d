"""What checkpoints hold, and how they are refused."""

import copy
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import vae
from vae.model.build import build_model
from vae.model.checkpoints import FORMAT

CONFIG: dict[str, Any] = {
    "latent_dim": 2,
    "conditional": False,
    "data": {"_target_": "vae.data.strokes.Strokes"},
    "objective": {"_target_": "vae.model.objectives.Autoencoder"},
    "backbone": {
        "_target_": "vae.model.backbones.Dense",
        "latent_dim": 2,
        "hidden": [8, 4],
        "gated": False,
        "below": [],
    },
    "prior": {"_target_": "vae.model.priors.Correlated", "latent_dim": 2, "covariance": [[2.0, 0.5], [0.5, 1.0]]},
    "posterior": {"_target_": "vae.model.posteriors.Tied", "latent_dim": 2},
    "likelihood": {"_target_": "vae.model.likelihoods.Gaussian", "sigma": "learned"},
}


def content(config: dict = CONFIG, version: int = FORMAT) -> dict:
    model = build_model(config, (1, 5, 7), 2)
    weights = {f"vae.{name}": weight for name, weight in model.state_dict().items()}
    about = {"format": version, "config": config, "shape": [1, 5, 7], "data": "strokes", "classes": []}
    return {"vae": about, "state_dict": weights, "epoch": 2, "global_step": 30}


def changed(saved: dict, key: str, *value: object) -> dict:
    """The content with another value, or with none, under a key such as vae.config.prior."""
    saved = copy.deepcopy(saved)
    *path, last = key.split(".")
    node = saved
    for name in path:
        node = node[name]
    node.pop(last, None)
    if value:
        node[last] = value[0]
    return saved


def refusal(saved: object, file: Path, trust: bool = False) -> str:
    """The line by which a content is refused, in less time and memory than a model takes."""
    torch.save(saved, file)
    start = time.monotonic()
    with pytest.raises(ValueError) as error:
        vae.load(file, trust)
    assert time.monotonic() - start < 5  # on a busy machine
    line = str(error.value)
    assert "\n" not in line and len(line) < 1000
    return line
