import numpy as np

from vae.evaluation.known_factors import binned


def test_bins_are_quantiles_or_the_values_themselves():
    values = np.stack([np.random.default_rng(0).normal(size=1000), np.arange(1000) % 3 - 7.5], 1)
    bins = binned(values, [False, True])
    assert (np.bincount(bins[:, 0]) == 50).all()
    assert (bins[:, 1] == np.arange(1000) % 3).all()
    skewed = np.concatenate([np.zeros(600), np.arange(400)])[:, None]  # most of the bins have the same edge
    assert np.ptp(binned(skewed, [False])[:601]) == 0
