"""Disentanglement: how far each dimension of the codes stands for one true factor; higher scores are better.

The protocols and sizes are those of Locatello et al. (2019), for a fixed sample of images instead of a generator, and
for continuous factors, too. A factor is discrete if it has at most 20 values, or so few that on average 64 of 10,000
images share one (dSprites' have up to 40): its values themselves are the classes. Any other factor is continuous, and
where a score needs classes these are quantile bins. The codes are the posterior means (n, latent_dim), the factors
(n, factors). Factors that do not vary are left out; of correlated factors even perfect codes have smaller gaps (`mig`,
`sap`), for the code of one then tells of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import Tensor

from vae.evaluation.known_factors import BATCH, BINS, SEED, Pairs, binned, histograms, paired, sample, split

TRAIN_VOTES, TEST_VOTES = 10_000, 5_000
PRUNED = 0.05  # variance below which a dimension has no vote in the FactorVAE score
TREES, LEAF = 20, 20  # of a random forest, and the fewest codes in a leaf


class DCI(NamedTuple):
    """Disentanglement, completeness and informativeness (Eastwood and Williams, 2018)."""

    disentanglement: float  # how few factors each code is important for
    completeness: float  # how few codes are important for each factor
    informativeness: float  # of the forests' predictions, on test codes


def scores(means: Tensor, factors: Tensor) -> dict[str, float]:
    """All the scores of this module."""
    parts = dci(means, factors)
    return {
        "mig": mig(means, factors),
        "sap": sap(means, factors),
        **{f"dci_{name}": value for name, value in parts._asdict().items()},
        "beta_vae_score": beta_vae_score(means, factors),
        "factor_vae_score": factor_vae_score(means, factors),
        "modularity": modularity(means, factors),
    }


def mig(means: Tensor, factors: Tensor) -> float:
    """Mutual information gap: mean over the factors of (I(zᵢ; f) − I(zⱼ; f)) / H(f), with zᵢ, zⱼ the best two codes.

    From histograms of 10,000 codes with 20 bins of each code and continuous factor (Chen et al., 2018). The bins of a
    code are quantiles as well, so that a monotone function of a code does not change the score. They cannot tell all
    values of a factor with more than 20: of 40 the gap is at most log 20 / log 40 = 0.81, in Locatello et al. as here.
    """
    code_bins, factor_bins = histograms(means, factors)
    entropy = np.diagonal(_information(factor_bins, factor_bins))  # I(f; f)
    return _gap(_information(code_bins, factor_bins) / np.where(entropy > 0, entropy, 1))  # 0: it varies elsewhere


def modularity(means: Tensor, factors: Tensor) -> float:
    """Mean over the codes of 1 − Σ_{f≠f*} I(z; f)² / ((factors − 1) I(z; f*)²), with f* the code's best factor.

    From the histograms of `mig` (Ridgeway and Mozer, 2018). A constant code scores 0. So should noise, but by chance a
    histogram finds a little information about every factor, the more the more bins a factor has: with six factors of as
    many bins noise scores about 0.2, with dSprites' five of 3 to 40 values about 0.7. Locatello et al., too, take the
    mean over all codes: many inactive dimensions bring the score near that of noise, whatever the others do.
    """
    squares = _information(*histograms(means, factors)) ** 2
    best = squares.max(1)
    others = (squares.sum(1) - best) / (squares.shape[1] - 1)
    return float(np.where(best > 0, 1 - others / np.where(best > 0, best, 1), 0).mean())


def sap(means: Tensor, factors: Tensor) -> float:
    """Separated attribute predictability: mean over the factors of the gap between the best two codes' predictions.

    A prediction's score is the squared correlation on 10,000 codes for a continuous factor, and for a discrete one the
    accuracy on 5,000 test codes of a linear support vector machine (C = 0.01, balanced classes) that was trained on
    10,000 codes of one standardised dimension (Kumar et al., 2018). For discrete factors even perfect codes score below
    1: by as much as is right by chance, and more for three classes or more, for along a line such a machine does not
    find the middle ones.
    """
    codes, truth, discreteness = sample(means, factors)
    matrix = np.empty((codes.shape[1], truth.shape[1]))
    train, test = split(means, factors)
    for j, discrete in enumerate(discreteness):
        if discrete:
            for i in range(codes.shape[1]):
                machine = LinearSVC(C=0.01, class_weight="balanced", random_state=SEED)
                machine.fit(train.codes[:, i : i + 1], train.factors[:, j])
                matrix[i, j] = machine.score(test.codes[:, i : i + 1], test.factors[:, j])
        else:
            centred = truth[:, j] - truth[:, j].mean()
            matrix[:, j] = (codes.T @ centred) ** 2 / (len(codes) * (centred**2).sum())
    return _gap(matrix)


def dci(means: Tensor, factors: Tensor) -> DCI:
    """Eastwood and Williams' (2018) scores from the importances Rᵢⱼ of code i in predicting factor j.

    With Pᵢⱼ = Rᵢⱼ / Σⱼ Rᵢⱼ, disentanglement is the mean of 1 + Σⱼ Pᵢⱼ log Pᵢⱼ / log factors over the codes, each
    weighted by Σⱼ Rᵢⱼ; completeness is the same with codes and factors exchanged. Informativeness is the mean accuracy
    for discrete factors, R² (at least 0) for continuous ones. Trained on 10,000 codes and scored on 5,000.

    The importances are those (of impurity) of random forests as in the paper, not of gradient boosted trees, which take
    several times as long: 20 trees that try all codes at each split and have 20 codes or more in each leaf.
    """
    train, test = split(means, factors)
    importances, qualities = [], []
    for target, expected, discrete in zip(train.factors.T, test.factors.T, train.discrete, strict=True):
        kind = RandomForestClassifier if discrete else RandomForestRegressor
        forest = kind(TREES, min_samples_leaf=LEAF, max_features=1.0, random_state=SEED)
        forest.fit(train.codes, target)
        importances.append(forest.feature_importances_)
        qualities.append(max(0.0, forest.score(test.codes, expected)))
    matrix = np.stack(importances, axis=1)  # (latent_dim, factors)
    return DCI(_concentration(matrix), _concentration(matrix.T), float(np.mean(qualities)))


def beta_vae_score(
    means: Tensor, factors: Tensor, train_votes: int = TRAIN_VOTES, test_votes: int = TEST_VOTES
) -> float:
    """Accuracy of a linear classifier that says which factor the two codes of each pair share (Higgins et al., 2017).

    A vote is the mean |z − z′| over 64 pairs of images, each pair with the same bin of one factor and otherwise drawn
    at random; logistic regression learns from 10,000 votes and is scored on 5,000. A discrete factor is the same in
    both images, a continuous one about the same: `_votes` says how the bins are made. The codes are standardised, so
    that their scale does not matter.
    """
    pairs = paired(means, factors)
    codes = pairs.codes

    def vote(bins: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
        first = generator.integers(len(codes), size=(count, BATCH))
        return np.abs(codes[first] - codes[_partners(bins, first, generator)]).mean(1)

    (features, fixed), (test_features, test_fixed) = _votes(pairs, vote, train_votes, test_votes)
    return float(LogisticRegression(max_iter=1000).fit(features, fixed).score(test_features, test_fixed))


def factor_vae_score(
    means: Tensor, factors: Tensor, train_votes: int = TRAIN_VOTES, test_votes: int = TEST_VOTES
) -> float:
    """Accuracy of the majority vote that says which factor a batch shares from the code that varies least in it.

    A vote is the argmin over the dimensions of Var_batch(zᵢ) / Var(zᵢ), for 64 images with the same bin of one factor;
    each dimension stands for the factor with most of its 10,000 votes, and 5,000 more are scored (Kim and Mnih, 2018).
    Dimensions with a variance below 0.05 are left out as collapsed, as Locatello et al. write (their program leaves out
    standard deviations below 0.05); without any others the score is 0. `_votes` says how the bins are made.
    """
    active = means.double().var(0) >= PRUNED
    if not active.any():
        return 0.0
    pairs = paired(means[:, active], factors)
    codes = pairs.codes

    def vote(bins: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
        first = np.broadcast_to(generator.integers(len(codes), size=(count, 1)), (count, BATCH))
        return codes[_partners(bins, first, generator)].var(1).argmin(1)

    (least, fixed), (test_least, test_fixed) = _votes(pairs, vote, train_votes, test_votes)
    counts = np.zeros((codes.shape[1], pairs.factors.shape[1]))
    np.add.at(counts, (least, fixed), 1)
    return float((counts.argmax(1)[test_least] == test_fixed).mean())


def _information(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mutual information, in nats, of each column of classes (n, k) with each of (n, m): (k, m)."""
    result = np.empty((first.shape[1], second.shape[1]))
    for i, a in enumerate(first.T):
        for j, b in enumerate(second.T):
            joint = np.bincount(a * (b.max() + 1) + b, minlength=(a.max() + 1) * (b.max() + 1)) / len(a)
            joint = joint.reshape(a.max() + 1, b.max() + 1)
            product = joint.sum(1, keepdims=True) * joint.sum(0)
            seen = joint > 0
            result[i, j] = (joint[seen] * np.log(joint[seen] / product[seen])).sum()
    return result.clip(min=0)  # what rounding takes below


def _gap(matrix: np.ndarray) -> float:
    """Mean over the factors of the difference of the best two codes in (latent_dim, factors)."""
    matrix = np.vstack([matrix, np.zeros_like(matrix[:1])])  # what a single code is compared with
    second, best = np.sort(matrix, axis=0)[-2:]
    return float((best - second).mean())


def _concentration(matrix: np.ndarray) -> float:
    """1 − H / log m of the shares in each row of (k, m) that is not negative, weighted by the sum of the row."""
    total = matrix.sum()
    if total == 0 or matrix.shape[1] == 1:
        return float(total > 0)
    weights = matrix.sum(1, keepdims=True)
    shares = matrix / np.where(weights > 0, weights, 1)
    entropies = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1)
    return float((weights[:, 0] * (1 - entropies / np.log(matrix.shape[1]))).sum() / total)


def _partners(bins: np.ndarray, first: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """For each image of an array of indices, another one that is drawn, with replacement, among those in the same bin.

    Never itself, unless it is alone: in small bins such pairs of equal codes would give the factor away.
    """
    order, sizes = bins.argsort(kind="stable"), np.bincount(bins)
    starts = sizes.cumsum() - sizes
    position = np.empty(len(bins), dtype=np.int64)  # of each image in its bin
    position[order] = np.arange(len(bins)) - starts[bins[order]]
    own = bins[first]
    steps = generator.integers(1, np.maximum(sizes[own], 2))
    return order[starts[own] + (position[first] + steps) % sizes[own]]


def _votes(
    pairs: Pairs,
    vote: Callable[[np.ndarray, int, np.random.Generator], np.ndarray],
    *counts: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Votes (count, …) with the factors (count,) that they are about, once for each count.

    Each vote is about a factor drawn at random. `vote(bins, count, generator)` makes the votes about one, given
    by its bins (n,): the values of a discrete factor, 20 of a continuous one or as many as leave 64 images in each.
    """
    generator = np.random.default_rng(SEED)
    bins = binned(pairs.factors, pairs.discrete, max(2, min(BINS, len(pairs.factors) // BATCH)))
    result = []
    for count in counts:
        fixed = np.sort(generator.integers(bins.shape[1], size=count))  # votes about one factor are made together
        parts = [
            vote(column, size, generator)
            for column, size in zip(bins.T, np.bincount(fixed, minlength=bins.shape[1]), strict=True)
        ]
        result.append((np.concatenate(parts), fixed))
    return result
