"""Checking a composed configuration, and its plain form. Imports no torch: a refused value answers at once."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from vae.settings.schemas import REPEATED, SCHEMAS, Config, Schema, VisibleGPUs, require

NOT_GAUSSIAN = ("vae.model.priors.Mixture", "vae.model.priors.Vamp", "vae.model.priors.Flow")
FREE = (
    "epochs",
    *(f"trainer.{name}" for name in ("max_epochs", "accelerator", "devices", "strategy", "log_every_n_steps")),
)
INDEPENDENT = ("vae.model.objectives.TC", "vae.model.objectives.DIP")  # what they ask the dimensions to be


def check(cfg: DictConfig, typed: Sequence[str] = ()) -> None:
    """Refuse a configuration with a wrong value or an unknown key, by a `ValueError` of one line.

    `typed` are the overrides that made it, of which none may be without any effect.
    """
    # The top level first: its values stand in the groups by interpolation, and the error should name the key typed.
    _refuse_other_keys(cfg, Config)
    Config(**{str(key): cfg[key] for key in cfg})
    for key, name in REPEATED.items():
        value = OmegaConf.select(cfg, key, default=cfg[name])
        require(value == cfg[name], key, value, f"{cfg[name]}, as {name} is: set {name}=… instead")
    for group in SCHEMAS:
        _check_group(group, cfg[group])
    _check_together(cfg)
    keys = {text.lstrip("+").partition("=")[0] for text in typed}
    if not has_beta(cfg) and (cfg.beta != 1 or "beta" in keys):
        raise ValueError(f"beta={cfg.beta:g}: must be left out, because objective={kind(cfg.objective)} has no β")


def check_machine(cfg: DictConfig, gpus: VisibleGPUs) -> None:
    """Refuse a checked configuration that cannot be trained on this machine: a file or a device is missing."""
    for group in ("data", "trainer"):
        schema = schema_of(group, cfg[group])
        if schema is not None:
            schema(**_values(cfg[group], schema)).check_machine(gpus)


def _check_group(group: str, node: DictConfig) -> None:
    """Refuse a wrong class, or wrong keys and values for it.

    Of a class from elsewhere, the keys that it shares with the one in whose place it stands have the same ranges.
    """
    if "_target_" not in node:
        raise ValueError(left_out(f"{group}._target_"))
    target: Any = node["_target_"]
    is_dotted = isinstance(target, str) and all(target.split(".")) and "." in target
    require(is_dotted, f"{group}._target_", target, "a class as package.module.Class")
    schema = schema_of(group, node)
    is_own = target.startswith("vae.")
    if is_own and schema is None:
        classes = dict.fromkeys(name for each in SCHEMAS[group].values() for name in each.CLASSES)
        raise ValueError(f"{group}._target_={target}: must be one of {', '.join(classes)}, or a class from elsewhere")
    _check_how_it_is_built(group, node)
    if schema is not None:
        _refuse_other_keys(node, schema, and_unknown=is_own)
        if node.keys() - names(schema):
            _refuse_what_the_class_does_not_take(group, node, schema)
        schema(**_values(node, schema))
    else:
        of_yaml = [schema for schema in SCHEMAS[group].values() if schema is OmegaConf.get_type(node)]
        in_place_of = of_yaml[0] if of_yaml else Schema  # a YAML may do without
        _refuse_what_the_class_does_not_take(group, node, in_place_of)
        in_place_of.check_rules(_values(node, in_place_of))


def schema_of(group: str, node: Mapping[Any, Any]) -> type[Schema] | None:
    """The schema of a node's class, whatever YAML the node came from; None of a class from elsewhere."""
    schemas = [schema for schema in SCHEMAS[group].values() if node.get("_target_") in schema.CLASSES]
    schemas.sort(key=lambda schema: schema is not OmegaConf.get_type(node))  # that of its YAML first
    return next(iter(schemas), None)


def names(schema: type[Schema]) -> list[str]:
    """The keys of a schema."""
    return [each.name for each in fields(schema)]


def _values(node: DictConfig, schema: type[Schema]) -> dict[str, Any]:
    """The plain values of the keys that a node shares with a schema."""
    content = plain(node)
    return {name: content[name] for name in names(schema) if name in content}


def _check_how_it_is_built(group: str, node: DictConfig) -> None:
    """Refuse Hydra's own words for building an object, where they are not those that the program counts on."""
    for key in ("_args_", "_convert_", "_recursive_"):
        if key in node:
            raise ValueError(f"{group}.{key}: must be left out, because the program builds its parts in its own way")
    partial = any("_partial_" in names(schema) for schema in SCHEMAS[group].values())
    allowed = "true, because the rest is given to it later" if partial else "left out, because nothing is given later"
    # Not `get`, whose error for a broken interpolation names no key.
    value = node["_partial_"] if "_partial_" in node else False  # noqa: SIM401
    require(value is partial, f"{group}._partial_", value, allowed)


def _refuse_what_the_class_does_not_take(group: str, node: DictConfig, schema: type[Schema]) -> None:
    """Import a class that a user named, or gave more keys than its schema has, and compare its arguments' names."""
    target = node._target_
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
    for key in sorted(set(map(str, node)) - takes - {"_target_", "_partial_"}):
        if key in names(schema):  # of which none can be left out
            words = f"must be a class that takes {key}; one that does not needs a YAML of its own in conf/{group}"
            raise ValueError(f"{group}._target_={target}: {words}")
        raise ValueError(f"{group}.{key}: must be left out, because {target} does not take it")


def _check_together(cfg: DictConfig) -> None:
    """Refuse choices that are good by themselves but not with each other."""
    prior = cfg.prior._target_
    if cfg.posterior._target_ == "vae.model.posteriors.Tied" and prior in NOT_GAUSSIAN:
        name = prior.rpartition(".")[2]
        raise ValueError(f"posterior=tied: must be diagonal or full with a prior that is not Gaussian ({name})")
    objective = cfg.objective
    if objective._target_ in INDEPENDENT and prior in NOT_GAUSSIAN:
        raise ValueError(
            f"objective={kind(objective)}: must have a Gaussian prior, such as isotropic, correlated or learned, as it "
            f"asks for codes as independent as that is, and those of prior={kind(cfg.prior)} are nowhere independent"
        )
    if objective.get("free_bits") and objective.free_bits_per == "dimension":
        parts = ("vae.model.priors.Isotropic", "vae.model.posteriors.Diagonal")
        ok = not str(prior).startswith("vae.") or (prior, cfg.posterior._target_) == parts
        allowed = "total, but for prior=isotropic with posterior=diagonal, whose KL is a sum over dimensions"
        require(ok, "objective.free_bits_per", objective.free_bits_per, allowed)
    warmup = objective.warmup if objective._target_ == "vae.model.objectives.ELBO" else 0
    require(warmup <= cfg.epochs, "objective.warmup", f"{warmup:g}", f"at most the training's {cfg.epochs} epochs")


def _refuse_other_keys(node: DictConfig, schema: type[Schema], and_unknown: bool = True) -> None:
    """Refuse keys that a schema does not have, and that some of its own are missing."""
    prefix = f"{schema.GROUP}." if schema.GROUP else ""
    for name in names(schema):
        if name not in node:
            raise ValueError(left_out(f"{prefix}{name}"))
    for key in map(str, node):
        if and_unknown and key not in names(schema):
            raise ValueError(unknown_key(f"{prefix}{key}", [f"{prefix}{name}" for name in names(schema)]))


def left_out(key: str) -> str:
    """The sentence that refuses that a key is missing, or has no value."""
    return f"{key}: cannot be left out; give it as {key}=…"


def unknown_key(key: str, known: list[str]) -> str:
    """The sentence that refuses a key which exists nowhere, with the nearest ones or all."""
    prefix, dot, last = key.rpartition(".")
    names = sorted(name.rpartition(".")[2] for name in known)
    names = [name for name in names if not name.startswith("_") and name != last]
    near = difflib.get_close_matches(last, names, n=3, cutoff=0.6)
    shown = [f"{prefix}{dot}{name}" for name in near or names]
    hint = f"did you mean {' or '.join(shown)}?" if near else f"allowed are {', '.join(shown) or 'none here'}"
    return f"{key}: no such key; {hint}"


# Plain form -----------------------------------------------------------------------------------------------------------


def without_hydra(cfg: DictConfig) -> DictConfig:
    """The program's own part of what Hydra composed."""
    own = cfg.copy()
    with open_dict(own):
        del own["hydra"]
    return own


def quoted(text: str) -> str:
    """A value for the command line that Hydra reads back as this text, whatever is in it."""
    # Backslashes are themselves but before a quote, which Hydra's parser unescapes, and ${, which OmegaConf does.
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    text = re.sub(r"(\\+)$", r"\1\1", text)
    return f"'{text}'"


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as dicts, lists and plain values, fit for JSON and for checkpoints."""
    content = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def kind(node: Mapping[str, Any]) -> str:
    """What a group's choice is called in words: its class in lower case."""
    return str(node["_target_"]).rpartition(".")[2].lower()


def has_beta(config: Mapping[str, Any]) -> bool:
    """Whether the loss has a β: the objective of a class of one's own may have one, too."""
    return "beta" in config.get("objective", {})


def is_at_mean(config: Mapping[str, Any]) -> bool:
    """Whether codes are the posterior's means: an autoencoder, whose σ nobody trains."""
    return config.get("objective", {}).get("_target_") == "vae.model.objectives.Autoencoder"


def objective_name(config: Mapping[str, Any]) -> str:
    """The objective in a few words, with its β where it has one: β 4, tc β 6, iwae."""
    name = kind(config["objective"])
    words = ["" if name == "elbo" else name, f"β {config['objective']['beta']:g}" if has_beta(config) else ""]
    return " ".join(filter(None, words))


def may_change(flat: Mapping[str, Any], key: str) -> bool:
    """Whether a flat configuration's key says how long, where from or on which device is trained, but not what."""
    return key in FREE or is_place(flat, key)


def is_place(flat: Mapping[str, Any], key: str) -> bool:
    """Whether a key says where the data lies; the root of a folder of images, or of a foreign class, is the data."""
    target = str(flat.get("data._target_", ""))
    fixed = target.startswith("vae.") and target != "vae.data.images.ImageFolder"
    return key == "data.mirrors" or (key == "data.root" and fixed)


def fingerprint(config: Mapping[str, Any], but: Callable[[Mapping[str, Any], str], bool] = may_change) -> str:
    """Hash of a plain configuration, but for some keys: what it trains, without what may change on going on."""
    flat = flatten(config)
    kept = {key: value for key, value in flat.items() if not but(flat, key)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'prior': {'latent_dim': 2}} as {'prior.latent_dim': 2}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
