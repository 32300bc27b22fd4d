"""The true posterior of single images, and what the encoder takes for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from vae.figures import style
from vae.figures.style import ACCENT, CODES, new_figure, panels, pixels, styled

SIDE = 2.15  # inches of a panel
THUMB = 0.5  # inches of its image
SHADES = LinearSegmentedColormap.from_list("density", ["white", CODES])
SEEN = 0.01  # of a density's peak: less than this is not seen


class Single(NamedTuple):
    """One image (channels, height, width) with its true posterior on a grid, and q."""

    image: ArrayLike
    title: str
    axes: Sequence[ArrayLike]  # coordinates along the one or two dimensions
    density: ArrayLike  # p(z|x) there, (points,) or (points, points), the first dimension first
    q: Sequence[Sequence[ArrayLike]]  # lines (points, 2): q's 1 and 2 σ; of one dimension its density


@styled
def planes(singles: Sequence[Single], names: Sequence[str], note: str = "") -> Figure:
    """One panel for each image: its true posterior in the plane of two dimensions, and the lines of q."""
    handles: list[Artist] = [
        Patch(color=CODES, alpha=0.7, lw=0, label="true posterior p(z|x)"),
        Line2D([], [], color=ACCENT, lw=1.4, label="q(z|x): 1 σ"),
        Line2D([], [], color=ACCENT, lw=1.4, ls="--", label="q(z|x): 2 σ"),
    ]
    figure, row = _row(singles, handles, note)
    for axes, single in zip(row, singles, strict=True):
        _plane(axes, single)
        axes.set(xlabel=names[0], ylabel=names[1] if axes is row[0] else "")
    return figure


@styled
def lines(singles: Sequence[Single], name: str, note: str = "") -> Figure:
    """One panel for each image: the densities of its true posterior and of q on the one dimension."""
    handles: list[Artist] = [
        Patch(color=CODES, alpha=0.45, lw=0, label="true posterior p(z|x)"),
        Line2D([], [], color=ACCENT, lw=1.4, ls="--", label="q(z|x)"),
    ]
    figure, row = _row(singles, handles, note)
    for axes, single in zip(row, singles, strict=True):
        x, density = np.asarray(single.axes[0]), np.asarray(single.density)
        q = np.asarray(single.q[0][0])
        axes.fill_between(x, density, color=CODES, alpha=0.45, lw=0)
        axes.plot(*q.T, color=ACCENT, lw=1.4, ls="--")
        seen = np.concatenate([x[density > SEEN * density.max()], q[q[:, 1] > SEEN * q[:, 1].max(), 0]])
        margin = 0.05 * np.ptp(seen)
        axes.set(xlim=(seen.min() - margin, seen.max() + margin), ylim=(0, None))
        axes.set(xlabel=name, ylabel="density" if axes is row[0] else "")
    return figure


def _row(singles: Sequence[Single], handles: Sequence[Artist], note: str) -> tuple[Figure, Sequence[Axes]]:
    """Panels side by side, each with its title and its image above it; the legend stands beside them."""
    gap = 0.5
    width = max(SIDE, style.text_width([single.title for single in singles], 9) + THUMB)
    whole = len(singles) * width + (len(singles) - 1) * gap
    figure = new_figure(whole, width, note, right=style.BESIDE + style.legend_width(handles), top=THUMB + 0.15)
    row = panels(figure, 1, len(singles), (gap, 0))[0]
    for axes, single in zip(row, singles, strict=True):
        axes.set_title(single.title, loc="left", fontsize=9)
        axes.locator_params(nbins=3)
        image = pixels(single.image)
        height = THUMB / width  # from here on in parts of the panel
        left, low = 1 - height * image.shape[1] / image.shape[0], 1 + 0.06 / width
        # Not in axes of its own, which take longer to draw than everything else in the panel.
        place = {"extent": (left, 1, low, low + height), "transform": axes.transAxes, "clip_on": False}
        style.show(axes, image, aspect="auto", **place)
    style.legend_beside(figure, handles)
    return figure, row


def _plane(axes: Axes, single: Single) -> None:
    x, y = map(np.asarray, single.axes)
    density = np.asarray(single.density)
    dx, dy = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2
    axes.imshow(
        density.T,
        cmap=SHADES,
        origin="lower",
        extent=(x[0] - dx, x[-1] + dx, y[0] - dy, y[-1] + dy),
        interpolation="bicubic",
        aspect="auto",
        vmin=0,
    )
    for outlines, dashes in zip(single.q, ("-", "--"), strict=True):
        for line in map(np.asarray, outlines):
            axes.plot(*line.T, color=ACCENT, lw=1.4, ls=dashes)
    i, j = np.nonzero(density > SEEN * density.max())
    points = np.concatenate([np.stack([x[i], y[j]], 1), *(np.asarray(line) for each in single.q for line in each)])
    low, high = points.min(0), points.max(0)
    reach = 0.55 * max(high - low)  # the same on both axes
    middle = (low + high) / 2
    axes.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach))
