"""From a plain configuration to objects: the only place where `_target_` becomes a class."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import nn

from vae.backbones import Shape
from vae.model import VAE
from vae.priors import Vamp

Config = Mapping[str, Any]


def build(config: Config, group: str, **arguments: Any) -> Any:
    """The object that a group's node describes; `arguments` are what only the program knows, such as the shape."""
    try:
        return instantiate(config[group], _convert_="all", **arguments)
    except InstantiationException as error:
        target = config[group].get("_target_")
        raise ValueError(f"{group}._target_={target}: cannot be built ({_reason(error)})") from error


def build_model(config: Config, shape: Shape, classes: int) -> VAE:
    """The model for images of this shape and of so many classes, with fresh weights."""
    conditional = config["conditional"]
    if conditional and not classes:
        raise ValueError("conditional=true: needs data with labels, but these images have no classes")
    told = {"classes": classes} if conditional else {}
    backbone = build(config, "backbone", shape=shape, **told)
    posterior = build(config, "posterior", features=backbone.features)
    prior = build(config, "prior")
    if isinstance(prior, Vamp):
        prior.attach(backbone, posterior, shape)
    return VAE(backbone, prior, posterior, build(config, "likelihood"))


def _reason(error: InstantiationException) -> str:
    """What really went wrong, without Hydra's frame around it."""
    return " ".join(str(error.__cause__ or error).split())


def refuse_foreign_classes(config: Config) -> None:
    """A configuration out of a file may name this package's modules only; see `trust` in `vae.load`."""
    for target in targets({group: config[group] for group in ("backbone", "prior", "posterior", "likelihood")}):
        if not is_own(str(target), nn.Module):
            raise ValueError(
                f"the checkpoint asks for the class {target}, which is none of this package; "
                "load it with trust=True if you trust the file"
            )


def is_own(target: str, base: type) -> bool:
    """Whether the name is that of a subclass of `base` defined in exactly that module of this package.

    Asked of what the name leads to, because `vae.priors.torch.hub.load` begins with `vae.`, too.
    """
    module, _, name = target.rpartition(".")
    if not module.startswith("vae."):
        return False
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return False
    return isinstance(found, type) and issubclass(found, base) and found.__module__ == module


def targets(node: Any) -> Iterator[Any]:
    """Every `_target_` in a configuration, at any depth, and every interpolation: it may become a node with one."""
    if isinstance(node, str) and "${" in node:
        yield node
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list | tuple):  # a tuple out of a checkpoint is built like a list
        for item in node:
            yield from targets(item)
