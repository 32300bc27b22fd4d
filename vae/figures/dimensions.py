"""Pictures of the latent dimensions: their covariances, and how much each is used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike

from vae.figures import style
from vae.figures.style import ACCENT, CODES, PRIOR, new_figure, panels, styled

SQUARES = 500  # along each side of a covariance, at most
BARS = 200  # for the dimensions, at most
NAMED = 20  # bars at most that all have their name below them
FULL = 4  # dimensions at most whose covariances are all written, zeros too


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
                if n > FULL and i != j and abs(value) < 0.005:  # as 0.00, which a white square says by itself
                    continue
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
    """How much each dimension (n,) is used, the most used first; `shares` are those of principal components.

    `remark` stands by the KL. Where there are many dimensions, a bar is the largest of several.
    """
    order = np.argsort(-np.asarray(kl), kind="stable")
    kl, variance, active = (np.asarray(values)[order] for values in (kl, variance, active))
    shares, n = np.asarray(shares), len(order)
    names = [style.axis_name(i) for i in order]
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

    room = 2.5 / (style.text_width([style.axis_name(n - 1)], 8.5) + 0.05)  # labels below a panel
    upright = room < n <= NAMED
    step = 1 if upright else -(-n // min(11, int(room)))
    for axes in (left, middle):
        axes.set_xticks(range(0, n, step), names[::step])
        axes.set(xlabel=f"dimension, by KL{of}", xlim=sides)
        if upright:
            axes.tick_params(axis="x", labelrotation=90, labelsize=7)

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
