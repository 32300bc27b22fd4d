"""From a plain configuration to objects: the only place where `_target_` becomes a class."""

from __future__ import annotations

import importlib
import math
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from torch.overrides import TorchFunctionMode

from vae.common.types import Shape
from vae.model.backbones import Backbone
from vae.model.likelihoods import Likelihood
from vae.model.posteriors import Posterior
from vae.model.priors import Prior
from vae.model.vae import VAE
from vae.settings.classes import classes_of, ranges_of
from vae.settings.errors import explain
from vae.settings.keys import refuse_other_keys
from vae.settings.ranges import REPEATED
from vae.settings.rules import refuse_wrong_values, require
from vae.settings.together import check_class, is_coded

PARTS = {"backbone": Backbone, "prior": Prior, "posterior": Posterior, "likelihood": Likelihood}  # of the model

# Of a model out of a file that nobody vouches for. Covariances, flows and images take memory that no weight shows.
SQUARED = (
    *("vae.model.priors.Correlated", "vae.model.priors.Mixture", "vae.model.priors.Flow"),
    *("vae.model.posteriors.Tied", "vae.model.posteriors.Full"),
)
MOST_LATENTS = 2**11
MOST_PIXELS = 2**22

Config = Mapping[str, Any]
Builder = Callable[..., Any]  # (config, group, **arguments): the object


def build(config: Config, group: str, **arguments: Any) -> Any:
    """The object that a group's node describes; `arguments` are what only the program knows, such as the shape."""
    try:
        return instantiate(config[group], _convert_="all", **arguments)
    except (InstantiationException, OmegaConfBaseException) as error:
        raise _not_built(group, config[group], error.__cause__ or error) from error


def build_own(config: Config, group: str, **arguments: Any) -> Any:
    """The same of a configuration out of a file that nobody vouches for, which Hydra's words would give power.

    A class of this program with exactly its arguments, whose values are those that training would take.
    """
    node = config[group]
    ranges = ranges_of(group, node)
    if ranges is None:
        raise ValueError(f"{group}._target_={node.get('_target_')}: must be one of {classes_of(group)}")
    refuse_other_keys(group, node, ["_target_", *ranges])
    refuse_wrong_values(group, ranges, node, reprlib.repr)
    module, _, name = node["_target_"].rpartition(".")
    values = {key: value for key, value in node.items() if key != "_target_"}
    try:
        check_class(node)
        return getattr(importlib.import_module(module), name)(**values, **arguments)
    except Exception as error:
        raise _not_built(group, node, error) from error


def build_model(config: Config, shape: Shape, classes: int, make: Builder = build) -> VAE:
    """The model for images of this shape and of so many classes, with fresh weights."""
    conditional = config["conditional"]
    if conditional and not classes:
        raise ValueError("conditional=true: needs data with labels, but these images have no classes")

    def part(group: str, **given: Any) -> Any:
        made, base = make(config, group, **given), PARTS[group]
        if not isinstance(made, base):
            target, allowed = config[group].get("_target_"), f"{base.__module__}.{base.__name__}"
            raise ValueError(f"{group}._target_={target}: must be a {allowed}, but is a {type(made).__name__}")
        return made

    likelihood = part("likelihood")
    given = {"classes": classes} if conditional else {}
    if (planes := likelihood.planes(shape[0])) != shape[0]:
        given["planes"] = planes
    if is_coded(config):
        places = config["posterior"]["places"]
        given |= {"coded": True} | ({} if places is None else {"places": places})
    backbone = part("backbone", shape=shape, **given)
    coded = {"grid": backbone.grid, "maps": backbone.maps} if is_coded(config) else {}
    posterior = part("posterior", features=backbone.features, **coded)
    return VAE(backbone, backbone.levels(part("prior"), posterior, config["latent_dim"]), likelihood)


def build_own_model(config: Config, shape: Shape, classes: int, weights: Mapping[str, torch.Tensor]) -> VAE:
    """The same of a configuration out of a file that nobody vouches for, if the file's weights could be the model's.

    A few words may ask for any number of layers of any size. So nothing is made that the weights are too few for.
    """
    refuse_foreign_classes(config)
    for key, name in REPEATED.items():
        group, _, own = key.partition(".")
        if group in PARTS and own in config[group]:
            require(config[group][own] == config[name], key, config[group][own], f"{config[name]}, as {name} is")
    latents = config["latent_dim"]
    is_squared = any(config[group]["_target_"] in SQUARED for group in ("prior", "posterior"))
    few = not is_squared or latents <= MOST_LATENTS
    require(few, "latent_dim", latents, f"at most {MOST_LATENTS:,} with covariances; more takes trust=True")
    allowed = f"of at most {MOST_PIXELS:,} numbers in all; more takes trust=True"
    require(math.prod(shape) <= MOST_PIXELS, "shape", list(shape), allowed)
    numbers = stored_bytes(weights)  # and no more
    widths = config["prior"].get("hidden")  # a flow has masks of latent_dim × width, made before its weights
    if isinstance(widths, list) and all(type(width) is int for width in widths):
        fitting = max(widths, default=0) * latents <= numbers
        require(fitting, "prior.hidden", widths, "no more than the file has weights for")
    with _NoMoreThan(numbers, 2 * len(weights) + 10):
        return build_model(config, shape, classes, build_own)


def stored_bytes(weights: Mapping[str, torch.Tensor]) -> int:
    """What they really take, which is less than their shapes say where numbers are shared."""
    storages = [each.untyped_storage() for each in weights.values()]
    return sum({each.data_ptr(): each.nbytes() for each in storages}.values())


class _NoMoreThan(TorchFunctionMode):
    """Refuses to make tensors, such as weights are made of, of more numbers or in a larger count than these."""

    MAKERS = (torch.empty, torch.zeros, torch.ones, torch.randn)

    def __init__(self, numbers: int, tensors: int):
        super().__init__()
        self.numbers = numbers
        self.tensors = tensors

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in self.MAKERS:
            self.numbers -= math.prod(args if all(isinstance(each, int) for each in args) else args[0])
            self.tensors -= 1
            if min(self.numbers, self.tensors) < 0:
                raise ValueError("its layers are more or larger than the file has weights for")
        return func(*args, **(kwargs or {}))


def _not_built(group: str, node: Any, error: BaseException) -> ValueError:
    """What really went wrong, without Hydra's frame around it."""
    target = node.get("_target_") if isinstance(node, Mapping) else node
    return ValueError(f"{group}._target_={target}: cannot be built ({explain(error)})")


# Configurations out of files ------------------------------------------------------------------------------------------


def refuse_foreign_classes(config: Config) -> None:
    """A configuration out of a file may name this package's modules only; see `trust` in `vae.load`."""
    for target in targets({group: config[group] for group in PARTS}):
        if not is_own(str(target), nn.Module):
            raise ValueError(
                f"the checkpoint asks for the class {target}, which is none of this package; "
                "load it with trust=True if you trust the file"
            )


def is_own(target: str, base: type) -> bool:
    """Whether the name is that of a subclass of `base` defined in exactly that module of this package.

    Asked of what the name leads to, because `vae.model.priors.torch.hub.load` begins with `vae.`, too.
    """
    module, _, name = target.rpartition(".")
    if not module.startswith("vae."):
        return False
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):  # the last of a name with a null byte
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
