"""Pictures made of decoded images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from vae.figures.style import beside, mosaic, new_figure, show, styled, text_width

GAP = 2  # white pixels between tiles, as the images' own pixels
FADED = 0.65  # of white in tiles that do not matter


@styled
def reconstructions(originals: ArrayLike, decoded: ArrayLike, names: Sequence[str] = (), note: str = "") -> Figure:
    """Images (n, channels, height, width) above what the model makes of them; below, the signed difference."""
    originals, decoded = np.asarray(originals), np.asarray(decoded)
    n, channels, height, width = originals.shape
    error = (decoded - originals).mean(1)  # (n, height, width)
    tiles = np.stack([originals, decoded])
    rows = ["original", "reconstruction", "difference" if channels == 1 else "difference,\nmean of channels"]
    above = 0.16 + 0.14 * max((name.count("\n") + 1 for name in names), default=1)
    figure, axes = _frame(n, 3, height, width, note, rows, right=1.3, top=above)
    top = mosaic(tiles, GAP)
    end, start = top.shape[1], top.shape[0] + GAP
    show(axes, top, extent=(0, end, start - GAP, 0))
    gaps = [(0, 0), (0, 0), (0, GAP)]
    signed = np.concatenate(list(np.pad(error, gaps)), axis=1)[:, :end]  # one image: drawing several is slower
    shades = axes.imshow(signed, cmap="RdBu_r", vmin=-1, vmax=1, extent=(0, end, start + height, start))
    axes.set(xlim=(0, end), ylim=(start + height, 0))
    _ticks(axes, names, rows, height, width)
    colorbar = figure.colorbar(shades, cax=beside(figure, 0.12, 0.12), ticks=[-1, 0, 1])
    colorbar.set_ticklabels(["−1 too dark", "0", "+1 too bright"])
    colorbar.outline.set_visible(False)
    return figure


def samples(images: ArrayLike, names: Sequence[str] = (), note: str = "") -> Figure:
    """Decoded draws from the prior (rows, columns, channels, height, width); with names one class a row."""
    of = "E[x|z] of draws z from the prior"
    return in_rows(images, names, f"{of}, each decoded as every class" if names else of, note)


@styled
def in_rows(images: ArrayLike, names: Sequence[str], title: str, note: str = "") -> Figure:
    """Rows of decoded images (rows, columns, channels, height, width), with names or without."""
    images = np.asarray(images)
    rows, columns, _, height, width = images.shape
    figure, axes = _frame(columns, rows, height, width, note, names, top=0.3)
    show(axes, mosaic(images, GAP))
    _ticks(axes, (), names, height, width)
    axes.set_title(title)
    return figure


@styled
def interpolation(
    images: ArrayLike,
    starts: ArrayLike,
    ends: ArrayLike,
    names: Sequence[tuple[str, str]] = (),
    note: str = "",
    along: str = "t of z = (1 − t) E[z|a] + t E[z|b]",
) -> Figure:
    """Rows of decoded images (rows, steps, channels, height, width) between the originals at both ends."""
    images = np.asarray(images)
    rows, steps, _, height, width = images.shape
    tiles = np.concatenate([np.asarray(starts)[:, None], images, np.asarray(ends)[:, None]], 1)
    pairs = [f"{a} → {b}" for a, b in names]
    figure, axes = _frame(steps + 2, rows, height, width, note, pairs, bottom=0.7)
    show(axes, mosaic(tiles, GAP))
    t = [f"{value:.1f}" for value in np.linspace(0, 1, steps)]
    _ticks(axes, ["image a", *t, "image b"], pairs, height, width, bottom=True)
    axes.set_xlabel(along)
    return figure


@styled
def traversal(
    images: ArrayLike,
    originals: ArrayLike,
    offsets: ArrayLike,
    names: Sequence[str],
    active: Sequence[bool] | None = None,
    others: str = "stay",
    note: str = "",
) -> Figure:
    """One row for each varied dimension: decoded images (n, rows, steps, channels, height, width) after n originals.

    Rows that are not `active` are grey, and say so; `others` is what the other dimensions do meanwhile.
    """
    images, originals = np.asarray(images), np.asarray(originals)
    n, rows, steps, _, height, width = images.shape
    used = np.ones(rows, bool) if active is None else np.asarray(active)
    images = np.where(used[:, None, None, None, None], images, FADED + (1 - FADED) * images)
    names = [name if of_use else f"{name}, inactive" for name, of_use in zip(names, used, strict=True)]
    apart = 0.5  # tiles between one image's block and the next
    figure, axes = _frame(n * (steps + 1 + apart) - apart, rows, height, width, note, names, bottom=0.85, widest=12.0)
    starts = [i * (steps + 1 + apart) * (width + GAP) for i in range(n)]
    for start, original, block in zip(starts, originals, images, strict=True):
        first = np.broadcast_to(original, (rows, 1, *original.shape))
        tiles = mosaic(np.concatenate([first, block], 1), GAP)
        show(axes, tiles, extent=(start, start + tiles.shape[1], tiles.shape[0], 0))
    axes.set(xlim=(0, start + tiles.shape[1]), ylim=(tiles.shape[0], 0))
    columns = ["image", *(f"{x:+g}".replace("-", "−") if abs(x) > 1e-6 else "0" for x in np.asarray(offsets))]
    _ticks(axes, columns, names, height, width, bottom=True, starts=starts)
    for label, of_use in zip(axes.get_yticklabels(), used, strict=True):
        label.set_color("black" if of_use else "#999999")
    where = "distance from the image's code, in the prior's standard deviations"
    axes.set_xlabel(f"{where};\nall other dimensions {others}")
    return figure


def _frame(
    columns: float,
    rows: int,
    height: int,
    width: int,
    note: str,
    names: Sequence[str] = (),
    right: float = 0.1,
    top: float = 0.1,
    bottom: float = 0.3,
    widest: float = 8.0,
) -> tuple[Figure, Axes]:
    """A figure that fits its mosaic, with margins in inches for labels and for the names of the rows."""
    tile = min(0.9, widest / columns)  # inches
    size = (columns * tile, rows * tile * (height + GAP) / (width + GAP))
    left = text_width(names, 8.5) + 0.15
    figure = new_figure(*size, note, left=left, right=right, top=top, bottom=bottom)
    axes = figure.add_subplot()
    axes.spines[:].set_visible(False)
    return figure, axes


def _ticks(
    axes: Axes,
    columns: Sequence[str],
    rows: Sequence[str],
    height: int,
    width: int,
    bottom: bool = False,
    starts: Sequence[float] = (0,),
) -> None:
    """Names of columns (above, or at the bottom) and of rows at the middle of their tiles.

    Blocks of the same columns begin at `starts`.
    """
    places = [start + i * (width + GAP) + width / 2 for start in starts for i in range(len(columns))]
    axes.set_xticks(places, [*columns] * len(starts))
    axes.set_yticks([i * (height + GAP) + height / 2 for i in range(len(rows))], rows)
    axes.tick_params(length=0, labelbottom=bottom, labeltop=not bottom)
