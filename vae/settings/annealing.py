"""What an annealed weight may be: refused at once where nothing is trained yet. Imports no torch."""

from __future__ import annotations

import math

KINDS = ("constant", "linear", "cosine", "cyclical")
RISING = ("linear", "cosine")  # over `warmup` epochs


def check_annealing(kind: str, warmup: float) -> None:
    """Refuse an unknown kind, and a warm-up that would do nothing or is missing."""
    if kind not in KINDS:
        raise ValueError(f"objective.annealing={kind}: must be one of {', '.join(KINDS)}")
    if not 0 <= warmup < math.inf:
        raise ValueError(f"objective.warmup={warmup}: must be a number of epochs of at least 0")
    if (kind in RISING) != (warmup > 0):
        allowed = "above 0, the epochs that it rises over," if kind in RISING else "0, because nothing rises over it,"
        raise ValueError(f"objective.warmup={warmup:g}: must be {allowed} with objective.annealing={kind}")
