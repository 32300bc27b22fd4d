"""What a checkpoint's content describes: the trained model and its data, built again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from vae.common.seeding import apart
from vae.common.types import Shape
from vae.data.base import DEFAULT_ROOT, DataError, Dataset, DataSource
from vae.model.build import build, build_model, build_own, build_own_model, is_own, targets
from vae.model.checkpoints import model_weights
from vae.model.vae import VAE
from vae.settings.compose import CONF
from vae.settings.errors import explain, in_one_line


def model_of(checkpoint: Mapping[str, Any], trust: bool = False) -> VAE:
    """The trained model in the content of a checkpoint, on the CPU; for `trust` see `vae.load`."""
    about, weights = checkpoint["vae"], model_weights(checkpoint)
    channels, height, width = about["shape"]
    shape, classes = (channels, height, width), len(about["classes"])
    with in_one_line():
        if trust:
            model = build_model(about["config"], shape, classes)
        else:
            model = build_own_model(about["config"], shape, classes, weights)
        _load(model, weights)
        model.eval()
        if not trust:
            _refuse_without_images(model, shape)
    return model


def _load(model: VAE, weights: Mapping[str, Tensor]) -> None:
    """Give the model these weights, which must be all of its own and numbers that training can have led to."""
    fresh = model.state_dict()
    unlimited = {name for name, weight in fresh.items() if not weight.isfinite().all()}  # such as a bound
    for name, weight in fresh.items():
        kind = weights[name].dtype if name in weights else weight.dtype
        if kind.is_complex or kind.is_floating_point != weight.is_floating_point():
            raise ValueError(f"the checkpoint's weights {name} are {kind}, but must be {weight.dtype}")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the checkpoint's weights are not those of its configuration ({explain(error)})") from error
    for name, weight in model.state_dict().items():
        if name not in unlimited and not weight.isfinite().all():
            raise ValueError(
                f"the checkpoint's weights {name} are not finite: its training diverged, or it was changed since"
            )


def _refuse_without_images(model: VAE, shape: Shape) -> None:
    """Parts that do not fit each other, and numbers beyond all bounds, show when an image goes through."""
    label = torch.zeros(1, dtype=torch.int64)
    try:
        with torch.inference_mode(), apart("trial"):
            code = model.q(torch.zeros(1, *shape), label).mean
            images = torch.cat([model.decode(code, label).mean, model.sample(1, label)])
    except Exception as error:  # anything may not fit
        raise ValueError(f"the checkpoint's model is of no use ({explain(error)})") from error
    if not images.isfinite().all():
        raise ValueError("the checkpoint's model makes images that are not finite: its weights are out of all bounds")


def data_of(about: Mapping[str, Any], root: str | None = None, trust: bool = False) -> tuple[DataSource, Dataset]:
    """The source that a run was configured with and its data, which must be those that it was trained on.

    They are where they were or in `root`; those in the default place may since be where `VAE_DATA` says.
    """
    config = dict(about["config"]["data"])
    if root is None and config.get("root") == DEFAULT_ROOT:
        root = os.environ.get("VAE_DATA")
    if root is not None:
        config["root"] = str(root)
    with in_one_line():
        source: DataSource = build({"data": config}, "data") if trust else _own_source(config, about["shape"])
    try:
        data = source.load()
    except OSError as error:  # a stranger's root may be a name that no system allows
        raise DataError(explain(error)) from error
    with in_one_line():
        if (data.name, list(data.shape)) != (about["data"], about["shape"]):
            raise ValueError(
                f"the run was trained on {about['data']}, but its configuration now gives {data.name}; "
                "say with --data-root where the data are"
            )
        if list(data.classes) != about["classes"]:
            trained, now = (", ".join(classes[:12]) or "none" for classes in (about["classes"], data.classes))
            raise ValueError(
                f"the run was trained on classes {trained}, but its data now have {now}; "
                "say with --data-root where the data are"
            )
    return source, data


def _own_source(config: Mapping[str, Any], shape: Sequence[int]) -> DataSource:
    """The source of a configuration out of a file that nobody vouches for.

    It downloads from where this program would, if from anywhere, and writes nowhere but below its root.
    """
    target = str(config["_target_"])
    if not (list(targets(config)) == [target] and is_own(target, DataSource)):
        raise ValueError(f"the checkpoint asks for the data source {target}; use --trust if you trust the file")
    if "mirrors" in config:
        config = {**config, **_published(config.get("name"))}
    file, crop = config.get("file"), config.get("crop")
    size = config.get("size") or ([crop, crop] if isinstance(crop, int) else crop)
    if isinstance(file, str) and ".." in Path(file).parts:
        raise ValueError(f"data.file={file}: must lie below data.root, or be an absolute path without ..")
    if size is not None and size != shape[1:]:  # all images would be scaled to it before they are compared
        raise ValueError(f"data.size={size}: must be {shape[1:]}, as the model's images are")
    return build_own({"data": config}, "data")


def _published(name: object) -> dict[str, Any]:
    """Where this program itself gets the data set of this name, and by which digests it knows the files."""
    for path in sorted((CONF / "data").glob("*.yaml")):
        known = OmegaConf.to_container(OmegaConf.load(path))
        if isinstance(known, dict) and "mirrors" in known and known["name"] == name:
            return {key: known[key] for key in ("mirrors", "digests")}
    return {"mirrors": [], "digests": {}}
