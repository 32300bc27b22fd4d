import pytest

from vae.runs import measured
from vae.settings.ranges import METRICS


def shown(**values):
    (row,) = measured.rows(values)
    return row.value, row.error, row.unit, row.better


def test_each_measure_is_there_and_no_name_twice():
    assert tuple(measured.NUMBERS) == METRICS
    names = [name for numbers in measured.NUMBERS.values() for name in numbers]
    assert len(names) == len(set(names)) and not measured._ERRORS & set(names)
    assert {number.better for numbers in measured.NUMBERS.values() for number in numbers.values()} == {
        *("", measured.LOWER, measured.HIGHER)
    }


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (149.2261, 0.02796, ("149.226", "± 0.028")),
        (149.2261, 0.0996, ("149.23", "± 0.10")),  # rounded first
        (149.2261, 9.96, ("149", "± 10")),
        (149.2261, 3.48, ("149.2", "± 3.5")),
        (1492.61, 34.8, ("1493", "± 35")),
        (0.1, 0.00012, ("0.10000", "± 0.00012")),
        (149.2261, 0.0, ("149.2", "")),  # nothing is known to the last digit
        (149.2261, float("nan"), ("149.2", "")),
    ],
)
def test_a_value_has_as_many_digits_as_its_error(value, error, text):
    assert shown(nll=value, nll_error=error) == (*text, "nats", "lower")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("mse", 0.0422871, "0.04229"),
        ("mse", 0.0, "0.000"),
        ("mse", 1.234e-9, "1.23e-09"),
        ("samples_frechet", 99.996, "100.0"),
        ("samples_kernel", 123456.7, "123457"),
        ("samples_kernel", -1.23456, "-1.235"),
        ("psnr", float("inf"), "inf"),
        ("nll_images", 10000, "10,000"),
        ("knn_accuracy", 0.6705, "67.0"),  # of a hundred
        ("knn_accuracy", 1.0, "100.0"),
    ],
)
def test_a_value_without_an_error_has_four_digits_and_a_share_one_after_the_point(name, value, text):
    assert shown(**{name: value})[:2] == (text, "")


def test_a_table_has_a_head_units_and_directions_within_eighty_columns():
    values = {
        name: 0.123456789 for numbers in measured.NUMBERS.values() for name in numbers if not name.endswith("_images")
    }
    values |= dict.fromkeys(measured._ERRORS, 0.00012345)
    rows = measured.rows(values)
    rule, head, _, *lines, last = measured.text(rows)
    assert max(map(len, [rule, head, *lines])) < 80 and rule == last and set(rule) == {"─"}
    assert head.split() == ["measure", "number", "value", "±", "unit", "better"]
    assert [row.name for row in rows] == list(values)[: len(rows)]  # errors have no line of their own
    for line, row in zip(lines, rows, strict=True):
        cells = [row.name, row.value, *row.error.split(), *row.unit.split(), row.better]
        assert line.split()[-len([*filter(None, cells)]) :] == [*filter(None, cells)]
    assert [line.split()[0] for line in lines if line[0] != " "] == list(METRICS)  # each measure is named once
    assert {line.index(row.name) for line, row in zip(lines, rows, strict=True)} == {16}
    assert measured.text([]) == []


def test_the_nats_of_a_table_say_of_what_their_error_is():
    assert measured.notes(measured.rows({"mse": 1.0})) == []
    assert measured.notes(measured.rows({"mi": 1.0, "mi_error": 0.1})) == [measured.ERRORS]
    assert measured.notes(measured.rows({"nll": 1.0, "nll_error": 0.1})) == [measured.OF_IMAGES]


def test_a_number_that_nobody_knows_is_shown_last():
    rows = measured.rows({"strangeness": 0.5, "mse": 0.25})
    assert [row[:3] for row in rows] == [("reconstruction", "mse", "0.2500"), ("", "strangeness", "0.5000")]
