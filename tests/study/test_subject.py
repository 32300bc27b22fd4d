from dataclasses import replace

import torch

from vae.data.base import Split
from vae.evaluation import anomaly


def test_scores_are_of_as_many_images_spread_over_both_sets(subject):
    taken = subject()
    test = taken.data.test
    part = Split(test.images[:40].flip(0), test.labels[:40].flip(0))
    scores = subject(against=replace(taken.data, test=part)).anomaly_scores
    assert {name: tuple(map(len, pair)) for name, pair in scores.items()} == dict.fromkeys(
        ("total", "nll", "latent"), (30, 30)
    )
    means = taken.codes.means
    chosen = torch.arange(30) * 40 // 30
    for found, own in zip(scores["latent"], (means[::10], means[:40].flip(0)[chosen]), strict=True):
        assert torch.allclose(found, anomaly.latent_distance(own, taken.train_codes), rtol=1e-4)


def test_the_images_measured_are_spread_over_the_test_set(subject):
    taken = subject()
    assert torch.equal(taken.data.test.some(30).images, taken.data.test.images[::10])
    assert len(taken.data.test.some(10**9)) == 300
