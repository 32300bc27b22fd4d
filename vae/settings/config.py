"""Checking a composed configuration, and its plain form. Imports no torch: a refused value answers at once."""

from __future__ import annotations

import hashlib
import inspect
import json
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from vae.settings.classes import classes_of, converted, ranges_in_place, ranges_of
from vae.settings.keys import left_out, refuse_other_keys
from vae.settings.ranges import GROUPS, PARTIAL, RANGES, REPEATED, TOP
from vae.settings.rules import refuse_wrong_values, require
from vae.settings.together import AT_MEAN, CODINGS, check_class, check_together, choice, kind

FREE = (
    "epochs",
    *(f"trainer.{name}" for name in ("max_epochs", "accelerator", "devices", "strategy", "log_every_n_steps")),
)
USUAL = {"backbone": "dense", "likelihood": "bernoulli"}  # of conf/config.yaml, which pictures need not name
EXPLORED = ("dense", "conv", "bernoulli", "continuous bernoulli", "gaussian")  # what explore.py's page can run
BUILDING = ("_target_", "_partial_")  # Hydra's words that are no arguments of a class


def check(cfg: DictConfig, typed: Sequence[str] = ()) -> None:
    """Refuse a configuration with a wrong value or an unknown key, by a `ValueError` of one line.

    `typed` are the overrides that made it; each must have an effect.
    """
    refuse_other_keys("", cfg, [*TOP, *GROUPS])
    # The top level first: its values stand in the groups by interpolation, and the error should name the key typed.
    refuse_wrong_values("", TOP, {name: rule.convert(cfg[name]) for name, rule in TOP.items()})
    config = plain(cfg)
    for group in GROUPS:
        is_group = isinstance(config[group], dict)
        require(is_group, group, config[group], "one of the choices that --help lists")
    for key, name in REPEATED.items():
        group, _, own = key.partition(".")
        value = config[group].get(own, config[name])
        require(value == config[name], key, value, f"{config[name]}, as {name} is: set {name}=… instead")
    for group in RANGES:
        _check_group(group, config[group])
    for name, node in config["logger"].items():
        require(isinstance(node, dict), f"logger.{name}", node, "a logger, with its _target_")
        _check_group(f"logger.{name}", node)
    check_together(config)
    keys = {text.lstrip("+").partition("=")[0] for text in typed}
    if not has_beta(config) and (config["beta"] != 1 or "beta" in keys):
        words = f"must be left out, because objective={choice(config['objective'])} has no β"
        raise ValueError(f"beta={config['beta']:g}: {words}")


def _check_group(group: str, node: Mapping[Any, Any]) -> None:
    """Refuse a wrong class, or wrong keys and values for it.

    A class from elsewhere has the ranges of the class that it replaces, for the keys that both have.
    """
    if "_target_" not in node:
        raise ValueError(left_out(f"{group}._target_"))
    target: Any = node["_target_"]
    is_dotted = isinstance(target, str) and all(target.split(".")) and "." in target
    require(is_dotted, f"{group}._target_", target, "a class as package.module.Class")
    own, ranges = ranges_of(group, node), ranges_in_place(group, node)
    is_ours = target.startswith("vae.")
    if is_ours and own is None:
        words = f"must be one of {classes_of(group)}, or a class from elsewhere"
        raise ValueError(f"{group}._target_={target}: {words}")
    _check_how_it_is_built(group, node)
    keys = [key for key in map(str, node) if key not in BUILDING]
    if own is not None:
        refuse_other_keys(group, keys, own, and_unknown=is_ours)
    if own is None or {*keys} - own.keys():
        _refuse_what_the_class_does_not_take(group, target, keys, [*ranges])
    refuse_wrong_values(group, ranges, node)
    for name, rule in ranges.items():
        if rule.keys:
            refuse_other_keys(f"{group}.{name}", node[name], rule.keys)
    check_class(node)


def _check_how_it_is_built(group: str, node: Mapping[Any, Any]) -> None:
    """Refuse Hydra's own words for building an object, unless the program counts on them."""
    for key in ("_args_", "_convert_", "_recursive_"):
        if key in node:
            raise ValueError(f"{group}.{key}: must be left out, because the program builds its parts in its own way")
    partial, value = group in PARTIAL, node.get("_partial_", False)
    allowed = "true, because the rest is given to it later" if partial else "left out, because nothing is given later"
    require(value is partial, f"{group}._partial_", value, allowed)


def _refuse_what_the_class_does_not_take(group: str, target: str, keys: Sequence[str], replaced: Sequence[str]) -> None:
    """Refuse a class that cannot be imported, or that does not take these keys.

    `replaced` are the keys of the class that it replaces.
    """
    try:
        found = pkgutil.resolve_name(target)
    except Exception as error:
        what = f"cannot be imported ({error or type(error).__name__})"
        raise ValueError(f"{group}._target_={target}: {what}") from error
    require(callable(found), f"{group}._target_", target, "a class")
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # some in C do not say
        return
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return
    takes = {each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    for key in sorted({*keys} - takes):
        if key in replaced:
            raise ValueError(f"{group}._target_={target}: must be a class that takes {key}; else add ~{group}.{key}")
        raise ValueError(f"{group}.{key}: must be left out, because {target} does not take it")


# Plain form -----------------------------------------------------------------------------------------------------------


def without_hydra(cfg: DictConfig) -> DictConfig:
    """The program's own part of what Hydra composed."""
    own = cfg.copy()
    with open_dict(own):
        del own["hydra"]
    return own


def quoted(text: str) -> str:
    """A value for the command line that Hydra reads back as this text, whatever is in it."""
    # A backslash stands for itself, except before a quote (Hydra's parser) and before ${ (OmegaConf).
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    text = re.sub(r"(\\+)$", r"\1\1", text)
    return f"'{text}'"


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as dicts, lists and plain values, fit for JSON and for checkpoints.

    Values have the types of their rules here, and nowhere before: β is 1.0 whether 1, 1.0 or "1" was given.
    """
    content = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(content, dict)
    return converted({str(key): value for key, value in content.items()})


def has_beta(config: Mapping[str, Any]) -> bool:
    """Whether the loss has a β; a user's own objective may have one."""
    return "beta" in config.get("objective", {})


def is_at_mean(config: Mapping[str, Any]) -> bool:
    """Whether codes are the posterior's means: an autoencoder, whose σ nobody trains."""
    return config.get("objective", {}).get("_target_") in AT_MEAN


def objective_name(config: Mapping[str, Any]) -> str:
    """The objective in a few words, with its β where it has one: β 4, tc β 6, iwae."""
    name = kind(config["objective"])
    words = ["" if name == "elbo" else name, f"β {config['objective']['beta']:g}" if has_beta(config) else ""]
    return " ".join(filter(None, words))


def unusual(config: Mapping[str, Any]) -> dict[str, str]:
    """The backbone, its levels and the likelihood in words, where they are not the default ones."""
    found = {}
    for group, usual in USUAL.items():
        name = kind({"_target_": usual} | dict(config.get(group, {})))
        if name != usual:
            found[group] = f"{name} {group}"
    if below := config.get("backbone", {}).get("below"):
        found["levels"] = f"{1 + len(below)} levels"
    return found


def is_explorable(config: Mapping[str, Any]) -> bool:
    """Whether the page of explore.py can run such a model, as far as this program's own classes tell."""
    groups = [config.get(group, {}) for group in USUAL]
    own = [kind(node) for node in groups if str(node.get("_target_")).startswith("vae.")]
    coded = config.get("posterior", {}).get("_target_") in CODINGS
    return not coded and not groups[0].get("below") and {*own} <= {*EXPLORED}


def may_change(flat: Mapping[str, Any], key: str) -> bool:
    """Whether a key may change when a run goes on: it says how long, on which device, what logs, where the data lie."""
    return key in FREE or key.startswith("logger.") or is_place(flat, key)


def is_place(flat: Mapping[str, Any], key: str) -> bool:
    """Whether a key says where the data lies; the root of a folder of images, or of a foreign class, is the data."""
    target = str(flat.get("data._target_", ""))
    fixed = target.startswith("vae.") and target != "vae.data.images.ImageFolder"
    return key == "data.mirrors" or (key == "data.root" and fixed)


def fingerprint(config: Mapping[str, Any], but: Callable[[Mapping[str, Any], str], bool] = may_change) -> str:
    """Hash of what a plain configuration trains: of all keys but those that may change when a run goes on."""
    flat = flatten(config)
    kept = {key: value for key, value in flat.items() if not but(flat, key)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'prior': {'latent_dim': 2}} as {'prior.latent_dim': 2}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
