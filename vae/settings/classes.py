"""The ranges of a node of the configuration, by the class that it names. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vae.settings.loggers import LOGGERS
from vae.settings.ranges import RANGES, TOP, TRAINER, TRAINER_OF_PROCESSES, Ranges
from vae.settings.rules import anything, boolean

CLIP = ("gradient_clip_val", "gradient_clip_algorithm")


def classes_of(group: str) -> str:
    """The classes of a group, for a sentence."""
    return ", ".join(_classes(group))


def has_other_arguments(trainer: Mapping[str, Any]) -> bool:
    """Whether a Trainer has an argument that no YAML has, which may count batches."""
    usual = RANGES["trainer"]["pytorch_lightning.Trainer"].keys() | {"_target_", "strategy", *CLIP}
    return not trainer.keys() <= usual


def _classes(group: str) -> Mapping[str, Ranges]:
    """The ranges of a group's classes; of one logger all loggers'."""
    return LOGGERS if group.startswith("logger.") else RANGES[group]


def ranges_of(group: str, node: Mapping[Any, Any]) -> Ranges | None:
    """The ranges of a node's class; None of a class from elsewhere."""
    target = node.get("_target_")
    found = _classes(group).get(target) if isinstance(target, str) else None
    return TRAINER_OF_PROCESSES if found is TRAINER and "strategy" in node else found


def ranges_in_place(group: str, node: Mapping[Any, Any]) -> Ranges:
    """The same; a class from elsewhere has those of the class that it replaces, whose YAML's keys come first."""
    own = ranges_of(group, node)
    if own is not None:
        return own
    keys = [key for key in map(str, node) if not key.startswith("_")]
    known = [*_classes(group).values(), *([TRAINER_OF_PROCESSES] if group == "trainer" else [])]
    fitting = [ranges for ranges in known if ranges.keys() == {*keys[: len(ranges)]}]
    return max(fitting, key=len, default={})


def converted(config: Mapping[str, Any]) -> dict[str, Any]:
    """A plain configuration whose values have the types of their rules, where they can be converted to those."""
    result = {}
    for key, value in config.items():
        if key in TOP:
            value = TOP[key].convert(value)
        elif key in RANGES:
            value = _converted(key, value)
        elif key == "logger" and isinstance(value, dict):
            value = {name: _converted(f"logger.{name}", node) for name, node in value.items()}
        result[key] = value
    return result


def _converted(group: str, node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    ranges = {"_partial_": boolean, **ranges_in_place(group, node)}
    return {name: ranges.get(name, anything).convert(each) for name, each in node.items()}
