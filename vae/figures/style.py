"""The look that all pictures share, and how they become pixels. Nothing here touches pyplot or global settings."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath
from numpy.typing import ArrayLike
from PIL import Image
from PIL.PngImagePlugin import PngInfo

P = ParamSpec("P")

DPI = 110
ACROSS = 1200  # pixels that a picture is wide at least: enough for a slide
FOOT = 0.18  # inches that the small print is high
BESIDE = 0.2  # inches between the area for axes and a legend to its right
PRIOR = "#222222"  # lines of the prior; the codes of one class, or of none, are blue
CODES = "#0077BB"
ACCENT = "#CC3311"
# Ten colours from the schemes of Okabe and Ito, of Tol, and of Petroff: the ten with the nearest two differing most to
# people with normal vision, protanopia, deuteranopia and tritanopia (22 in CIELAB at the least).
PALETTE = (
    "#0077BB", "#E69F00", "#882255", "#88CCEE", "#CC3311", "#332288", "#DDCC77", "#EE6677", "#5C3A21", "#B07AA1",
)  # fmt: skip

RC: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titley": 1.0,  # else its place is searched for, which takes a sixth of the time
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.borderaxespad": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "axes.unicode_minus": True,
    "image.interpolation": "auto",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw a picture in the shared look."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(RC):
            return draw(*args, **kwargs)

    return wrapper


class Picture(Figure):
    """A figure that a notebook shows as it is on disk; in few colours, because the notebook keeps all its pictures."""

    def _repr_png_(self) -> bytes:
        image, file = as_image(rasterise(self, DPI)), io.BytesIO()
        if image.mode == "RGB":
            # The steps of k-means bring rare colours back, which a median cut of a mostly white picture mixes.
            image = image.quantize(256, kmeans=2)
        image.save(file, "png", optimize=True)
        return file.getvalue()


def new_figure(
    width: float,
    height: float,
    note: str,
    left: float = 0.62,
    right: float = 0.1,
    top: float = 0.1,
    bottom: float = 0.7,
) -> Figure:
    """An empty figure with the run's essentials in small print at its foot.

    All in inches: the area for axes, and margins for everything else. Matplotlib would find the margins by itself, but
    takes longer for that than for the picture.
    """
    right += max(0.0, text_width([note], 7) + 0.15 - left - width - right)
    whole = (left + width + right, bottom + height + top)
    figure = Picture(figsize=whole, dpi=max(DPI, math.ceil(ACROSS / whole[0])))
    figure.subplots_adjust(left / whole[0], bottom / whole[1], 1 - right / whole[0], 1 - top / whole[1])
    figure.text(1 - 0.06 / whole[0], 0.06 / whole[1], note, ha="right", va="bottom", fontsize=7, color="#777777")
    return figure


def panels(figure: Figure, rows: int, columns: int, gap: tuple[float, float], **options: Any) -> np.ndarray:
    """Axes (rows, columns) in the area of a figure, with that many inches between columns and between rows."""
    set_gaps(figure, rows, columns, gap)
    return figure.subplots(rows, columns, squeeze=False, **options)


def set_gaps(figure: Figure, rows: int, columns: int, gap: tuple[float, float]) -> None:
    """Let subplots have that many inches between columns and between rows."""
    box, (width, height) = figure.subplotpars, figure.get_size_inches()
    inner = (
        (box.right - box.left) * width - (columns - 1) * gap[0],
        (box.top - box.bottom) * height - (rows - 1) * gap[1],
    )
    figure.subplots_adjust(wspace=gap[0] * columns / inner[0], hspace=gap[1] * rows / inner[1])


def beside(figure: Figure, gap: float, width: float) -> Axes:
    """Axes to the right of the area of a figure, as high as that: for a colour bar. In inches."""
    box, whole = figure.subplotpars, figure.get_figwidth()
    return figure.add_axes((box.right + gap / whole, box.bottom, width / whole, box.top - box.bottom))


def text_width(lines: Iterable[str], size: float = RC["font.size"]) -> float:
    """Inches that the widest of some lines of text takes at the most: small text is drawn wider than its outlines."""
    font = FontProperties(size=size)
    measure = TextToPath().get_text_width_height_descent
    return 1.1 * max((measure(line, font, False)[0] / 72 for text in lines for line in text.split("\n")), default=0.0)


def legend_width(handles: Sequence[Any]) -> float:
    """Inches that a legend of one column takes beside the axes."""
    return text_width((handle.get_label() for handle in handles), RC["legend.fontsize"]) + 0.45


def legend_beside(figure: Figure, handles: Sequence[Any], below: float = 0.0) -> None:
    """A legend to the right of the area of a figure, that many inches below its upper edge."""
    box, (width, height) = figure.subplotpars, figure.get_size_inches()
    corner = (box.right + BESIDE / width, box.top - below / height)
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, borderaxespad=0)


def as_image(pixels: np.ndarray) -> Image.Image:
    """The pixels (height, width, 3) as an image of one channel where all are grey."""
    return Image.fromarray(pixels[..., 0] if (pixels == pixels[..., :1]).all() else pixels)


def rasterise(figure: Figure, dpi: float | None = None) -> np.ndarray:
    """The figure's pixels, uint8 (height, width, 3)."""
    with mpl.rc_context(RC):
        if dpi is not None:
            figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def png_options(figure: Figure) -> dict[str, Any]:
    """What Pillow writes into a figure's file: its dots per inch, and where the legend and the small print begin.

    `panels` is their place in pixels from the left and from the top.
    """
    box, (width, height) = figure.subplotpars, figure.get_size_inches()
    info = PngInfo()
    right, bottom = min(box.right * width + 0.8 * BESIDE, width), height - FOOT
    info.add_text("panels", f"{round(right * figure.dpi)} {round(bottom * figure.dpi)}")
    return {"dpi": (figure.dpi, figure.dpi), "pnginfo": info}


def colours(count: int) -> list[str]:
    """One colour a class: the palette, or for more than ten classes the hues of a rainbow of even lightness steps."""
    if count <= len(PALETTE):
        return list(PALETTE[:count])
    return [mpl.colors.to_hex(c) for c in mpl.colormaps["turbo"](np.linspace(0.02, 0.98, count))]


def axis_name(dim: int, symbol: str = "z") -> str:
    """z₀, z₁, …: plain characters, because mathematical text takes several times as long to draw."""
    return symbol + str(dim).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def pixels(images: ArrayLike) -> np.ndarray:
    """Images (…, channels, height, width) as matplotlib wants them: (…, height, width) or (…, height, width, 3)."""
    array = np.asarray(images, dtype=np.float32).clip(0, 1)
    return array[..., 0, :, :] if array.shape[-3] == 1 else np.moveaxis(array, -3, -1)


def mosaic(images: ArrayLike, gap: int = 0) -> np.ndarray:
    """Images (rows, columns, channels, height, width) side by side, `gap` white pixels between them."""
    tiles = pixels(images)
    colour = tiles.ndim == 5
    edges = [(0, 0), (0, 0), (gap, 0), (gap, 0), *([(0, 0)] if colour else [])]
    tiles = np.pad(tiles, edges, constant_values=1)
    tiles = np.moveaxis(tiles, 2, 1)  # (rows, height, columns, width, …)
    rows, height, columns, width = tiles.shape[:4]
    return tiles.reshape(rows * height, columns * width, *tiles.shape[4:])[gap:, gap:]


def show(axes: Axes, image: np.ndarray, **options: Any) -> None:
    """Draw pixels in [0, 1], grey ones from black to white."""
    # As bytes with an alpha channel: matplotlib takes almost twice as long for numbers that it has to colour.
    rgba = np.full((*image.shape[:2], 4), 255, dtype=np.uint8)
    rgba[..., :3] = np.rint(255 * np.atleast_3d(image))
    axes.imshow(rgba, **options)


def class_handles(classes: Sequence[str], limit: int = 20) -> list[Line2D]:
    """The legend's entries of classes, at most `limit`."""
    shown = list(zip(classes, colours(len(classes)), strict=True))[:limit]
    handles = [Line2D([], [], ls="", marker="o", ms=5, color=colour, label=name) for name, colour in shown]
    if len(classes) > limit:
        handles.append(Line2D([], [], ls="", label=f"and {len(classes) - limit} more"))
    return handles


def label_colours(labels: ArrayLike, classes: Sequence[str]) -> np.ndarray:
    """The colour of every code, (n, 4)."""
    if not classes:
        return np.tile(mpl.colors.to_rgba(CODES), (len(np.asarray(labels)), 1))
    return mpl.colors.to_rgba_array(colours(len(classes)))[np.asarray(labels)]


def spread(count: int, limit: int) -> np.ndarray:
    """At most `limit` of `count` positions, in an order that hides no class behind another; always the same ones."""
    order = np.random.default_rng(0).permutation(count)
    return order[:limit]
