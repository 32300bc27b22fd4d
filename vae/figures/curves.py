"""Curves over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vae.common.types import KL_OF_LEVEL, TERMS
from vae.figures.style import ACCENT, CODES, RC, new_figure, panels, set_gaps, styled, text_width

GAP = 0.6  # inches between panels


@styled
def losses(history: Sequence[Mapping[str, float]], reported: int, note: str = "") -> Figure:
    """Total, recon and kl over epochs, as far as they apply, from rows with `epoch`, `train/total` and so on, in nats.

    A ring marks the epoch of the reported weights on the loss that chose them, in a panel of its own
    where it is none of the terms.
    """
    epochs = np.array([row["epoch"] for row in history])
    terms = [term for term in TERMS if f"val/{term}" in history[0]]
    ringed = next((term for term in terms if _is_loss(history, term)), "loss")
    terms = terms if ringed in terms else ["loss", *terms]
    figure = new_figure((9.0 + GAP) / 3 * len(terms) - GAP, 2.3, note, top=0.32)
    marker = "o" if len(epochs) < 8 else ""  # one epoch alone would make an invisible line
    row = panels(figure, 1, len(terms), (GAP, 0))[0]
    for axes, term in zip(row, terms, strict=True):
        for part, name, colour, dashes in (("train", "training", CODES, "-"), ("val", "validation", ACCENT, "--")):
            values = np.array([row[f"{part}/{term}"] for row in history])
            axes.plot(epochs, values, color=colour, ls=dashes, lw=1.6, marker=marker, ms=3.5, label=name)
        axes.set(title=term, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        if term == ringed and reported in epochs:  # not of weights that were saved within an epoch
            value = values[list(epochs).index(reported)]
            label = f"{'best' if value == values.min() else 'reported'}: {value:.2f}"
            axes.plot(reported, value, "o", ms=7, mfc="none", mec=ACCENT, label=label)
    row[0].set_ylabel("nats per image")
    _make_room(figure, row)
    row[terms.index(ringed)].legend()
    return figure


@styled
def levels(history: Sequence[Mapping[str, float]], count: int, reported: int, note: str = "") -> Figure:
    """KL of each of several levels over epochs on validation images, the top level's first, with their sum."""
    epochs = np.array([row["epoch"] for row in history])
    figure = new_figure(6.0, 2.6, note, top=0.32)
    (axes,) = panels(figure, 1, 1, (GAP, 0))[0]
    marker = "o" if len(epochs) < 8 else ""
    for place, shade in enumerate(np.linspace(0.05, 0.85, count), 1):
        values = [row[f"val/{KL_OF_LEVEL.format(place)}"] for row in history]
        name = "top level" if place == 1 else f"level {place}"
        axes.plot(epochs, values, color=colormaps["viridis"](shade), lw=1.6, marker=marker, ms=3.5, label=name)
    axes.plot(epochs, [row["val/kl"] for row in history], color=CODES, lw=1.2, ls=":", label="kl, their sum")
    if reported in epochs:
        axes.axvline(reported, color=ACCENT, lw=1, ls="--", label="reported")
    axes.set(title="KL of each level, validation", xlabel="epoch", ylabel="nats per image", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.legend()
    return figure


def _make_room(figure: Figure, row: Sequence[Axes]) -> None:
    """Leave as much to the left of every panel as its numbers take: those of large images are long."""
    widths = [text_width([label.get_text() for label in axes.get_yticklabels()], RC["ytick.labelsize"]) for axes in row]
    left = max(figure.subplotpars.left, (widths[0] + 0.36) / figure.get_figwidth())
    figure.subplots_adjust(left=left)
    set_gaps(figure, 1, len(row), (max(GAP, *(width + 0.25 for width in [0.0, *widths[1:]])), 0))


def _is_loss(history: Sequence[Mapping[str, float]], term: str) -> bool:
    """Whether a term is what is minimised, in training as in validation."""
    parts = [(row, part) for row in history for part in ("train", "val")]
    loss, values = ([row[f"{part}/{name}"] for row, part in parts] for name in ("loss", term))
    return np.allclose(loss, values, rtol=1e-5, equal_nan=True)
