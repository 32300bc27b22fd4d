"""Curves over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vae.figures.style import ACCENT, CODES, new_figure, panels, styled


@styled
def losses(history: Sequence[Mapping[str, float]], note: str = "") -> Figure:
    """Total, recon and kl over epochs, from rows with `epoch`, `train/total`, `val/total` and so on, in nats."""
    epochs = np.array([row["epoch"] for row in history])
    figure = new_figure(9.0, 2.3, note, top=0.32)
    marker = "o" if len(epochs) < 8 else ""  # one epoch alone would make an invisible line
    for axes, term in zip(panels(figure, 1, 3, (0.6, 0))[0], ("total", "recon", "kl"), strict=True):
        for part, name, colour, dashes in (("train", "training", CODES, "-"), ("val", "validation", ACCENT, "--")):
            values = np.array([row[f"{part}/{term}"] for row in history])
            axes.plot(epochs, values, color=colour, ls=dashes, lw=1.6, marker=marker, ms=3.5, label=name)
        axes.set(title=term, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        if term == "total":
            best = int(values.argmin())
            axes.plot(epochs[best], values[best], "o", ms=7, mfc="none", mec=ACCENT, label=f"best: {values[best]:.2f}")
            axes.set_ylabel("nats per image")
            axes.legend()
    return figure
