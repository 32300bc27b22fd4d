"""Scores of images of other data beside those of the training data's kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from vae.figures.style import ACCENT, CODES, new_figure, panels, styled

BINS = 40
OUTER = 0.01  # share of all scores at each end that may be too far off to set the bins


@styled
def scores(
    found: Mapping[str, tuple[ArrayLike, ArrayLike]], aurocs: Sequence[float], names: Sequence[str], note: str = ""
) -> Figure:
    """One panel for each score by its label: histograms of both data sets' images; scores beyond count at the ends."""
    figure = new_figure(3.0 * len(found) + 0.6 * (len(found) - 1), 2.3, note, top=0.32)
    row = panels(figure, 1, len(found), (0.6, 0))[0]
    for axes, (label, pair), auroc in zip(row, found.items(), aurocs, strict=True):
        both = [np.asarray(each, dtype=float) for each in pair]
        edges = _edges(np.concatenate(both))
        for values, name, colour in zip(both, names, (CODES, ACCENT), strict=True):
            heights, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
            axes.stairs(heights / len(values), edges, fill=True, color=colour, alpha=0.35, lw=0, label=name)
            axes.stairs(heights / len(values), edges, color=colour, lw=1.2)
        axes.set(title=f"AUROC {auroc:.3f}", xlabel=label, xlim=(edges[0], edges[-1]))
        axes.set_ylim(0, None)
    row[0].set_ylabel("share of images")
    row[0].legend(loc="best")
    return figure


def _edges(values: np.ndarray) -> np.ndarray:
    """The limits of the bins: a few failures must not squeeze all others into one bin."""
    inner = np.quantile(values, [OUTER, 1 - OUTER])
    margin = 0.1 * np.ptp(inner) + 1e-6
    return np.linspace(max(values.min(), inner[0] - margin), min(values.max(), inner[1] + margin) + 1e-6, BINS + 1)
