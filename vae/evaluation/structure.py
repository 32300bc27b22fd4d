"""Codes and class labels: nearest neighbours, a linear classifier, and clusterings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

NEIGHBOURS = 5
STARTS = 4  # of k-means; the tightest counts
SEED = 0  # of every clustering: the same codes give the same numbers


class Agreement(NamedTuple):
    """How well a clustering agrees with the labels: 1 where they are the same partition, about 0 by chance."""

    nmi: float  # I(c; y) / ½ (H(c) + H(y)), the normalised mutual information
    ari: float  # the adjusted Rand index (Hubert and Arabie, 1985)


def scores(train_means: Tensor, train_labels: Tensor, test_means: Tensor, test_labels: Tensor) -> dict[str, float]:
    """All the numbers of this module, for codes (n, latent_dim) and labels (n,) of at least two classes."""
    k_means, mixture = cluster_k_means(test_means, test_labels), cluster_mixture(test_means, test_labels)
    return {
        "knn_accuracy": knn_accuracy(train_means, train_labels, test_means, test_labels),
        "linear_accuracy": linear_accuracy(train_means, train_labels, test_means, test_labels),
        "kmeans_nmi": k_means.nmi,
        "kmeans_ari": k_means.ari,
        "mixture_nmi": mixture.nmi,
        "mixture_ari": mixture.ari,
    }


def knn_accuracy(train_means: Tensor, train_labels: Tensor, test_means: Tensor, test_labels: Tensor) -> float:
    """Share of test codes with the label of most of their 5 nearest training codes, by Euclidean distance."""
    # Not a tree: one of many equal codes, as a collapsed model makes them, is slow to search.
    model = KNeighborsClassifier(NEIGHBOURS, algorithm="brute")
    model.fit(_array(train_means), train_labels.numpy())
    return float(model.score(_array(test_means), test_labels.numpy()))


def linear_accuracy(train_means: Tensor, train_labels: Tensor, test_means: Tensor, test_labels: Tensor) -> float:
    """Share of test codes that a linear probe gets right: logistic regression on standardised training codes."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(_array(train_means), train_labels.numpy())
    return float(model.score(_array(test_means), test_labels.numpy()))


def cluster_k_means(means: Tensor, labels: Tensor) -> Agreement:
    """k-means with as many clusters as there are labels, against these."""
    return _agreement(_k_means(labels), means, labels)


def cluster_mixture(means: Tensor, labels: Tensor) -> Agreement:
    """A mixture of as many Gaussians of full covariance as there are labels, started from k-means, against these."""
    with _unconverged():
        centres = _k_means(labels).fit(_array(means)).cluster_centers_
    return _agreement(GaussianMixture(len(centres), means_init=centres, random_state=SEED), means, labels)


def _k_means(labels: Tensor) -> KMeans:
    return KMeans(len(labels.unique()), n_init=STARTS, random_state=SEED)


def _agreement(model: KMeans | GaussianMixture, means: Tensor, labels: Tensor) -> Agreement:
    with _unconverged():
        clusters = model.fit_predict(_array(means))
    classes = labels.numpy()
    nmi, ari = normalized_mutual_info_score(classes, clusters), adjusted_rand_score(classes, clusters)
    return Agreement(float(nmi), float(ari))


@contextmanager
def _unconverged() -> Iterator[None]:
    """No warnings of fewer distinct codes than clusters, or of a mixture still moving: NMI says that they are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _array(means: Tensor) -> np.ndarray:
    return means.double().numpy()
