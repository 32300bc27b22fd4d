"""Pictures of several runs on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vae.figures.style import BESIDE, DPI, new_figure, styled, text_width

INK = "#555555"
SMALL = 7.5  # points
SHEET = (10.0, 11.0)  # inches that all images take at most, if that leaves them legible
TILE = 3.4  # inches that one of them is high at most
LEGIBLE = 2.4  # inches that they are wide at least, on average


class Tile(NamedTuple):
    """A cell of a contact sheet: an image (height, width, 3) and what stands below it, or instead of it."""

    image: np.ndarray | None
    caption: str


@styled
def contact_sheet(
    tiles: Sequence[Sequence[Tile]],
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    note: str = "",
    legend: np.ndarray | None = None,
    legend_dpi: float = DPI,
) -> Figure:
    """Pictures (`Tile`) in a grid, with names of its rows and columns; the last row may be shorter.

    The pixels of a legend (height, width, 3), which all have in common, stand to the right.
    """
    tiles = [[*row, *[Tile(None, "")] * (len(tiles[0]) - len(row))] for row in tiles]
    rows = [name if len(name) < 18 else name.replace("=", "=\n", 1) for name in rows]
    widths, heights = _cells(tiles, columns)
    below = [0.1 + 0.14 * max(len(tile.caption.split("\n")) for tile in row) for row in tiles]
    gap, left, top = 0.1, text_width(rows) + 0.15, 0.3 if columns else 0.1
    size = sum(widths) + gap * (len(widths) - 1), sum(heights) + sum(below)
    aside = (0.0, 0.0) if legend is None else (legend.shape[1] / legend_dpi, legend.shape[0] / legend_dpi)
    right = 0.1 if legend is None else BESIDE + aside[0] + 0.1
    figure = new_figure(size[0], max(size[1], aside[1]), note, left=left, right=right, top=top, bottom=0.25)
    width, height = figure.get_size_inches()
    y = height - top
    if legend is not None:
        place = (left + size[0] + BESIDE) / width, (y - aside[1]) / height, aside[0] / width, aside[1] / height
        axes = figure.add_axes(place)
        axes.imshow(legend, aspect="auto")
        axes.set_axis_off()
    for i, row in enumerate(tiles):
        x, y = left, y - heights[i]
        for j, tile in enumerate(row):
            axes = figure.add_axes((x / width, y / height, widths[j] / width, heights[i] / height))
            _tile(axes, tile)
            if i == 0 and columns:
                axes.set_title(columns[j])
            x += widths[j] + gap
        if rows:
            figure.text((left - 0.1) / width, (y + heights[i] / 2) / height, rows[i], ha="right", va="center")
        y -= below[i]
    return figure


def _cells(tiles: Sequence[Sequence[Tile]], columns: Sequence[str]) -> tuple[list[float], list[float]]:
    """Widths of columns and heights of rows in inches: columns as wide as their widest image is beside the others."""
    images = [tile.image.shape for row in tiles for tile in row if tile.image is not None]
    empty = min(shape[0] for shape in images), max(shape[1] for shape in images)
    shapes = np.array([[empty if tile.image is None else tile.image.shape[:2] for tile in row] for row in tiles])
    shares = shapes[..., 1].max(0) / shapes[..., 1].max(0).sum()
    heights = (shares * shapes[..., 0] / shapes[..., 1]).max(1)
    scale = max(min(SHEET[0], SHEET[1] / heights.sum(), TILE / heights.max()), LEGIBLE * len(shares))
    names = columns or [""] * len(shares)
    texts = [text_width([tile.caption for tile in column], SMALL) for column in zip(*tiles, strict=True)]
    widths = [max(scale * s, text, text_width([name])) for s, text, name in zip(shares, texts, names, strict=True)]
    return widths, list(scale * heights)


def _tile(axes: Axes, tile: Tile) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if tile.image is None:
        axes.set_facecolor("#F2F2F2" if tile.caption else "none")
        axes.text(0.5, 0.5, tile.caption, transform=axes.transAxes, ha="center", va="center", color=INK, size=SMALL)
    else:
        axes.imshow(tile.image)
        axes.set_anchor("N")
        axes.set_xlabel(tile.caption, fontsize=SMALL, labelpad=3)
