import math

import pytest
from omegaconf import BooleanNode, FloatNode, IntegerNode, StringNode
from omegaconf.errors import ValidationError

from vae.settings.rules import boolean, integer, listed, number, optional, positive, text, word

ZOO = [
    *(0, 1, 2, -3, 10**400, True, False, 0.0, 1.0, 0.5, 1e-3, math.inf, None, [], [1], {}, {"a": 1}, b"a"),
    *("", " ", "0", "1", " 4 ", "4_0", "+4", "1.0", "1e-3", "inf", "x", "null", "None", "[1]"),
    *("true", "True", "yes", "Y", "on", "false", "no", "N", "OFF", "9" * 5000),
]


@pytest.mark.parametrize(
    ("rule", "node"),
    [
        (integer(0, 9), IntegerNode),
        (number(), FloatNode),
        (positive(), FloatNode),
        (boolean, BooleanNode),
        (text, StringNode),
    ],
)
def test_a_value_is_converted_as_omegaconf_does(rule, node):
    for value in ZOO:
        try:
            expected = node(value)._value()
        except (ValidationError, OverflowError):
            expected = value  # left as it is, and then not allowed
            assert not rule.allows(rule.convert(value))
        assert repr(rule.convert(value)) == repr(expected)


def test_entries_and_what_may_be_null_are_converted():
    rule = optional(listed(1, 2, number(), "numbers"))
    assert rule.convert(None) is None and rule.convert("x") == "x"
    assert repr(rule.convert([1, "2", None])) == "[1.0, 2.0, None]"
    assert [rule.allows(value) for value in (None, [1], [], [1, 2, 3], [None], "1", ["1"])] == [
        True,
        True,
        *[False] * 5,
    ]


def test_types_are_exact():
    assert not any(integer(0, 1).allows(value) for value in (True, 1.0, "1", None, [1]))
    assert number().allows(1) and not any(number().allows(value) for value in (True, "1", None, math.nan, math.inf))
    assert not any(boolean.allows(value) for value in (1, "true", None))
    assert not any(word("a").allows(value) for value in (["a"], "b", None))
