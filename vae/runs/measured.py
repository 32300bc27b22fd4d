"""What the numbers of an evaluation are: their units, which way is better, their errors, and how they are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LOWER, HIGHER = "lower", "higher"
WIDTHS = (16, 25, 9, 11, 10, 6)  # of a text's columns: together they leave a few of 80 free


class Number(NamedTuple):
    """One number of an evaluation."""

    unit: str = ""  # of %, a share of 1 is meant
    better: str = ""  # where there is one
    error: str = ""  # the name of its standard error, where that is known


class Row(NamedTuple):
    """A number as it is shown."""

    measure: str
    name: str
    value: str
    error: str
    unit: str
    better: str


HEAD = Row("measure", "number", "value", "±", "unit", "better")
ERRORS = "±  standard error"
OF_IMAGES = "±  standard error; of nll for these images: for others see the sampling_error"

_SCORE = Number("at most 1", HIGHER)
_SHARE = Number("%", HIGHER)

NUMBERS: Mapping[str, Mapping[str, Number]] = {
    "likelihood": {
        "nll": Number("nats", LOWER, "nll_error"),
        "nll_sampling_error": Number("nats", LOWER),
        "ess": Number("samples", HIGHER),
        "few_effective": Number("%", LOWER),
        "inference_gap": Number("nats", LOWER),
        "nll_chi": Number("nats", LOWER),
        "nll_images": Number("images"),
        "nll_samples": Number("samples"),
        "bits_per_dim": Number("bits", LOWER),
        "nll_bits_per_dim": Number("bits", LOWER),
        "nll_ais": Number("nats", LOWER, "nll_ais_error"),
        "nll_ais_sampling_error": Number("nats", LOWER),
        "ais_gap": Number("nats", LOWER, "ais_gap_error"),
        "ais_lower": Number("nats"),
        "ais_upper": Number("nats"),
        "ais_ess": Number("chains", HIGHER),
        "importance_misses": Number("nats", LOWER, "importance_misses_error"),
        "ais_images": Number("images"),
        "ais_steps": Number("steps"),
    },
    "gap": {
        "approximation_gap": Number("nats", LOWER, "gap_error"),
        "amortisation_gap": Number("nats", LOWER),
        "gap_images": Number("images"),
    },
    "aggregate": {
        "active_units": Number("units"),
        "mi": Number("nats", error="mi_error"),
        "tc": Number("nats", LOWER, "tc_error"),
        "dwkl": Number("nats", LOWER, "dwkl_error"),
        "tc_bias": Number("nats", LOWER),
        "aggregate_mmd": Number(better=LOWER),
        "aggregate_mmd_p": Number("p-value"),
    },
    "geometry": {
        "covariance_error": Number("%", LOWER),
        "mean_error": Number("σ", LOWER),
        "axis_angle": Number("°", LOWER),
    },
    "structure": {
        "knn_accuracy": _SHARE,
        "linear_accuracy": _SHARE,
        **dict.fromkeys(("kmeans_nmi", "kmeans_ari", "mixture_nmi", "mixture_ari"), _SCORE),
    },
    "reconstruction": {
        "mse": Number(better=LOWER),
        "mse_of_variance": Number("%", LOWER),
        "psnr": Number("dB", HIGHER),
        "ssim": _SCORE,
    },
    "samples": {
        "samples_frechet": Number(better=LOWER),
        "samples_kernel": Number(better=LOWER),
        "samples_precision": _SHARE,
        "samples_recall": _SHARE,
        "samples_density": Number(better=HIGHER),
        "samples_coverage": _SHARE,
        "samples_images": Number("images"),
        "samples_classifier_steps": Number("steps"),
    },
    "disentanglement": {
        **dict.fromkeys(("mig", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness"), _SCORE),
        **dict.fromkeys(("beta_vae_score", "factor_vae_score"), _SHARE),
        "modularity": _SCORE,
    },
    "anomaly": {
        f"{what}_{score}": _SCORE
        for score in ("total", "nll", "recon", "latent")
        for what in ("auroc", "average_precision")
    },
}
_ERRORS = {number.error for numbers in NUMBERS.values() for number in numbers.values()} - {""}


def rows(values: Mapping[str, float]) -> list[Row]:
    """Numbers of an evaluation by their names, those of one measure together; each error stands beside its number."""
    left = {name: value for name, value in values.items() if name not in _ERRORS}
    shown = [
        _row(measure, name, number, left.pop(name), values.get(number.error, 0.0))
        for measure, numbers in NUMBERS.items()
        for name, number in numbers.items()
        if name in left
    ]
    return shown + [_row("", name, Number(), value, 0.0) for name, value in left.items()]


def text(found: Sequence[Row]) -> list[str]:
    """Lines for a terminal of 80 columns: a head and the rows, with rules around them."""
    if not found:
        return []
    rule = "─" * (sum(WIDTHS) + 1)
    before = ["", *(row.measure for row in found[:-1])]
    pairs = zip(found, before, strict=True)
    lines = [_line(row._replace(measure="" if row.measure == last else row.measure)) for row, last in pairs]
    return [rule, _line(HEAD), rule, *lines, rule]


def notes(found: Sequence[Row]) -> list[str]:
    """What has to be said of errors below a table."""
    if not any(row.error for row in found):
        return []
    return [OF_IMAGES if any(row.measure == "likelihood" for row in found) else ERRORS]


def _row(measure: str, name: str, number: Number, value: float, error: float) -> Row:
    scale = 100 if number.unit == "%" else 1
    shown = _shown(scale * value, scale * error, number.unit == "%")
    return Row(measure, name, *shown, number.unit, number.better)


def _shown(value: float, error: float, is_share: bool) -> tuple[str, str]:
    """A value and its error, which has two digits; a value without any has four, and a share one after the point."""
    if isinstance(value, int) or not math.isfinite(value):
        return f"{value:,}", ""
    if math.isfinite(error) and error > 0:
        digits = max(0, 1 - _exponent(error, 2))
        return f"{value:.{digits}f}", f"± {error:.{digits}f}"
    digits = 1 if is_share else max(0, 3 - _exponent(value, 4))
    return (f"{value:.{digits}f}" if digits < 8 else f"{value:.3g}"), ""


def _exponent(value: float, digits: int) -> int:
    """Of ten, for the first of so many digits of a value once it is rounded to them."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def _line(row: Row) -> str:
    measure, name, value, error, unit, better = (f"{cell:<{width}}" for cell, width in zip(row, WIDTHS, strict=True))
    return f"{measure}{name}{value.strip():>{WIDTHS[2]}} {error}{unit}{better}".rstrip()
