"""Trained models in files, for others to learn from."""

from pathlib import Path
from typing import Any

from vae.model.build import PARTS
from vae.model.checkpoints import PREFIX, save
from vae.use.trained import Trained

DEFAULTS: dict[str, dict[str, Any]] = {  # which a stored configuration has, and those of the tests do without
    "vae.model.backbones.Dense": {"gated": False, "below": []},
    "vae.model.priors.Correlated": {"covariance": None},
}


def saved(model: Trained, folder: Path) -> Path:
    """The model as a file of weights."""
    weights = {f"{PREFIX}{name}": value for name, value in model.vae.state_dict().items()}
    others = {group: {"_target_": "unknown.Class"} for group in ("data", "objective")}
    parts = {group: DEFAULTS.get(model.config[group]["_target_"], {}) | model.config[group] for group in PARTS}
    config = {**model.config, **others, **parts}
    about = {"format": 1, "config": config, "shape": list(model.shape), "data": model.data}
    content = {"vae": about | {"classes": list(model.classes)}, "state_dict": weights, "epoch": 0, "global_step": 1}
    file = folder / "weights.ckpt"
    save(content, file)
    return file
