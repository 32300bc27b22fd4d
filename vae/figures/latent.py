"""Pictures of the codes: in a plane, on a line, and in every pair of dimensions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from vae.figures import style
from vae.figures.style import ACCENT, CODES, PRIOR, new_figure, panels, styled

GAP = 0.75  # inches between panels with labels of their own
POINTS = 5000  # drawn at most in a scatter plot
NAME = 0.2  # inches that a class's name is high
# Places around a point by their distance, in heights of a name.
NEARBY = sorted(itertools.product(np.linspace(-6, 6, 49), repeat=2), key=lambda place: math.hypot(*place))
APART = 2.5  # heights of a name from codes that it would hide
HIDDEN = 0.25  # share of any class's codes that a name may cover
HALO = [patheffects.withStroke(linewidth=3, foreground="white")]


class View(NamedTuple):
    """Codes in a plane, with closed lines (points, 2) around the prior's mass and the aggregate posterior's."""

    points: ArrayLike  # (n, 2)
    prior: Sequence[Sequence[ArrayLike]]  # the lines at 1, 2 and 3 σ, each usually one ellipse
    aggregate: ArrayLike  # one ellipse, at 2 σ
    names: Sequence[str]  # of the two axes


@styled
def clusters(views: Sequence[View], labels: ArrayLike, classes: Sequence[str], note: str = "") -> Figure:
    """The codes by class: one panel for each view."""
    handles = _legend(classes)
    right = style.BESIDE + style.legend_width(handles)
    figure = new_figure(5.0 * len(views) + GAP * (len(views) - 1), 4.6, note, right=right)
    row = panels(figure, 1, len(views), (GAP, 0))[0]
    for axes, view in zip(row, views, strict=True):
        _scatter(axes, view, labels, classes, POINTS, size=7)
        _outlines(axes, view, named=True)
        _limits(axes, view)
        _name_classes(axes, np.asarray(view.points), np.asarray(labels), classes)
        axes.set(xlabel=view.names[0], ylabel=view.names[1])
    style.legend_beside(figure, handles)
    return figure


@styled
def clusters_1d(
    means: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    x: ArrayLike,
    prior: ArrayLike,
    aggregate: ArrayLike,
    note: str = "",
) -> Figure:
    """Codes (n,) on a line: the densities of prior and aggregate posterior at `x`, and a histogram for each class."""
    means, labels, x = np.asarray(means).ravel(), np.asarray(labels), np.asarray(x)
    names, colours = list(classes) or ["all"], style.colours(len(classes)) or [CODES]
    heights_in_inches = [1.5, 0.3 * len(names)]
    left = max(0.62, style.text_width(names, 8.5) + 0.4)
    figure = new_figure(7.0, sum(heights_in_inches) + 0.15, note, left=left)
    top, rows = panels(figure, 2, 1, (0, 0.15), sharex=True, height_ratios=heights_in_inches)[:, 0]
    top.plot(x, np.asarray(prior), color=PRIOR, lw=1.4, label="prior p(z)")
    top.plot(x, np.asarray(aggregate), color=ACCENT, lw=1.4, ls="--", label="aggregate posterior")
    top.set(ylabel="density", ylim=(0, None))
    top.legend(loc="upper right")
    edges = np.linspace(x.min(), x.max(), 121)
    heights = [np.histogram(means[labels == i], edges, density=True)[0] for i in range(len(names))]
    highest = max(np.nan_to_num(height).max() for height in heights) or 1.0
    for i, (height, colour) in enumerate(zip(heights, colours, strict=True)):
        row = len(names) - 1 - i
        # Square roots, because a class in one narrow peak would flatten all others.
        level = row + 0.92 * np.sqrt(np.nan_to_num(height) / highest)
        rows.stairs(level, edges, baseline=row, fill=True, color=colour, lw=0)
        rows.axhline(row, color="#CCCCCC", lw=0.6, zorder=0)
    rows.set_yticks(np.arange(len(names))[::-1] + 0.25, names)
    rows.tick_params(axis="y", length=0)
    rows.spines["left"].set_visible(False)
    rows.set(xlabel="z₀", ylabel="class", ylim=(-0.05, len(names)), xlim=(x.min(), x.max()))
    return figure


@styled
def pairs(
    means: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    outlines: Sequence[Sequence[View | None]],
    densities: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike]],
    names: Sequence[str],
    note: str = "",
) -> Figure:
    """Every pair of dimensions below the diagonal; on it the codes' histograms against the prior's density.

    Codes (n, k); the view of row i and column j < i in `outlines[i][j]`; `densities[i]` holds coordinates, the
    prior's and the aggregate posterior's density there.
    """
    means = np.asarray(means)
    k = means.shape[1]
    side = {2: 2.7, 3: 2.1}.get(k, 1.45)
    gap = 0.12
    figure = new_figure(side * k + gap * (k - 1), side * k + gap * (k - 1), note)
    style.set_gaps(figure, k, k, (gap, gap))
    ranges = [(np.asarray(x).min(), np.asarray(x).max()) for x, _, _ in densities]
    reach = max(high - low for low, high in ranges) / 2  # the same for all: a round prior looks round
    limits = [((low + high) / 2 - reach, (low + high) / 2 + reach) for low, high in ranges]
    for i in range(k):
        for j in range(i + 1):
            axes, view = figure.add_subplot(k, k, i * k + j + 1), outlines[i][j]
            if view is not None:
                _scatter(axes, view, labels, classes, POINTS * 2 // 5, size=3)
                _outlines(axes, view)
                axes.set_ylim(*limits[i])
            else:
                _histogram(axes, means[:, i], *densities[i])
            axes.set_xlim(*limits[j])
            axes.tick_params(labelbottom=i == k - 1, labelleft=view is not None and j == 0)
            axes.set_xlabel(names[j] if i == k - 1 else "")
            axes.set_ylabel(names[i] if j == 0 and i > 0 else "")
            axes.locator_params(nbins=4 if k > 3 else 6)
    handles = [
        Line2D([], [], color=PRIOR, lw=1, label="prior: 1, 2, 3 σ, density"),
        Line2D([], [], color=ACCENT, lw=1.2, ls="--", label="aggregate posterior: 2 σ, density"),
        Patch(color=CODES, alpha=0.45, lw=0, label="histogram of the posterior means"),
        *style.class_handles(classes),
    ]
    corner = (figure.subplotpars.right, figure.subplotpars.top)
    columns = 1 if len(classes) <= 12 or k < 4 else 2
    figure.legend(handles=handles, loc="upper right", bbox_to_anchor=corner, borderaxespad=0, ncols=columns)
    return figure


def _scatter(axes: Axes, view: View, labels: ArrayLike, classes: Sequence[str], limit: int, size: float) -> None:
    points, colours = np.asarray(view.points), style.label_colours(labels, classes)
    chosen = style.spread(len(points), limit)
    x, y = points[chosen].T
    axes.scatter(x, y, s=size, c=colours[chosen], alpha=0.65, lw=0, rasterized=True)


def _outlines(axes: Axes, view: View, named: bool = False) -> None:
    for sigma, lines in enumerate(view.prior, start=1):
        for line in map(np.asarray, lines):
            axes.plot(*line.T, color=PRIOR, lw=1.0 if named else 0.7)
        if named and lines:
            corners = np.concatenate([np.asarray(line) for line in lines])
            x, y = corners[corners[:, 1].argmax()]
            axes.text(x, y, f"{sigma}σ", ha="center", va="center", fontsize=8, path_effects=HALO, clip_on=True)
    axes.plot(*np.asarray(view.aggregate).T, color=ACCENT, lw=1.5 if named else 0.9, ls="--")


def _name_classes(axes: Axes, points: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> None:
    """Each class's name at its median, or nearby where it would hide codes, with a line to where it belongs.

    Not everybody can tell the colours apart.
    """
    if not 0 < len(classes) <= 12:
        return
    chosen = style.spread(len(points), 2000)
    unit = np.ptp(axes.get_ylim()) / axes.get_window_extent().height * axes.figure.dpi  # of data in an inch
    free = _FreePlaces(points[chosen], labels[chosen], axes.get_xlim() + axes.get_ylim())
    free.taken += [_Box(*text.get_position(), 0.22 * unit, 0.16 * unit) for text in axes.texts]  # of the contours
    for i, (name, colour) in enumerate(zip(classes, style.colours(len(classes)), strict=True)):
        if not (labels == i).any():
            continue
        x, y = np.median(points[labels == i], axis=0)
        place = free.find(_Box(x, y, (style.text_width([name]) + 0.1) * unit, NAME * unit))
        if place is None:  # the legend has it
            continue
        if not place.contains(x, y):
            axes.plot([x, place.x], [y, place.y], color=colour, lw=1.2, zorder=0.9)  # behind the codes
        box = {"boxstyle": "round,pad=0.2", "fc": colour, "ec": "white", "lw": 0.8}
        ink = "black" if _is_light(colour) else "white"
        axes.text(place.x, place.y, name, color=ink, weight="bold", ha="center", va="center", bbox=box, clip_on=True)


class _Box(NamedTuple):
    """A box around a middle, in units of the data."""

    x: float
    y: float
    width: float
    height: float

    def contains(self, x: Any, y: Any) -> Any:
        return (abs(x - self.x) < self.width / 2) & (abs(y - self.y) < self.height / 2)

    def overlaps(self, other: _Box) -> bool:
        return _Box(self.x, self.y, self.width + other.width, self.height + other.height).contains(other.x, other.y)


class _FreePlaces:
    """Where names hide neither each other nor much of any class, within limits (left, right, low, high)."""

    def __init__(self, points: np.ndarray, labels: np.ndarray, limits: Sequence[float]):
        self.points, self.labels, self.limits = points, labels, limits
        self.counts = np.maximum(np.bincount(labels), 1)
        self.taken: list[_Box] = []

    def find(self, wanted: _Box) -> _Box | None:
        """The nearest free place, which is then taken; at some distance from codes that the name would hide."""
        least = APART if self._hides(wanted) else 0.0
        for dx, dy in NEARBY:
            if math.hypot(dx, dy) < least:
                continue
            box = wanted._replace(x=wanted.x + dx * wanted.height, y=wanted.y + dy * wanted.height)
            if self._is_free(box):
                self.taken.append(box)
                return box
        return None

    def _is_free(self, box: _Box) -> bool:
        left, right, low, high = self.limits
        if not (left < box.x - box.width / 2 and box.x + box.width / 2 < right):
            return False
        if not (low < box.y - box.height / 2 and box.y + box.height / 2 < high):
            return False
        return not any(box.overlaps(other) for other in self.taken) and not self._hides(box)

    def _hides(self, box: _Box) -> bool:
        hidden = self.labels[box.contains(*self.points.T)]
        return bool((np.bincount(hidden, minlength=len(self.counts)) > HIDDEN * self.counts).any())


def _is_light(colour: str) -> bool:
    red, green, blue = to_rgb(colour)
    return 0.3 * red + 0.6 * green + 0.1 * blue > 0.55


def _limits(axes: Axes, view: View) -> None:
    """All points and all lines, with one unit as long on both axes."""
    lines = [view.points, view.aggregate, *(line for lines in view.prior for line in lines)]
    everything = np.concatenate([np.asarray(line) for line in lines])
    low, high = everything.min(0), everything.max(0)
    box = axes.get_window_extent()
    unit = 1.05 * max((high - low) / (box.width, box.height))  # of data in a pixel
    x, y = (low + high) / 2
    axes.set_xlim(x - unit * box.width / 2, x + unit * box.width / 2)
    axes.set_ylim(y - unit * box.height / 2, y + unit * box.height / 2)


def _histogram(axes: Axes, values: np.ndarray, x: ArrayLike, prior: ArrayLike, aggregate: ArrayLike) -> None:
    x = np.asarray(x)
    heights, edges = np.histogram(values, 50, (x.min(), x.max()), density=True)
    axes.stairs(heights, edges, fill=True, color=CODES, alpha=0.45, lw=0)
    axes.plot(x, np.asarray(prior), color=PRIOR, lw=1.1)
    axes.plot(x, np.asarray(aggregate), color=ACCENT, lw=1.1, ls="--")
    axes.set(ylim=(0, None), yticks=[])
    axes.spines["left"].set_visible(False)


def _legend(classes: Sequence[str]) -> list[Line2D]:
    lines = [
        Line2D([], [], color=PRIOR, lw=1, label="prior: 1, 2, 3 σ"),
        Line2D([], [], color=ACCENT, lw=1.5, ls="--", label="aggregate\nposterior: 2 σ"),
    ]
    return [*lines, *style.class_handles(classes)]
