"""Pictures of the latent space."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike

from vae.figures import style
from vae.figures.style import ACCENT, CODES, PRIOR, new_figure, panels, styled

GAP = 0.75  # inches between panels with labels of their own
POINTS = 5000  # drawn at most in a scatter plot
SQUARES = 500  # along each side of a covariance, at most
BARS = 200  # for the dimensions, at most
# Places around a point by their distance, in heights of a label.
NEARBY = sorted(itertools.product(np.linspace(-4, 4, 33), repeat=2), key=lambda place: math.hypot(*place))
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
    figure = new_figure(5.0 * len(views) + GAP * (len(views) - 1), 4.6, note, right=style.legend_width(handles))
    row = panels(figure, 1, len(views), (GAP, 0))[0]
    for axes, view in zip(row, views, strict=True):
        _scatter(axes, view, labels, classes, POINTS, size=7)
        _outlines(axes, view, named=True)
        _limits(axes, view)
        _name_classes(axes, np.asarray(view.points), np.asarray(labels), classes)
        axes.set(xlabel=view.names[0], ylabel=view.names[1])
    row[-1].legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0))
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


@styled
def covariance(
    prior: ArrayLike, means: ArrayLike, aggregate: ArrayLike, names: Sequence[str], note: str = ""
) -> Figure:
    """Three covariances (n, n) on one scale, with their numbers where there is room.

    Where there are more entries than pixels, a square is the largest of several.
    """
    matrices = {
        "prior": np.asarray(prior),
        "posterior means": np.asarray(means),
        "aggregate posterior": np.asarray(aggregate),
    }
    n = len(names)
    side = min(max(2.3, 0.36 * n), 5.0)
    step, size = -(-n // 16), -(-n // SQUARES)
    end = -(-n // size) * size - 0.5
    left = style.text_width(names[::step], 8.5) + 0.15
    figure = new_figure(3 * side + 0.3, side, note, left=left, right=1.05, top=0.32, bottom=0.5)
    row = panels(figure, 1, 3, (0.15, 0))[0]
    top = max(np.abs(matrix).max() for matrix in matrices.values())
    for axes, (title, matrix) in zip(row, matrices.items(), strict=True):
        image = axes.imshow(
            _largest(matrix, size),
            cmap="RdBu_r",
            vmin=-top,
            vmax=top,
            interpolation="nearest",
            extent=(-0.5, end, end, -0.5),
        )
        axes.set_title(title)
        axes.set_xticks(range(0, n, step), names[::step])
        axes.set_yticks(range(0, n, step), names[::step])
        axes.tick_params(length=0, labelleft=axes is row[0])
        axes.spines[:].set_visible(False)
        if n <= 16:
            points = min(11.0, 72 * side / n / 3.5)  # so that −0.00, which is 3.2 ems wide, fits into its square
            for (i, j), value in np.ndenumerate(matrix):
                shade = "white" if abs(value) > 0.6 * top else "black"
                text = f"{round(float(value), 2) + 0.0:.2f}".replace("-", "−")  # + 0.0 makes −0.00 positive
                axes.text(j, i, text, ha="center", va="center", fontsize=points, color=shade)
    label = "covariance" if size == 1 else f"covariance (the largest of {size} × {size})"
    bar = figure.colorbar(image, cax=style.beside(figure, 0.12, 0.13), label=label)
    bar.outline.set_visible(False)
    return figure


@styled
def activity(
    kl: ArrayLike,
    variance: ArrayLike,
    shares: ArrayLike,
    active: ArrayLike,
    threshold: float,
    remark: str = "",
    note: str = "",
) -> Figure:
    """How much each dimension (n,) is used; `shares` are those of principal components; `remark` stands by the KL.

    Where there are many dimensions, a bar is the largest of several.
    """
    kl, variance, shares, active = map(np.asarray, (kl, variance, shares, active))
    n = len(kl)
    names = [style.axis_name(i) for i in range(n)]
    size = -(-n // BARS)
    bars = np.arange(0, n, size) + (size - 1) / 2
    colours = np.where(_largest(active, size), CODES, "#BBBBBB")
    of = "" if size == 1 else f" (the largest of {size})"
    sides = (n - 1) / 2 + np.array([-1, 1]) * max(n / 2 + 0.2, 1.2)
    figure = new_figure(9.0, 2.3, note, left=0.75, top=0.32)
    left, middle, right = panels(figure, 1, 3, (0.75, 0))[0]

    left.bar(bars, _largest(kl, size), color=colours, width=0.8 * size)
    left.set(title="KL of each dimension", ylabel="KL(qᵢ ‖ pᵢ), nats", ylim=(0, max(1.22 * kl.max(), 0.01)))
    left.text(0.5, 0.985, remark, transform=left.transAxes, ha="center", va="top", fontsize=7.5, color="#555555")

    floor = 10.0 ** np.floor(np.log10(max(min(variance.min(), threshold / 3), 1e-6)))
    heights = np.maximum(_largest(variance, size), floor) - floor
    middle.bar(bars, heights, bottom=floor, color=colours, width=0.8 * size)
    middle.axhline(threshold, color=ACCENT, lw=1, ls="--")
    middle.set(title=f"{active.sum()} of {n} units active (above {threshold:g})", ylabel="variance of E[zᵢ|x]")
    middle.set(yscale="log", ylim=(floor, 2 * max(variance.max(), threshold)))
    middle.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # not as a power of ten, which is slow to draw
    middle.yaxis.set_minor_locator(NullLocator())

    room = 2.5 / (style.text_width(names[-1:], 8.5) + 0.05)  # labels below a panel
    for axes in (left, middle):
        step = -(-n // min(11, int(room)))
        axes.set_xticks(range(0, n, step), names[::step])
        axes.set(xlabel=f"dimension{of}", xlim=sides)

    components = np.arange(1, n + 1)
    right.bar(bars + 1, _largest(shares, size), color=CODES, width=0.8 * size, label="each")
    marker = "o" if size == 1 else ""
    right.plot(components, np.cumsum(shares), color=PRIOR, marker=marker, ms=3, lw=1, label="all up to it")
    right.set(title="Variance of the means explained", ylabel="share", xlabel="principal component", ylim=(0, 1.25))
    right.set_xticks(components[:: -(-n // min(10, int(room)))])
    right.set_yticks(np.linspace(0, 1, 6))
    right.set_xlim(sides + 1)
    right.legend(loc="upper center", ncols=2, borderaxespad=0)
    return figure


def _largest(values: np.ndarray, size: int) -> np.ndarray:
    """The value of largest magnitude in each block of `size` along every axis: none gets lost between two pixels."""
    if size == 1:
        return values
    high = low = values
    for axis, count in enumerate(values.shape):
        starts = np.arange(0, count, size)
        high, low = np.maximum.reduceat(high, starts, axis), np.minimum.reduceat(low, starts, axis)
    return np.where(np.abs(high) >= np.abs(low), high, low)


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
    """Each class's name at its median, or nearby where that is taken: not everybody can tell the colours apart."""
    if len(classes) > 12:
        return
    unit = np.ptp(axes.get_ylim()) / axes.get_window_extent().height * style.DPI  # of data in an inch
    taken: list[tuple[float, float, float]] = []
    for i, (name, colour) in enumerate(zip(classes, style.colours(len(classes)), strict=True)):
        if not (labels == i).any():
            continue
        x, y = np.median(points[labels == i], axis=0)
        width, height = (style.text_width([name]) + 0.1) * unit, 0.2 * unit
        for dx, dy in NEARBY:
            free = x + dx * height, y + dy * height
            if not any(abs(free[0] - left) < (width + w) / 2 and abs(free[1] - low) < height for left, low, w in taken):
                break
        x, y = free
        taken.append((x, y, width))
        box = {"boxstyle": "round,pad=0.2", "fc": colour, "ec": "white", "lw": 0.8}
        ink = "black" if _is_light(colour) else "white"
        axes.text(x, y, name, color=ink, weight="bold", ha="center", va="center", bbox=box, clip_on=True)


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
