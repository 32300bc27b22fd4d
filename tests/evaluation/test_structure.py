import math

import pytest
import torch

from vae.evaluation import structure

CLASSES = 4


def blobs(n, distance, dims=3):
    """Codes around the corners of a simplex, and their classes."""
    labels = torch.arange(n) % CLASSES
    corners = torch.eye(CLASSES)[:, :dims]
    return distance * corners[labels] + 0.1 * torch.randn(n, dims), labels


def rotation(dims):
    return torch.linalg.qr(torch.randn(dims, dims))[0]


def test_separated_classes_score_1_everywhere():
    found = structure.scores(*blobs(400, 5.0), *blobs(200, 5.0))
    assert found == dict.fromkeys(found, pytest.approx(1.0))
    assert set(found) == {
        "knn_accuracy",
        "linear_accuracy",
        "kmeans_nmi",
        "kmeans_ari",
        "mixture_nmi",
        "mixture_ari",
    }


def test_random_codes_score_what_chance_does():
    found = structure.scores(*blobs(4000, 0.0), *blobs(4000, 0.0))
    error = math.sqrt(0.25 * 0.75 / 4000)
    for name in ("knn_accuracy", "linear_accuracy"):
        assert abs(found[name] - 0.25) < 6 * error
    # 2 n I(c; y) of independent classes is χ² of 9 degrees of freedom, and H(y) = log 4.
    for name in ("kmeans_nmi", "mixture_nmi"):
        assert 0 <= found[name] < (9 + 6 * math.sqrt(18)) / (2 * 4000) / math.log(4)
    for name in ("kmeans_ari", "mixture_ari"):
        assert abs(found[name]) < 0.005


def test_neighbours_are_the_majority_of_five():
    train = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 9.0, 9.1, 9.2, 9.3, 9.4])[:, None]
    labels = torch.tensor([0, 0, 1, 1, 1, 0, 0, 0, 1, 1])
    assert structure.knn_accuracy(train, labels, torch.tensor([[0.0], [9.4], [9.0]]), torch.tensor([1, 0, 1])) == 2 / 3


def test_a_rotation_changes_none_of_the_numbers_much():
    turn = rotation(3)
    (train, train_labels), (test, test_labels) = blobs(2000, 0.25), blobs(2000, 0.25)
    before = structure.scores(train, train_labels, test, test_labels)
    after = structure.scores(train @ turn, train_labels, test @ turn, test_labels)
    assert 0.4 < before["linear_accuracy"] < 0.95  # so that it could change
    assert after == pytest.approx(before, abs=0.01)


def test_the_linear_probe_does_not_care_for_scale():
    (train, train_labels), (test, test_labels) = blobs(1000, 0.25), blobs(1000, 0.25)
    scale = torch.tensor([1e-3, 1.0, 1e3])
    before = structure.linear_accuracy(train, train_labels, test, test_labels)
    assert structure.linear_accuracy(train * scale, train_labels, test * scale, test_labels) == before


def test_only_the_mixture_finds_long_clusters():
    labels = torch.arange(1000) % 2
    codes = torch.randn(1000, 2) * torch.tensor([1.5, 0.2]) + labels[:, None] * torch.tensor([2.0, 1.5])
    assert structure.cluster_k_means(codes, labels).ari < 0.5
    assert structure.cluster_mixture(codes, labels).ari > 0.97


def test_the_same_codes_give_the_same_numbers():
    codes = (*blobs(300, 0.2), *blobs(300, 0.2))
    assert structure.scores(*codes) == structure.scores(*codes)


@pytest.mark.filterwarnings("error")
def test_constant_codes_are_worth_nothing():
    labels = torch.arange(200) % CLASSES
    found = structure.scores(torch.zeros(200, 2), labels, torch.zeros(200, 2), labels)
    assert found.pop("knn_accuracy") == found.pop("linear_accuracy") == 0.25
    assert found == dict.fromkeys(found, 0.0)
