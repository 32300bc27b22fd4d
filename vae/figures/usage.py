"""The use of codes."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from vae.figures.style import ACCENT, CODES, new_figure, panels, styled

BARS = 400  # codes that have a bar each; more are a line


@styled
def usage(counts: ArrayLike, note: str = "") -> Figure:
    """How often each code stands for a place, of counts (stages, codes), the most used first; in units of even use."""
    counts = np.asarray(counts, dtype=float)
    stages, codes = counts.shape
    shares = -np.sort(-counts / counts.sum(1, keepdims=True), axis=1)
    figure = new_figure(7.0, 2.6, note, left=0.75, top=0.32)
    (axes,) = panels(figure, 1, 1, (0, 0))[0]
    places = np.arange(1, codes + 1)
    for stage, share in enumerate(shares):
        if stages == 1 and codes <= BARS:
            axes.bar(places, codes * share, width=0.9, color=CODES)
        else:
            shade = 1 - 0.7 * stage / max(1, stages - 1)
            axes.plot(places, codes * share, color=CODES, alpha=shade, lw=1.6, label=f"stage {stage + 1}")
    axes.axhline(1, color=ACCENT, lw=1, ls="--", label="all codes alike")
    entropy = -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1)
    used = (counts > 0).mean()
    title = f"{used:.0%} of {codes:,} codes in use, perplexity {np.exp(entropy).mean():.1f}"
    axes.set(title=title if stages == 1 else f"{title}, means of {stages} stages")
    axes.set(xlabel="code, by its use", ylabel="use, in units of even use", xlim=(0.3, codes + 0.7), yscale="log")
    axes.set_ylim(max(codes * shares[shares > 0].min() / 2, 1e-4), 2 * codes * shares.max())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.legend(loc="upper right")
    return figure
