"""The latent space of three dimensions: a scatter plot in space, still and turning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from mpl_toolkits.mplot3d.art3d import Line3D
from mpl_toolkits.mplot3d.axes3d import Axes3D
from numpy.typing import ArrayLike

from vae.figures import style
from vae.figures.style import ACCENT, PRIOR, new_figure, styled

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
    right = style.legend_width(handles)
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
    place = (figure.subplotpars.right, 0.97)
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=place, borderaxespad=0)
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
