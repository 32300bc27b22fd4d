"""Codes with the true factors of their images: which factors are discrete, samples for a score, bins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

BINS = 20  # of a continuous variable, all of the same mass
TRAIN, TEST = 10_000, 5_000  # codes at most; of fewer than both together a third are for testing
BATCH = 64  # codes, or pairs of codes, for one vote
SEED = 0  # of every draw: the same codes give the same numbers


class Pairs(NamedTuple):
    """Codes, of mean 0 and variance 1 (or 0), with their factors, in double precision."""

    codes: np.ndarray  # (n, latent_dim)
    factors: np.ndarray  # (n, factors); of a discrete factor 0, 1, 2, … in the order of its values
    discrete: list[bool]  # (factors,)

    def take(self, index: np.ndarray) -> Pairs:
        """The chosen ones, with the factors that are discrete among all."""
        return Pairs(self.codes[index], self.factors[index], self.discrete)


def paired(means: Tensor, factors: Tensor) -> Pairs:
    """All codes with the factors that vary."""
    truth = factors.double().numpy()
    truth = truth[:, (truth != truth[:1]).any(0)]
    if truth.shape[1] < 2:
        raise ValueError(f"disentanglement needs at least two factors that vary, not {truth.shape[1]}")
    columns, discrete = [], []
    for column in truth.T:
        values, ranks = np.unique(column, return_inverse=True)
        discrete.append(len(values) <= max(BINS, min(TRAIN, len(column)) // BATCH))
        columns.append(ranks if discrete[-1] else column)
    return Pairs(_standardised(means), np.stack(columns, axis=1, dtype=np.float64), discrete)


def _standardised(means: Tensor) -> np.ndarray:
    codes = means.double().numpy()
    scale = codes.std(0)
    constant = scale <= 1e-6 * np.abs(codes).max(0)  # the rounding of a mean is no variance
    return np.where(constant, 0, (codes - codes.mean(0)) / np.where(constant, 1, scale))


def sample(means: Tensor, factors: Tensor) -> Pairs:
    """At most `TRAIN` of the codes."""
    pairs = paired(means, factors)
    if len(means) <= TRAIN:
        return pairs
    chosen = np.random.default_rng(SEED).permutation(len(means))[:TRAIN]
    return pairs.take(chosen)._replace(codes=_standardised(means[chosen]))


def split(means: Tensor, factors: Tensor) -> tuple[Pairs, Pairs]:
    """For training and for testing."""
    pairs = paired(means, factors)
    order = np.random.default_rng(SEED).permutation(len(means))
    tests = min(TEST, len(means) // 3)
    return pairs.take(order[tests : tests + TRAIN]), pairs.take(order[:tests])


def histograms(means: Tensor, factors: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The bins of `TRAIN` codes (n, latent_dim) and of their factors (n, factors)."""
    pairs = sample(means, factors)
    few = [len(np.unique(code)) <= BINS for code in pairs.codes.T]
    return binned(pairs.codes, few), binned(pairs.factors, pairs.discrete)


def binned(values: np.ndarray, discrete: Sequence[bool], bins: int = BINS) -> np.ndarray:
    """The classes of each column of (n, k), as integers: its values if it is discrete, else quantile bins.

    Equal values share a bin, which may leave fewer bins.
    """
    result = np.empty(values.shape, dtype=np.int64)
    for i, (column, as_it_is) in enumerate(zip(values.T, discrete, strict=True)):
        inner = np.quantile(column, np.arange(1, bins) / bins)
        edges = np.unique(column)[1:] if as_it_is else np.unique(inner)
        result[:, i] = np.searchsorted(edges, column, side="right")
    return result
