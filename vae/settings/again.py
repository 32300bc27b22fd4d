"""The command line again, from a plain configuration such as a checkpoint holds. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from vae.settings.classes import converted
from vae.settings.compose import CONF, composed, yamls
from vae.settings.config import flatten, quoted
from vae.settings.ranges import RANGES, TOP


def overrides_for(config: Mapping[str, Any]) -> list[str]:
    """What one types to get this configuration; keys that it lacks, because it is older, are as by default."""
    nearest = {group: _nearest(group, config[group]) for group in RANGES if group in config}
    typed = [f"{group}={name}" for group, name in nearest.items() if name is not None]
    typed += _changes({key: config[key] for key in TOP if key in config}, typed)
    return typed + _changes(config, typed)


def _changes(config: Mapping[str, Any], typed: Sequence[str]) -> list[str]:
    """What one types besides."""
    content = OmegaConf.to_container(composed(*typed), resolve=True)
    assert isinstance(content, dict)
    found, wanted = flatten(converted({str(key): each for key, each in content.items()})), flatten(config)
    changed = [f"++{key}={_typed(each)}" for key, each in wanted.items() if key not in found or found[key] != each]
    targets = {each.lstrip("+").partition(".")[0] for each in changed if "._target_=" in each}
    return changed + [f"~{key}" for key in found if key not in wanted and key.partition(".")[0] in targets]


def _nearest(group: str, node: Mapping[str, Any]) -> str | None:
    """The YAML of a group that has this node's class and most of its values; None where there is none."""
    wanted, found = flatten(node), {}
    for name in yamls(group):
        content = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
        assert isinstance(content, dict)
        own = flatten({str(key): value for key, value in content.get(group, content).items()})  # some are of _global_
        if own.get("_target_") == node["_target_"]:
            found[name] = sum(wanted.get(key) != value for key, value in own.items())
    return min(found, key=found.__getitem__, default=None)


def _typed(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else json.dumps(value)
