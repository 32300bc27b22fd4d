"""The pictures of docs/theory.md: what a formula says beside what was computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import ArrayLike

from vae.figures.style import ACCENT, CODES, PALETTE, PRIOR, legend_width, new_figure, panels, styled, text_width

SIDE = 2.2  # inches of a plane
SMALL = 9  # points of the titles above several panels
LOOKS = ((PRIOR, "-"), (ACCENT, "-"), (CODES, "--"))  # of a plane's lines, by the order of their names
INK = "#555555"
DOTS = "#E0A08F"  # draws, where they have no values: paler than the line around them
STANDINS = (PALETTE[1], PALETTE[4], PALETTE[5])
BAND = (0.05, 0.95)  # quantiles between which repetitions are shown


class Plane(NamedTuple):
    """A panel with one unit as long on both axes."""

    title: str
    lines: Sequence[tuple[str, ArrayLike]] = ()  # (points, 2) each, with a name that several lines may share
    points: ArrayLike | None = None  # (n, 2)
    values: ArrayLike | None = None  # (n,) in [0, 1]: the points' places among the shades


class Estimates(NamedTuple):
    """What repeated estimates gave, and the truth."""

    title: str
    series: Mapping[str, ArrayLike]  # (counts, repetitions) of each estimator
    exact: float
    limits: tuple[float, float]  # of what is worth seeing


class Candidate(NamedTuple):
    """A density that stands in for the true posterior."""

    name: str
    density: ArrayLike  # (points,)
    elbo: float


class Checked(NamedTuple):
    """A formula as a line and what was measured as dots."""

    name: str
    x: ArrayLike  # (points,)
    formula: ArrayLike  # (points,)
    at: ArrayLike  # (dots,)
    measured: ArrayLike  # (dots,)


@styled
def planes(
    rows: Sequence[Sequence[Plane]], names: Sequence[tuple[str, str]], shades: str = "viridis", note: str = ""
) -> Figure:
    """Rows of planes, each row with its names of the two axes and its own, shared limits."""
    every = [plane for row in rows for plane in row]
    looks = dict(zip(dict.fromkeys(name for plane in every for name, _ in plane.lines), LOOKS, strict=False))
    handles = [Line2D([], [], color=colour, ls=dashes, lw=1.4, label=name) for name, (colour, dashes) in looks.items()]
    titles = [plane.title for plane in every]
    side = max(SIDE, text_width(titles, SMALL))
    top = 0.12 + 0.155 * max(1 + title.count("\n") for title in titles)
    gaps = (0.45, 0.55 + top)
    columns = len(rows[0])
    size = columns * side + (columns - 1) * gaps[0], len(rows) * side + (len(rows) - 1) * gaps[1]
    figure = new_figure(*size, note, right=0.1 + legend_width(handles), top=top)
    grid = panels(figure, len(rows), columns, gaps)
    for row, axes_of_row, (across, up) in zip(rows, grid, names, strict=True):
        everything = np.concatenate([np.asarray(part) for plane in row for part in _contents(plane)])
        low, high = everything.min(0), everything.max(0)
        middle, reach = (low + high) / 2, 0.53 * (high - low).max()
        for axes, plane in zip(axes_of_row, row, strict=True):
            _plane(axes, plane, looks, shades)
            axes.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach))
            axes.set(xlabel=across, ylabel=up if axes is axes_of_row[0] else "")
            axes.locator_params(nbins=5)
    grid[0, -1].legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


@styled
def convergence(
    each: Sequence[Estimates], counts: ArrayLike, truth: str, names: tuple[str, str], note: str = ""
) -> Figure:
    """Repeated estimates by how many draws they are made of: their medians, and the band of nine in ten."""
    figure = new_figure(3.4 * len(each) + 0.7 * (len(each) - 1), 2.5, note, left=0.75, top=0.32)
    row = panels(figure, 1, len(each), (0.7, 0))[0]
    handles: list[Artist] = [Line2D([], [], color=PRIOR, lw=1.2, ls="--", label=truth)]
    for axes, estimates in zip(row, each, strict=True):
        for (name, values), colour in zip(estimates.series.items(), (CODES, ACCENT), strict=False):
            low, middle, high = np.quantile(np.asarray(values), (BAND[0], 0.5, BAND[1]), axis=1)
            axes.fill_between(np.asarray(counts), low, high, color=colour, alpha=0.25, lw=0)
            (line,) = axes.plot(np.asarray(counts), middle, color=colour, lw=1.6, marker="o", ms=3, label=name)
            handles += [line] if axes is row[0] else []
        axes.axhline(estimates.exact, color=PRIOR, lw=1.2, ls="--")
        axes.set(title=estimates.title, xscale="log", xlabel=names[0], ylim=estimates.limits)
        _plain_numbers(axes)
    row[0].set_ylabel(names[1])
    row[0].legend(handles=handles, loc="lower right")
    return figure


@styled
def fits(z: ArrayLike, p: ArrayLike, chosen: Sequence[tuple[str, float, float]], note: str = "") -> Figure:
    """A density (points,) at z (points,), and Gaussians by name, mean and deviation, each in a panel of its own."""
    z, p, columns = np.asarray(z), np.asarray(p), 3
    rows = -(-len(chosen) // columns)
    figure = new_figure(9.0, 1.75 * rows + 0.75 * (rows - 1), note, top=0.32)
    places = [axes for row in panels(figure, rows, columns, (0.35, 0.75)) for axes in row]
    for axes, (name, mean, deviation) in zip(places, chosen, strict=False):
        q = np.exp(-0.5 * ((z - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
        axes.fill_between(z, p, color=CODES, alpha=0.35, lw=0)
        axes.plot(z, q, color=ACCENT, lw=1.6)
        axes.set(xlim=(z[0], z[-1]), ylim=(0, 0.88), title=name)
        axes.set_yticks([])
        said = f"{round(mean, 2) + 0.0:.2f} ± {deviation:.2f}".replace("-", "−")
        axes.text(0.97, 0.93, said, transform=axes.transAxes, ha="right", va="top", size=8, color=ACCENT)
    handles = [Patch(color=CODES, alpha=0.35, lw=0, label="p"), Line2D([], [], color=ACCENT, lw=1.6, label="q")]
    places[0].legend(handles=handles, loc="upper left")
    for axes in places[-columns:]:
        axes.set_xlabel("z")
    return figure


@styled
def bounds(z: ArrayLike, posterior: ArrayLike, candidates: Sequence[Candidate], log_p: float, note: str = "") -> Figure:
    """The true posterior (points,) at z (points,) with some that stand in for it, and where their ELBOs end."""
    figure = new_figure(8.4, 2.7, note, top=0.32)
    left, right = panels(figure, 1, 2, (0.85, 0), width_ratios=(4, 3.4))[0]
    z = np.asarray(z)
    left.fill_between(z, np.asarray(posterior), color=CODES, alpha=0.35, lw=0)
    handles: list[Artist] = [Patch(color=CODES, alpha=0.35, lw=0, label="true posterior p(z|x)")]
    for place, (each, colour) in enumerate(zip(candidates, STANDINS, strict=False)):
        handles += left.plot(z, np.asarray(each.density), color=colour, lw=1.6, label=each.name)
        right.bar(place, log_p - each.elbo, 0.56, bottom=each.elbo, color=colour, alpha=0.35, lw=0)
        right.plot([place - 0.28, place + 0.28], [each.elbo] * 2, color=colour, lw=2.5)
        said = f"ELBO {each.elbo:.2f}\ngap {log_p - each.elbo:.2f}".replace("-", "−")
        right.annotate(said, (place, each.elbo), (0, -4), textcoords="offset points", ha="center", va="top", size=8)
    left.set(xlabel="z", ylabel="density", ylim=(0, None), xlim=(z[0], z[-1]), title="Stand-ins for one posterior")
    left.legend(handles=handles, loc="upper left")
    lowest = min(each.elbo for each in candidates)
    height = log_p - lowest
    right.axhline(log_p, color=PRIOR, lw=1.2, ls="--")
    said = f"log p(x) = {log_p:.2f}".replace("-", "−")
    right.text(len(candidates) - 0.45, log_p + 0.03 * height, said, ha="right", va="bottom", size=8)
    right.set(ylim=(lowest - 0.28 * height, log_p + 0.14 * height), xlim=(-0.5, len(candidates) - 0.45))
    right.set(ylabel="nats", title="log p(x) = ELBO + KL(q ‖ p(z|x))")
    right.set_xticks(range(len(candidates)), [each.name for each in candidates])
    return figure


@styled
def checked(
    series: Sequence[Checked], names: tuple[str, str], scales: tuple[str, str] = ("log", "linear"), note: str = ""
) -> Figure:
    """Formulas as lines, measurements as dots, over axes of these scales."""
    handles = [Line2D([], [], color=INK, lw=1.6, label="formula"), Line2D([], [], color=INK, ls="", marker="o", ms=4.5)]
    handles[1].set_label("measured")
    for each, colour in zip(series, PALETTE, strict=False):
        handles.append(Line2D([], [], color=colour, lw=1.6, marker="o", ms=4.5, label=each.name))
    figure = new_figure(5.2, 2.9, note, left=0.7, right=0.15 + legend_width(handles), top=0.12)
    axes = figure.add_subplot()
    for each, colour in zip(series, PALETTE, strict=False):
        axes.plot(np.asarray(each.x), np.asarray(each.formula), color=colour, lw=1.6)
        axes.plot(np.asarray(each.at), np.asarray(each.measured), "o", color=colour, ms=4.5, mec="white", mew=0.5)
    across, up = scales
    axes.set(xscale=across, yscale=up, xlabel=names[0], ylabel=names[1])
    if across == "log":
        _plain_numbers(axes)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    if up == "log":
        axes.yaxis.set_major_formatter(_plain)
        axes.yaxis.set_minor_locator(NullLocator())
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return figure


def _contents(plane: Plane) -> list[ArrayLike]:
    """Everything in it, (…, 2) each."""
    return [line for _, line in plane.lines] + ([] if plane.points is None else [plane.points])


def _plane(axes: Axes, plane: Plane, looks: Mapping[str, tuple[str, str]], shades: str) -> None:
    if plane.points is not None:
        shade = DOTS if plane.values is None else mpl.colormaps[shades](np.asarray(plane.values))
        x, y = np.asarray(plane.points).T
        axes.scatter(x, y, s=6, c=shade, alpha=0.8, lw=0)
    for name, line in plane.lines:
        colour, dashes = looks[name]
        axes.plot(*np.asarray(line).T, color=colour, ls=dashes, lw=1.4)
    axes.set_title(plane.title, loc="left", fontsize=SMALL)


def _plain_numbers(axes: Axes) -> None:
    """Ticks of a logarithmic axis as numbers and not as powers of ten, which are slow to draw."""
    axes.xaxis.set_major_formatter(_plain)
    axes.xaxis.set_minor_locator(NullLocator())


def _plain(value: float, _: float) -> str:
    return f"{value:,g}" if value < 1e5 else f"{value:g}"
