"""Keys that are missing or do not exist, and the words for them. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from omegaconf import OmegaConf

from vae.settings.ranges import GROUPS, RANGES
from vae.settings.rules import dotted


def refuse_other_keys(group: str, given: Iterable[Any], known: Iterable[str], and_unknown: bool = True) -> None:
    """Refuse a group that lacks a known key, or has others."""
    given, known = [*map(str, given)], [*known]
    for name in known:
        if name not in given:
            raise ValueError(left_out(dotted(group, name)))
    for name in given:
        if and_unknown and name not in known:
            raise ValueError(unknown_key(dotted(group, name), known))


def left_out(key: str) -> str:
    """The sentence that refuses that a key is missing, or has no value."""
    return f"{key}: cannot be left out; give it as {key}=…"


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The sentence that refuses a key which does not exist, and says which does.

    That is the same key of another choice, the same name in a group where none was typed, one of the nearest names
    beside it, or any of them.
    """
    group, _, name = key.rpartition(".")
    if having := _choices_with(group, name):
        return f"{key}: no such key of this {group}; it comes with {' or '.join(having)}"
    beside = sorted({each.rpartition(".")[2] for each in known} - {name})
    meant = {each: [dotted(group, each)] for each in beside if not each.startswith("_")}
    everywhere = meant if group else _in_groups() | meant
    near = [name] if name in everywhere else _close(name, meant) or _close(name, everywhere)
    if near:
        return f"{key}: no such key; did you mean {' or '.join(full for each in near for full in everywhere[each])}?"
    return f"{key}: no such key; allowed are {', '.join(full for [full] in meant.values()) or 'none here'}"


def _close(name: str, names: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, list(names), n=3, cutoff=0.6)


def _choices_with(group: str, name: str) -> list[str]:
    """The choices of a group that have a key of this name."""
    from vae.settings.compose import CONF, yamls  # imports Hydra, which those that compare runs do without

    files = [(choice, CONF / group / f"{choice}.yaml") for choice in yamls(group)] if group in GROUPS else []
    nodes: list[tuple[str, Any]] = [(choice, OmegaConf.load(file)) for choice, file in files]
    return [f"{group}={choice}" for choice, node in nodes if name in node.get(group, node)]  # some are of _global_


def _in_groups() -> dict[str, list[str]]:
    """All groups' keys by their own names, such as optimizer.lr by lr."""
    found: dict[str, list[str]] = {}
    for group, classes in RANGES.items():
        for name in dict.fromkeys(name for ranges in classes.values() for name in ranges):
            found.setdefault(name, []).append(f"{group}.{name}")
    return found
