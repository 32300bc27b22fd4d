import numpy as np
import pytest
import torch

from vae.evaluation import anomaly, latents
from vae.evaluation.latents import Codes


def codes(means, noise):
    return Codes(means, noise.diagonal().expand(len(means), -1), noise.double(), torch.zeros(len(means)))


def test_detection_by_all_pairs():
    inside, outside = torch.randint(0, 8, (40,)).float(), torch.randint(4, 12, (25,)).float()
    pairs = np.mean([1.0 if b > a else 0.5 * (a == b) for a in inside.tolist() for b in outside.tolist()])
    scores, outer = torch.cat([inside, outside]), torch.arange(65) >= 40
    area = 0.0
    for threshold in sorted(set(outside.tolist()), reverse=True):
        found = scores >= threshold
        area += outer[found].float().mean().item() * (outside == threshold).float().mean().item()
    assert anomaly.detection(inside, outside) == pytest.approx((pairs, area))


def test_detection_of_known_scores():
    low, high = torch.rand(10), 2 + torch.rand(30)
    assert anomaly.detection(low, high) == pytest.approx((1, 1))
    assert anomaly.detection(high, low).auroc == 0.0
    assert anomaly.detection(torch.zeros(10), torch.zeros(30)) == (0.5, 0.75)  # guessing


def test_latent_distance_is_that_of_the_aggregate_posterior():
    noise = torch.tensor([[0.5, 0.2, 0.0], [0.2, 0.4, -0.1], [0.0, -0.1, 0.3]])
    training = codes(torch.randn(500, 3) @ torch.randn(3, 3) + 2, noise)
    means = torch.randn(20, 3) * 3
    covariance = np.cov(training.means.double().T, ddof=0) + noise.double().numpy()
    offset = means.double().numpy() - training.means.double().numpy().mean(0)
    expected = np.sqrt([row @ np.linalg.inv(covariance) @ row for row in offset])
    found = anomaly.latent_distance(means, training)
    assert found.shape == (20,) and found.tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_latent_distance_in_one_dimension_counts_standard_deviations():
    training = codes(torch.tensor([[-1.0], [1.0]]), torch.tensor([[3.0]]))
    assert anomaly.latent_distance(torch.tensor([[0.0], [4.0], [-6.0]]), training).tolist() == pytest.approx([0, 2, 3])


def test_the_training_codes_own_squared_distance_is_the_number_of_dimensions():
    training = codes(torch.randn(1000, 4), torch.zeros(4, 4))
    assert (anomaly.latent_distance(training.means, training) ** 2).mean().item() == pytest.approx(4)


def test_a_direction_without_spread_gives_finite_distances():
    means = torch.randn(50, 1) * torch.tensor([1.0, 0.0])
    training = codes(means, torch.zeros(2, 2))
    assert latents.aggregate_covariance(training).det() == 0
    found = anomaly.latent_distance(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), training)
    assert found.isfinite().all() and found[0] < 1 < 1000 < found[1]
