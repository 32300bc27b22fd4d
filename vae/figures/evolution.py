"""The film of a latent space as it is learned: its codes and its decoded manifold, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from vae.figures import style
from vae.figures.manifold import box_of, draw_sheet
from vae.figures.style import PRIOR, new_figure, panels

PANEL = 3.8  # inches
DPI = 80


class Frame(NamedTuple):
    """What one epoch shows. All frames of a film are of the same one or two dimensions."""

    codes: np.ndarray  # (n, dimensions)
    prior: np.ndarray  # around its 2 σ: closed lines (points, 2) with a row of NaN between them, or two ends (2, 1)
    tiles: np.ndarray  # uint8 (rows, columns, channels, height, width)
    places: np.ndarray  # of the tiles, (rows, columns, 1 or 2): along one dimension several rows are classes


def evolution(
    frames: Sequence[Frame],
    captions: Sequence[str],
    labels: ArrayLike,
    classes: Sequence[str],
    names: Sequence[str],
    note: str = "",
) -> Iterator[np.ndarray]:
    """The pixels of every frame, uint8 (height, width, 3), on axes that fit all of them."""
    with mpl.rc_context(style.RC):
        figure, left, right = _panels(frames[0], classes, note)
        codes = [_in_plane(frame.codes, labels, classes) for frame in frames]
        colours = style.label_colours(labels, classes)
        points = left.scatter(codes[0][:, 0], codes[0][:, 1], s=9, c=colours, alpha=0.75, lw=0)
        (outline,) = left.plot([], [], color=PRIOR, lw=1.0)
        _fix_codes(left, codes, [frame.prior for frame in frames], classes)
        left.set(xlabel=names[0], ylabel=names[1] if frames[0].codes.shape[1] > 1 else "")
        _fix_sheet(right, left, frames, names, classes)
        title = figure.text(0.02, 0.985, "", va="top", fontsize=10)
        canvas = FigureCanvasAgg(figure)
    for frame, plane, caption in zip(frames, codes, captions, strict=True):
        with mpl.rc_context(style.RC):
            points.set_offsets(plane)
            outline.set_data(*_line(frame.prior, left).T)
            _redraw_sheet(right, frame)
            title.set_text(caption)
            canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _panels(frame: Frame, classes: Sequence[str], note: str) -> tuple[Figure, Axes, Axes]:
    """Codes beside the manifold; a strip of one dimension lies over them."""
    is_strip, on_line = frame.tiles.shape[0] == 1, frame.codes.shape[1] == 1
    left = max(0.62, style.text_width(classes, 8.5) + 0.25) if on_line else 0.62
    # On a line the axis names the classes.
    handles = [Line2D([], [], color=PRIOR, lw=1, label="prior: 2 σ"), *style.class_handles([] if on_line else classes)]
    margins = {"left": left, "top": 0.45, "right": style.legend_width(handles)}
    if is_strip:
        columns, height, width = frame.tiles.shape[1], *frame.tiles.shape[-2:]
        high = 2 * PANEL / columns * height / width
        figure = new_figure(2 * PANEL, PANEL + high, note, **margins)
        figure.set_dpi(DPI)
        right, codes = panels(figure, 2, 1, (0, 0.45), height_ratios=[high, PANEL - 0.45])[:, 0]
    else:
        gap = 0.75 if frame.places.shape[-1] == 2 else max(0.75, style.text_width(classes, 8.5) + 0.4)
        figure = new_figure(2 * PANEL + gap, PANEL, note, **margins)
        figure.set_dpi(DPI)
        codes, right = panels(figure, 1, 2, (gap, 0))[0]
    right.spines[["left", "bottom"]].set_visible(False)
    corner = (figure.subplotpars.right, figure.subplotpars.top)
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=corner)
    return figure, codes, right


def _in_plane(codes: np.ndarray, labels: ArrayLike, classes: Sequence[str]) -> np.ndarray:
    """Codes of two dimensions as they are; those on a line in the row of their class, the first one on top."""
    if codes.shape[1] == 2:
        return codes
    rows = max(1, len(classes)) - 1 - np.asarray(labels)
    scattered = np.random.default_rng(0).uniform(-0.35, 0.35, len(codes))
    return np.stack([codes[:, 0], rows + scattered], 1)


def _fix_codes(axes: Axes, codes: Sequence[np.ndarray], priors: Sequence[np.ndarray], classes: Sequence[str]) -> None:
    everything = np.concatenate([*codes, *(prior for prior in priors if prior.shape[1] == 2)])
    if priors[0].shape[1] == 2:
        low, high = np.nanmin(everything, 0), np.nanmax(everything, 0)
        box = axes.get_window_extent()
        unit = 1.05 * max((high - low) / (box.width, box.height))  # of data in a pixel, the same on both axes
        (x, y), (width, height) = (low + high) / 2, (unit * box.width / 2, unit * box.height / 2)
        axes.set(xlim=(x - width, x + width), ylim=(y - height, y + height))
        return
    ends = np.concatenate([everything[:, 0], *(prior[:, 0] for prior in priors)])
    margin = 0.05 * np.ptp(ends)
    rows = max(1, len(classes))
    axes.set(xlim=(ends.min() - margin, ends.max() + margin), ylim=(-0.6, rows - 0.4))
    axes.set_yticks(np.arange(len(classes))[::-1], classes)


def _line(prior: np.ndarray, axes: Axes) -> np.ndarray:
    """The prior's outline; of one dimension, two lines from top to bottom."""
    if prior.shape[1] == 2:
        return prior
    low, high = axes.get_ylim()
    (a,), (b,) = prior
    return np.array([[a, low], [a, high], [np.nan, np.nan], [b, low], [b, high]])


def _fix_sheet(axes: Axes, codes: Axes, frames: Sequence[Frame], names: Sequence[str], classes: Sequence[str]) -> None:
    rows, _, _, tall, wide = frames[0].tiles.shape
    boxes = np.array([box_of(frame.places) for frame in frames])
    left, right, low, high = boxes[:, 0].min(), boxes[:, 1].max(), boxes[:, 2].min(), boxes[:, 3].max()
    axes.set(xlim=(left, right), ylim=(low, high), xlabel=names[0], aspect="auto")
    if frames[0].places.shape[-1] == 2:
        axes.set(aspect=tall / wide, ylabel=names[1])
        return
    ticks = high - (np.arange(rows) + 0.5) / rows * (high - low)
    axes.set_yticks(ticks if rows > 1 else [], classes[:rows] if rows > 1 else [])
    if rows == 1:  # over the codes, on the same axis
        ends = [*codes.get_xlim(), left, right]
        for each in (axes, codes):
            each.set_xlim(min(ends), max(ends))


def _redraw_sheet(axes: Axes, frame: Frame) -> None:
    for image in list(axes.images):
        image.remove()
    aspect = axes.get_aspect()
    rows = 1 if frame.places.shape[-1] == 2 else -1  # the first class is on top
    draw_sheet(axes, frame.tiles[::rows] / 255, frame.places)
    axes.set_aspect(aspect)
