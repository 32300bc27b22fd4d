"""The latent space of three dimensions: a scatter plot in space, still and turning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from mpl_toolkits.mplot3d.art3d import Line3D
from mpl_toolkits.mplot3d.axes3d import Axes3D
from numpy.typing import ArrayLike

from vae.figures import style
from vae.figures.style import ACCENT, PRIOR, new_figure, styled

CAPITAL = 0.73  # height of the letter in a font of size 1

Walls = dict[tuple[int, int], tuple[Sequence[Sequence[ArrayLike]], ArrayLike]]


@styled
def clusters_3d(
    means: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    walls: Walls,
    points: int = 5000,
    note: str = "",
) -> Figure:
    """Codes (n, 3) by class; on the walls the outlines of prior and aggregate posterior of each pair of dimensions.

    `walls[i, j]` holds the prior's lines at 1, 2, 3 σ and the aggregate posterior's, as in `vae.figures.latent.View`.
    """
    means = np.asarray(means)
    handles = [
        Line2D([], [], color=PRIOR, lw=1, label="prior: 1, 2, 3 σ"),
        Line2D([], [], color=ACCENT, lw=1.5, ls="--", label="aggregate\nposterior: 2 σ"),
        *style.class_handles(classes),
    ]
    right = style.BESIDE + style.legend_width(handles)
    figure = new_figure(5.3, 5.0, note, left=0.0, right=right, top=0.0, bottom=0.25)
    axes = figure.add_subplot(projection="3d", computed_zorder=False)
    assert isinstance(axes, Axes3D)
    lines = [np.asarray(line) for prior, aggregate in walls.values() for line in (*prior[-1], aggregate)]
    reach = 1.03 * max(np.abs(means).max(), *(np.abs(line).max() for line in lines))
    for (i, j), (prior, aggregate) in walls.items():
        (k,) = {0, 1, 2} - {i, j}
        styles = [(line, PRIOR, "-", 0.8) for lines in prior for line in lines] + [(aggregate, ACCENT, "--", 1.2)]
        for line, colour, dashes, width in styles:
            flat = np.asarray(line)
            spatial = np.full((3, len(flat)), -reach)
            spatial[i], spatial[j] = flat.T
            axes.plot(*spatial, color=colour, ls=dashes, lw=width, zorder=1, gid=str(k))
    chosen = style.spread(len(means), points)
    colours = style.label_colours(labels, classes)[chosen]
    axes.scatter(*means[chosen].T, s=7, c=colours, alpha=0.6, lw=0, depthshade=False, zorder=2)
    axes.set(xlabel="z₀", ylabel="z₁", zlabel="z₂")
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
    axes.locator_params(nbins=6)
    axes.set_box_aspect((1, 1, 1), zoom=1.0)
    axes.view_init(elev=20, azim=-60)
    _move_walls(axes)
    style.legend_beside(figure, handles, below=0.1)
    return figure


def turning(figure: Figure, frames: int = 48, dpi: float = 80) -> Iterator[np.ndarray]:
    """The pixels of a figure with one axes in space, turned once around, uint8 (height, width, 3)."""
    (axes,) = figure.axes
    assert isinstance(axes, Axes3D)
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    start = axes.azim
    for frame in range(frames):
        axes.view_init(elev=axes.elev, azim=start + 360 * frame / frames)
        _move_walls(axes)
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def written(names: Sequence[str], cloud: np.ndarray) -> list[np.ndarray]:
    """Names made of points (m, 3), one below the other on the right of a cloud (n, 3)."""
    low, high = cloud.min(0), cloud.max(0)
    line = (high[1] - low[1]) / max(len(names), 8)
    height = 0.7 * line
    found = []
    for place, name in enumerate(names):
        path = TextPath((0, 0), name.strip() or "?", size=1.0)
        box = path.get_extents()
        grid = np.arange(0, max(box.x1, 1), CAPITAL / 12)
        spots = np.stack(np.meshgrid(grid, grid - 0.25), -1).reshape(-1, 2)
        is_inside = np.zeros(len(spots), dtype=bool)
        for ring in path.to_polygons():
            is_inside ^= Path(ring).contains_points(spots)  # the hole of a 0 is a ring within another
        inside = spots[is_inside] * height / CAPITAL
        corner = (high[0] + line, high[1] - (place + 1) * line)
        found.append(np.column_stack([inside + corner, np.full(len(inside), (low[2] + high[2]) / 2)]))
    return found


def _move_walls(axes: Axes3D) -> None:
    """Put every outline onto the wall that is behind the cloud; an outline's gid is the axis that it stands across."""
    azimuth = np.deg2rad(axes.azim)
    behind = {"0": -np.sign(np.cos(azimuth)), "1": -np.sign(np.sin(azimuth)), "2": -1}
    for line in axes.lines:
        assert isinstance(line, Line3D)
        data = list(map(np.asarray, line.get_data_3d()))
        across = int(line.get_gid())
        data[across] = np.abs(data[across]) * (behind[line.get_gid()] or 1)
        line.set_data_3d(data)
