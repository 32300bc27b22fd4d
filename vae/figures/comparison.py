"""Pictures that compare runs. The first ten series have colours, those after them are grey."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from vae.figures.style import PALETTE, legend_width, new_figure, styled

GREY = "#BBBBBB"
INK = "#555555"
MARKERS = "osD^vPX*<>"
SMALL = 7.5  # points
HALO = [patheffects.withStroke(linewidth=2.5, foreground="white")]

Series = Sequence[tuple[str, Sequence[Any]]]  # names, and what is drawn of each


class Mark(NamedTuple):
    """One run in the rate–distortion plane."""

    beta: float | None  # None where the loss has none
    kl: float
    recon: float


class SeedMean(NamedTuple):
    """A mean over seeds at one value of a key, and half of its 95 % interval where there is one."""

    value: float | str
    mean: float
    interval: float | None


@styled
def rate_distortion(series: Series, title: str = "", note: str = "") -> Figure:
    """Every run (`Mark`) by its kl and recon, with lines from β to β through the means over seeds.

    The β stands at each mean, as far as there is room.
    """
    betas = sorted({mark.beta for _, marks in series for mark in marks if mark.beta is not None})
    handles = _names(series, title, "-") if len(betas) > 1 else _names(series, title, markers="o" * len(PALETTE))
    everything = np.array([mark[1:] for _, marks in series for mark in marks])
    middle, reach = (everything.max(0) + everything.min(0)) / 2, 0.56 * np.ptp(everything, axis=0) + 0.01
    figure, axes = _frame(handles, note, right=0.8, top=0.1 if reach[0] < reach[1] else 0.3)
    means: list[Mark] = []  # of each β, those in front last
    for _, marks, look in _from_behind(series):
        found = {beta: [mark[1:] for mark in marks if mark.beta == beta] for beta in betas}
        of_beta = [Mark(beta, *np.mean(some, axis=0)) for beta, some in found.items() if some]
        if of_beta:
            axes.plot(*np.transpose([mean[1:] for mean in of_beta]), **look)
        for beta, kl, recon in marks:
            axes.plot(kl, recon, "h" if beta is None else "o", ms=5.5, mec="white", mew=0.5, **look)
        means += of_beta
    _equal_totals(axes, middle - reach, middle + reach)
    if len(betas) > 1:
        _name_betas(axes, means[::-1])
    axes.set(xlabel="rate: kl in nats per image", ylabel="distortion: recon in nats per image")
    return figure


@styled
def totals(
    key: str, values: Sequence[float | str], series: Series, title: str = "", note: str = "", term: str = "total"
) -> Figure:
    """The test total, or another term (`SeedMean`), against a key of rising numbers, or of words.

    Series stand a little beside each other where their bars would hide each other.
    """
    estimates = [estimate for _, some in series for estimate in some]
    numbers = [value for value in values if isinstance(value, int | float)]
    words = [fill(str(value).replace(",", ", "), max(10, 70 // len(values))) for value in values]
    words = words if len(numbers) < len(values) else []
    dashes = "" if words else "-"
    with_bars = any(estimate.interval is not None for estimate in estimates)
    if with_bars:
        note = f"bars: 95 % interval of the mean over seeds · {note}"
    bottom = 0.7 + 0.15 * max((word.count("\n") for word in words), default=0)
    figure, axes = _frame(_names(series, title, dashes, MARKERS), note, bottom=bottom, width=max(5.4, 0.8 * len(words)))
    place = _word_axis(axes, values, words) if words else _number_axis(axes, numbers)
    coloured = min(len(series), len(PALETTE))
    for i, some, look in _from_behind(series):
        beside = (i - (coloured - 1) / 2) / coloured if i < coloured and (with_bars or words) else 0.0
        x, y, bars = zip(*sorted((place(value, beside), mean, bar or 0.0) for value, mean, bar in some), strict=True)
        marker = MARKERS[i] if i < coloured else "o"
        axes.errorbar(x, y, bars, marker=marker, ms=5 if i < coloured else 3, ls=dashes, elinewidth=1, **look)
    ends = [mean + sign * (bar or 0.0) for _, mean, bar in estimates for sign in (-1, 1)]
    _limit(axes, [estimate.mean for estimate in estimates], ends)
    axes.set(xlabel=key, ylabel=f"test {term} in nats per image")
    return figure


@styled
def curves(series: Series, title: str = "", note: str = "", term: str = "total") -> Figure:
    """The validation total of every run, or another term, as pairs with the epochs, and the mean of each series."""
    series = [(name, [np.asarray(line) for line in lines]) for name, lines in series]
    if any(len(lines) > 1 for _, lines in series):
        note = f"thin: runs, thick: their mean · {note}"
    figure, axes = _frame(_names(series, title, "-"), note)
    for _, lines, look in _from_behind(series):
        for line in lines:
            axes.plot(*line.T, alpha=0.7, **look | {"lw": 0.6})
        common = min(map(len, lines))
        axes.plot(
            *np.mean([line[:common] for line in lines], axis=0).T, marker="o" if common < 8 else "", ms=3.5, **look
        )
    # The first tenth of the epochs, far above all others, would flatten them.
    _limit(axes, [value for _, lines in series for line in lines for value in line[len(line) // 10 :, 1]])
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set(xlabel="epoch", ylabel=f"validation {term} in nats per image")
    return figure


def _frame(
    handles: Sequence[Line2D],
    note: str,
    width: float = 5.4,
    right: float = 0.1,
    top: float = 0.1,
    bottom: float = 0.7,
) -> tuple[Figure, Axes]:
    """Axes with a legend to their right; `right` inches between the two are left free."""
    height = max(3.8, 0.2 + 0.155 * sum(1 + str(handle.get_label()).count("\n") for handle in handles))
    legend = 0.1 + legend_width(handles) if handles else 0.0
    figure = new_figure(width, height, note, left=0.8, right=right + legend, top=top, bottom=bottom)
    axes = figure.add_subplot()
    if handles:
        corner = figure.subplotpars.right + right / figure.get_figwidth(), figure.subplotpars.top
        figure.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, borderaxespad=0)
    return figure, axes


def _names(series: Series, title: str, dashes: str = "", markers: str = "") -> list[Line2D]:
    """The legend's entries of the coloured series, and one for the others; none where one series is all there is."""
    if len(series) == 1 and not title:
        return []
    handles = [_entry(fill(title, 36))] if title else []
    for i, (name, _) in enumerate(series[: len(PALETTE)]):
        handles.append(_entry(fill(name, 36), PALETTE[i], dashes, markers[i : i + 1]))
    if len(series) > len(PALETTE):
        handles.append(_entry(f"{len(series) - len(PALETTE)} others, worse", GREY, dashes, "o" if markers else ""))
    return handles


def _entry(label: str, colour: str = "none", dashes: str = "", marker: str = "") -> Line2D:
    return Line2D([], [], color=colour, ls=dashes, lw=1.5, marker=marker, ms=5, label=label)


def _from_behind(series: Series) -> Iterator[tuple[int, Sequence[Any], dict[str, Any]]]:
    """Positions, contents and looks: the first of the series is drawn last."""
    for i in reversed(range(len(series))):
        coloured = i < len(PALETTE)
        look = {
            "color": PALETTE[i] if coloured else GREY,
            "lw": 1.6 if coloured else 0.8,
            "zorder": 3 - i / len(series),
        }
        yield i, series[i][1], look


def _word_axis(axes: Axes, values: Sequence[Any], words: Sequence[str]) -> Callable[[Any, float], float]:
    """Make x an axis of words; returns where a value stands, moved by a fraction of the room it has."""
    axes.set_xticks(range(len(words)), words)
    axes.set_xlim(-0.5, len(words) - 0.5)
    return lambda value, beside: values.index(value) + 0.7 * beside


def _number_axis(axes: Axes, values: Sequence[float]) -> Callable[[Any, float], float]:
    """The same for rising numbers: evenly, or by their logarithms where they span more than a decade."""
    low, high = values[0], values[-1]
    smallest = next((value for value in values if value > 0), high)
    decades = low >= 0 and high > 10 * smallest
    if decades and low > 0:
        axes.set_xscale("log")
    elif decades:  # a 0 has no logarithm
        axes.set_xscale("symlog", linthresh=smallest)
    if len(values) <= 8:
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.xaxis.set_minor_locator(NullLocator())
    places = np.log(values[low == 0 :]) if decades else np.array(values)
    room = min(0.08 * np.ptp(places), 0.4 * np.diff(places).min()) if len(places) > 1 else 0.0
    return lambda value, beside: value * math.exp(room * beside) if decades else value + room * beside


def _limit(axes: Axes, means: Sequence[float], ends: Sequence[float] = ()) -> None:
    """Show all means, and the ends of their intervals as far as these do not flatten the means."""
    finite = [value for value in means if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    reach = (high - low) or math.inf
    low, high = max(low - reach, min([low, *ends])), min(high + reach, max([high, *ends]))
    margin = 0.05 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)


def _name_betas(axes: Axes, means: Sequence[Mark]) -> None:
    """Write each β above and to the right of its mean, where no other one stands yet."""
    taken: list[Bbox] = []
    for mean in means:
        look: Any = {"textcoords": "offset points", "color": INK, "fontsize": SMALL, "path_effects": HALO, "zorder": 4}
        text = axes.annotate(f"β {mean.beta:g}", mean[1:], (5, 4), **look)
        box = text.get_window_extent()
        if any(box.overlaps(other) for other in taken):
            text.remove()
        else:
            taken.append(box)


def _equal_totals(axes: Axes, low: np.ndarray, high: np.ndarray) -> None:
    """Limit the axes to a box, with lines of equal recon + kl, labelled where they come in or go out."""
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    wide = high[0] - low[0] > high[1] - low[1]
    look: Any = {"textcoords": "offset points", "color": INK, "fontsize": SMALL, "annotation_clip": False}
    for total in MaxNLocator(8).tick_values(low.sum(), high.sum()):
        axes.plot([low[0], high[0]], [total - low[0], total - high[0]], color="#CCCCCC", lw=0.8, zorder=1)
        if wide and low[0] <= total - high[1] <= high[0]:
            axes.annotate(f"total {total:g}", (total - high[1], high[1]), (0, 3), ha="center", **look)
        elif not wide and low[1] <= total - high[0] <= high[1]:
            axes.annotate(f"total {total:g}", (high[0], total - high[0]), (4, 0), va="center", **look)
        elif low[1] <= total - low[0] <= high[1]:
            axes.annotate(f"total {total:g}", (low[0], total - low[0]), (4, 0), va="center", path_effects=HALO, **look)
