"""Checking a composed configuration, and its plain form. Imports no torch: a refused value answers at once."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from vae.schemas import REPEATED, SCHEMAS, Config, require

NOT_GAUSSIAN = ("vae.priors.Mixture", "vae.priors.Vamp", "vae.priors.Flow")
INDEPENDENT = ("vae.objectives.TC", "vae.objectives.DIP")  # what they ask the dimensions to be


def check(cfg: DictConfig, typed: Sequence[str] = ()) -> None:
    """Refuse a configuration with a wrong value or an unknown key, by a `ValueError` of one line.

    `typed` are the overrides that made it, of which none may be without any effect.
    """
    # The top level first: its values stand in the groups by interpolation, and the error should name the key typed.
    top = {key: cfg[key] for key in ("latent_dim", "beta", "epochs", "seed", "report")}
    Config(**top)
    _refuse_unknown_keys(cfg, known={field.name for field in fields(Config)}, prefix="")
    for group in SCHEMAS:
        _refuse_unknown_class(group, cfg[group])
    for key, name in REPEATED.items():
        value = OmegaConf.select(cfg, key, default=top[name])
        require(value == top[name], key, value, f"{top[name]}, as {name} is: set {name}=… instead")
    for group in SCHEMAS:
        node = cfg[group]
        schema = OmegaConf.get_type(node)
        if schema is not None and schema in SCHEMAS[group].values():
            if str(node._target_).startswith("vae."):
                _refuse_unknown_keys(node, known={field.name for field in fields(schema)}, prefix=f"{group}.")
            OmegaConf.to_object(node)  # runs the schemas' __post_init__
    _check_together(cfg)
    keys = {text.lstrip("+").partition("=")[0] for text in typed}
    if not has_beta(cfg) and (cfg.beta != 1 or "beta" in keys):
        raise ValueError(f"beta={cfg.beta:g}: must be left out, because objective={kind(cfg.objective)} has no β")


def _check_together(cfg: DictConfig) -> None:
    """Refuse choices that are good by themselves but not with each other."""
    prior = cfg.prior._target_
    if cfg.posterior._target_ == "vae.posteriors.Tied" and prior in NOT_GAUSSIAN:
        name = prior.rpartition(".")[2]
        raise ValueError(f"posterior=tied: must be diagonal or full with a prior that is not Gaussian ({name})")
    objective = cfg.objective
    if objective._target_ in INDEPENDENT and prior in NOT_GAUSSIAN:
        raise ValueError(
            f"objective={kind(objective)}: must have a Gaussian prior, such as isotropic, correlated or learned, as it "
            f"asks for codes as independent as that is, and those of prior={kind(cfg.prior)} are nowhere independent"
        )
    if objective.get("free_bits") and objective.free_bits_per == "dimension":
        parts = ("vae.priors.Isotropic", "vae.posteriors.Diagonal")
        ok = not str(prior).startswith("vae.") or (prior, cfg.posterior._target_) == parts
        allowed = "total, but for prior=isotropic with posterior=diagonal, whose KL is a sum over dimensions"
        require(ok, "objective.free_bits_per", objective.free_bits_per, allowed)
    warmup = OmegaConf.select(cfg, "objective.warmup", default=0)
    require(warmup <= cfg.epochs, "objective.warmup", f"{warmup:g}", f"at most the training's {cfg.epochs} epochs")


def _refuse_unknown_keys(node: DictConfig, known: set[str], prefix: str) -> None:
    for key in map(str, node):
        if key not in known:
            raise ValueError(unknown_key(f"{prefix}{key}", [f"{prefix}{name}" for name in known]))


def unknown_key(key: str, known: list[str]) -> str:
    """The sentence that refuses a key which exists nowhere, with the nearest ones or all."""
    prefix, dot, last = key.rpartition(".")
    names = sorted(name.rpartition(".")[2] for name in known)
    names = [name for name in names if not name.startswith("_") and name != last]
    near = difflib.get_close_matches(last, names, n=3, cutoff=0.6)
    shown = [f"{prefix}{dot}{name}" for name in near or names]
    hint = f"did you mean {' or '.join(shown)}?" if near else f"allowed are {', '.join(shown) or 'none here'}"
    return f"{key}: no such key; {hint}"


def _refuse_unknown_class(group: str, node: DictConfig) -> None:
    """A class must be named, and the module that holds it must exist; importing it would need torch."""
    target = node.get("_target_")
    require(isinstance(target, str) and "." in target, f"{group}._target_", target, "a class as package.module.Class")
    try:
        found = importlib.util.find_spec(target.split(".")[0]) is not None
    except (ImportError, ValueError):
        found = False
    require(found, f"{group}._target_", target, f"importable, but there is no module {target.split('.')[0]}")


# Plain form -----------------------------------------------------------------------------------------------------------


def without_hydra(cfg: DictConfig) -> DictConfig:
    """The program's own part of what Hydra composed."""
    own = cfg.copy()
    with open_dict(own):
        del own["hydra"]
    return own


def quoted(text: str) -> str:
    """A value for the command line that Hydra reads back as this text, whatever is in it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


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
    return config.get("objective", {}).get("_target_") == "vae.objectives.Autoencoder"


def objective_name(config: Mapping[str, Any]) -> str:
    """The objective in a few words, with its β where it has one: β 4, tc β 6, iwae."""
    name = kind(config["objective"])
    words = ["" if name == "elbo" else name, f"β {config['objective']['beta']:g}" if has_beta(config) else ""]
    return " ".join(filter(None, words))


def fingerprint(config: Mapping[str, Any]) -> str:
    """Hash of a plain configuration: two runs with the same one do the same."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'prior': {'latent_dim': 2}} as {'prior.latent_dim': 2}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
