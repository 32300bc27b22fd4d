"""What is in a checkpoint: which keys, and which values they may have. Of files that may be damaged or hostile."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vae.model.build import PARTS
from vae.settings.classes import ranges_of
from vae.settings.ranges import RANGES
from vae.settings.rules import Rule, refuse_wrong_values

# Far more than any run writes.
MOST_VALUES = 2**21  # in what a checkpoint says of itself: 50,000 epochs' losses, for example
MOST_LEVELS = 20  # that they are nested

HISTORY = "callbacks.Scalars.history"


def is_count(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value < 2**63


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.splitlines() in ([], [value])


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("_target_"), str)


def _is_weight(value: Any) -> bool:
    """Whether it is a plain tensor, of whose numbers each has a place in memory."""
    is_plain = type(value) is Tensor and value.device.type == "cpu" and value.layout is torch.strided
    return is_plain and not value.is_quantized and not value.is_nested


def _is_history(value: Any) -> bool:
    """Whether it has an epoch's number in each row, and the same losses, in training as in validation."""
    if not _has_only(dict)(value):
        return False
    keys = value[0].keys() if value else {"epoch", "train/loss", "val/loss"}
    both = [{key.removeprefix(part) for key in keys if key.startswith(part)} for part in ("train/", "val/")]
    is_whole = "epoch" in keys and "loss" in both[0] and both[0] == both[1]
    return is_whole and all(
        row.keys() == keys and all(type(each) in (int, float) for each in row.values()) for row in value
    )


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _has_only(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(each, kind) for each in value)


_COUNT = Rule(is_count, "an integer of at least 0")
_NODE = Rule(_is_node, "a group of the configuration, with its _target_")
_STATES = Rule(_has_only(dict), "a list of states")

NEEDED = {
    "state_dict": Rule(
        lambda value: isinstance(value, dict) and all(map(_is_name, value)) and all(map(_is_weight, value.values())),
        "plain tensors by their names",
    ),
    "epoch": _COUNT,
    "global_step": _COUNT,
    "vae.shape": Rule(
        lambda value: isinstance(value, list) and len(value) == 3 and all(is_count(size, 1) for size in value),
        "[channels, height, width], each at least 1",
    ),
    "vae.data": Rule(_is_name, "a name"),
    "vae.classes": Rule(lambda value: isinstance(value, list) and all(map(_is_name, value)), "a list of names"),
    "vae.config": Rule(_is(dict), "a configuration"),
    "vae.config.latent_dim": Rule(lambda value: is_count(value, 1), "an integer of at least 1"),
    "vae.config.conditional": Rule(_is(bool), "true or false"),
    **{f"vae.config.{group}": _NODE for group in (*PARTS, "data", "objective")},
}
WHERE_THERE = {
    **{f"vae.config.{group}": _NODE for group in RANGES},
    "callbacks": Rule(_is(dict), "states by the names of what they are of"),
    "callbacks.Scalars": Rule(_is(dict), "a state"),
    HISTORY: Rule(_is_history, "a list of epochs with their losses"),
    "loops": Rule(_is(dict), "states by the names of what they are of"),
    "optimizer_states": _STATES,
    "lr_schedulers": _STATES,
}


def refuse_wrong_content(checkpoint: Mapping[str, Any]) -> None:
    """Refuse the first key that is missing or whose value is none that this program writes.

    What model and data are made of may be a user's own: it is looked at when they are made.
    """
    for value in _found(checkpoint, HISTORY):
        refuse_unfolding(HISTORY, value)
    for key, rule in (NEEDED | WHERE_THERE).items():
        found = _found(checkpoint, key)
        if not found and key in NEEDED:
            raise ValueError(f"{key}: is missing, but must be {rule.words}")
        for value in found:
            if not rule.allows(value):
                raise ValueError(f"{key}={reprlib.repr(value)}: must be {rule.words}")
    config = checkpoint["vae"]["config"]
    for group in RANGES.keys() & config.keys() - {*PARTS, "data", "trainer"}:  # what trained it is no longer asked for
        if ranges := ranges_of(group, config[group]):
            refuse_wrong_values(group, ranges, config[group], reprlib.repr)


def _found(content: Any, key: str) -> list[Any]:
    """The value in nested dicts under a key such as vae.config.latent_dim; none where there is no such key."""
    for name in key.split("."):
        if not isinstance(content, dict) or name not in content:
            return []
        content = content[name]
    return [content]


def refuse_unfolding(key: str, value: Any) -> None:
    """Refuse what is not of plain values, or of too many: a part that is referred to often may unfold to any number."""
    level, count = [value], 0
    for _ in range(MOST_LEVELS):
        deeper: list[Any] = []
        for each in level:
            inner: list[Any] = []
            if isinstance(each, dict):
                inner = [*each, *each.values()]
            elif isinstance(each, list):
                inner = each
            elif isinstance(each, str):
                count += len(each) // 8  # as many bytes as a number has
            elif not (each is None or isinstance(each, bool | int | float)):
                raise ValueError(f"{key}: holds {reprlib.repr(each)}, but must be of plain values")
            count += len(inner)
            if count > MOST_VALUES:
                raise ValueError(f"{key}: holds more than {MOST_VALUES:,} values")
            deeper += inner
        level = deeper
    if level:
        raise ValueError(f"{key}: is nested more than {MOST_LEVELS} levels deep")
