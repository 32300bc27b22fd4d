"""The decoded grid of latents, every tile at its place in the latent space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from vae.figures.style import mosaic, new_figure, set_gaps, show, styled

COLUMNS = 5  # panels in a row at most


@styled
def manifold(
    images: Sequence[ArrayLike],
    places: Sequence[ArrayLike],
    names: Sequence[str] = ("z₀", "z₁"),
    titles: Sequence[str] = (),
    note: str = "",
) -> Figure:
    """One panel for each sheet: images (rows, columns, channels, height, width) at places (rows, columns, 1 or 2).

    Rows hold rising second coordinates, columns rising first ones. Where the latents are evenly spaced the axes are
    the latent space itself; else, as for quantiles, tiles have one size and the ticks name their latents.
    """
    tiles, at = [np.asarray(each) for each in images], [np.asarray(each, dtype=float) for each in places]
    strip, even = at[0].shape[-1] == 1, all(map(_is_even, at))
    boxes = np.array([box_of(each) for each in at])
    left, right, low, high = *_range(boxes[:, :2]), *_range(boxes[:, 2:])  # the same for all panels
    aspect = tiles[0].shape[-2] / tiles[0].shape[-1]  # units of z are equally long where images are square

    rows = len(tiles) if strip else -(-len(tiles) // COLUMNS)
    columns = -(-len(tiles) // rows)  # six are 3 × 2, not five and one
    width = 9.0 if strip else {1: 6.0, 2: 4.2, 3: 4.2}.get(len(tiles), 2.8)
    height = width * aspect * (high - low) / (right - left)
    if height > 6.6:
        width, height = width * 6.6 / height, 6.6
    gap = 0.15 if even else 0.75
    gaps = (gap, gap + 0.3 * bool(titles))
    whole = (columns * width + (columns - 1) * gaps[0], rows * height + (rows - 1) * gaps[1])
    figure = new_figure(*whole, note, left=0.15 if strip else 0.75, top=0.32 if titles else 0.1)
    set_gaps(figure, rows, columns, gaps)
    for i in range(len(tiles)):
        axes = figure.add_subplot(rows, columns, i + 1)
        first, last = i % columns == 0, i + columns >= len(tiles)
        draw_sheet(axes, tiles[i], at[i])
        axes.set(xlim=(left, right), ylim=(low, high), aspect=aspect, xlabel=names[0] if last or not even else "")
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(labelleft=first or not even, labelbottom=last or not even)
        if titles:
            axes.set_title(titles[i])
        if strip:
            axes.set_yticks([])
        elif first or not even:
            axes.set_ylabel(_second_name(names, at[i]))
    return figure


def draw_sheet(axes: Axes, tiles: np.ndarray, places: np.ndarray) -> None:
    """Draw tiles (rows, columns, channels, height, width) at their places (rows, columns, 1 or 2)."""
    columns, width = tiles.shape[1], tiles.shape[-1]
    image = mosaic(tiles[::-1])  # an image's first row is on top, the sheet's at the bottom
    if not _is_even(places):
        _name_ticks(axes, places)
    if not _is_even(places) or places.shape[-1] == 1 or np.ptp(places[0, :, 1]) < 1e-6 * np.ptp(places):
        show(axes, image, extent=box_of(places))
        return
    for i in range(columns):  # a tilted sheet: its columns rise like stairs, so that the tiles stay upright
        dx = places[0, 1, 0] - places[0, 0, 0]
        _, _, low, high = box_of(places[:, i : i + 1])
        extent = (places[0, i, 0] - dx / 2, places[0, i, 0] + dx / 2, low, high)
        show(axes, image[:, i * width : (i + 1) * width], extent=extent)


def box_of(places: np.ndarray) -> tuple[float, float, float, float]:
    """Left, right, low and high of a sheet: half a tile further than the latents, or in numbers of tiles."""
    rows, columns, n = places.shape
    if not _is_even(places):
        return -0.5, columns - 0.5, -0.5, rows - 0.5
    x = places[0, :, 0]
    dx = x[1] - x[0] if columns > 1 else 0.0
    if n == 1:
        return x[0] - dx / 2, x[-1] + dx / 2, -dx / 2, dx / 2  # as high as a tile is wide
    y = places[..., 1]
    dy = y[1, 0] - y[0, 0]
    return x[0] - dx / 2, x[-1] + dx / 2, y.min() - dy / 2, y.max() + dy / 2


def _range(ends: np.ndarray) -> tuple[float, float]:
    return ends.min(), ends.max()


def _is_even(places: np.ndarray) -> bool:
    """Whether all neighbours in a row, and all in a column, differ by the same step."""
    return all(
        np.allclose(step, step[:1, :1], atol=1e-6 * np.ptp(places))
        for step in (np.diff(places, axis=0), np.diff(places, axis=1))
        if step.size
    )


def _second_name(names: Sequence[str], places: np.ndarray) -> str:
    """The name of the second axis; where columns of unevenly spaced latents differ, it names one column."""
    if _is_even(places) or np.allclose(places[..., 1], places[:, :1, 1]):
        return names[1]
    return f"{names[1]} where {names[0]} = {_number(places[0, places.shape[1] // 2, 0])}"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _name_ticks(axes: Axes, places: np.ndarray) -> None:
    """Ticks that name the latents of every third tile; the second coordinate is that of the middle column."""
    rows, columns, n = places.shape
    for i, count in zip(range(n), (columns, rows), strict=False):
        ticks = np.arange((count - 1) % 3 // 2, count, 3)
        values = places[0, ticks, 0] if i == 0 else places[ticks, columns // 2, 1]
        set_ticks = axes.set_xticks if i == 0 else axes.set_yticks
        set_ticks(ticks, [_number(value) for value in values])
