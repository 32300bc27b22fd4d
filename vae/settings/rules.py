"""Rules for values: how a typed one is converted, which are allowed, and the words for them. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

LARGEST = 1e30  # of floats: products with it stay in single precision, which ends at 3.4e38


def _as_it_is(value: Any) -> Any:
    return value


class Rule(NamedTuple):
    """What a key's value must be.

    `allows` also checks the type: true is no integer, but an integer is a number. `convert` comes first, because the
    command line and the environment may give another type; it leaves alone what it cannot convert.
    """

    allows: Callable[[Any], bool]
    words: str
    convert: Callable[[Any], Any] = _as_it_is
    keys: Mapping[str, Any] = {}  # rules of the values in it, by key


# Conversions, as OmegaConf makes them where a dataclass says the type -------------------------------------------------


def _as_integer(value: Any) -> Any:
    try:
        return int(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _as_number(value: Any) -> Any:
    try:
        return float(value) if type(value) in (int, str) else value
    except (ValueError, OverflowError):
        return value


def _as_boolean(value: Any) -> Any:
    value = _as_integer(value)
    if isinstance(value, int):
        return value != 0
    said = {True: ("yes", "y", "on", "true"), False: ("no", "n", "off", "false")}
    return next((each for each, words in said.items() if str(value).lower() in words), value)


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) else value


# Rules ----------------------------------------------------------------------------------------------------------------

anything = Rule(lambda value: True, "anything")
boolean = Rule(lambda value: type(value) is bool, "true or false", _as_boolean)
text = Rule(lambda value: isinstance(value, str), "a text", _as_text)


def integer(low: int, high: int) -> Rule:
    """An integer in a range, both ends included."""
    return Rule(lambda value: is_integer(value, low, high), f"an integer from {low} to {high}", _as_integer)


def one_of(words: str, *allowed: int) -> Rule:
    """One of some integers."""
    return Rule(lambda value: type(value) is int and value in allowed, words, _as_integer)


def number(low: float = -LARGEST, high: float = LARGEST, why: str = "") -> Rule:
    """A number in a range, both ends included."""
    words = f"a number from {low:g} to {high:g}{why}"
    return Rule(lambda value: is_number(value) and low <= value <= high, words, _as_number)


def positive() -> Rule:
    """A number above 0."""
    return Rule(is_positive, POSITIVE, _as_number)


def fraction() -> Rule:
    """A number between 0 and 1, both excluded."""
    return Rule(lambda value: is_number(value) and 0 < value < 1, "between 0 and 1, both excluded", _as_number)


def below_one(words: str) -> Rule:
    """A number from 0 to 1, without 1 itself."""
    return Rule(lambda value: is_number(value) and 0 <= value < 1, words, _as_number)


def word(*allowed: str) -> Rule:
    """One of some words."""
    return Rule(lambda value: isinstance(value, str) and value in allowed, f"one of {', '.join(allowed)}", _as_text)


def listed(least: int, most: int, each: Rule, words: str) -> Rule:
    """A list of `least` to `most` entries, all of one rule."""

    def allows(value: Any) -> bool:
        return isinstance(value, list) and least <= len(value) <= most and all(map(each.allows, value))

    return Rule(allows, words, lambda value: [*map(each.convert, value)] if isinstance(value, list) else value)


def widths(most: int, high: int) -> Rule:
    """The widths of up to `most` layers."""
    return listed(1, most, integer(1, high), f"a list of 1 to {most} integers from 1 to {high}")


def texts_by_name(words: str) -> Rule:
    """Texts, each with a name."""

    def allows(value: Any) -> bool:
        return isinstance(value, dict) and all(isinstance(each, str) for pair in value.items() for each in pair)

    def convert(value: Any) -> Any:
        return {_as_text(key): _as_text(each) for key, each in value.items()} if isinstance(value, dict) else value

    return Rule(allows, words, convert)


def keyed(rules: Mapping[str, Rule]) -> Rule:
    """Values by key, each with a rule of its own."""

    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: rules.get(key, anything).convert(each) for key, each in value.items()}

    return Rule(lambda value: isinstance(value, dict), f"values of {', '.join(rules)}", convert, rules)


def optional(rule: Rule) -> Rule:
    """The same, or null."""

    def convert(value: Any) -> Any:
        return None if value is None else rule.convert(value)

    return Rule(lambda value: value is None or rule.allows(value), f"null or {rule.words}", convert)


def is_integer(value: Any, low: int, high: int) -> bool:
    """Whether it is an integer in a range; true and false are none."""
    return type(value) is int and low <= value <= high


def is_number(value: Any) -> bool:
    """Whether it is a number, NaN and infinity included; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_positive(value: Any) -> bool:
    """Whether it is a number above 0 that single precision can hold."""
    return is_number(value) and 0 < value <= LARGEST


POSITIVE = f"a number above 0, at most {LARGEST:g}"


# Refusals in one line -------------------------------------------------------------------------------------------------


def require(ok: bool, key: str, value: object, allowed: str) -> None:
    """Refuse a value in one line that names the key, the value and what is allowed."""
    if not ok:
        raise ValueError(f"{key}={value}: must be {allowed}")


def as_typed(value: object) -> str:
    """A value as it was given on the command line, or nearly so."""
    return "null" if value is None else str(value)


def refuse_wrong_values(
    group: str, rules: Mapping[str, Rule], values: Mapping[Any, Any], shown: Callable[[object], str] = as_typed
) -> None:
    """Refuse the first value of a group, or of the top level, that its rule does not allow."""
    for name, rule in rules.items():
        if name in values and not rule.allows(values[name]):
            require(False, dotted(group, name), shown(values[name]), rule.words)
        if name in values and rule.keys:
            refuse_wrong_values(dotted(group, name), rule.keys, values[name], shown)


def dotted(group: str, name: str) -> str:
    """The whole key; the top level's group is empty."""
    return f"{group}.{name}" if group else name
