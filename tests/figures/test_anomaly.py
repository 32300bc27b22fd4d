import numpy as np
import pytest
import torch

from vae.figures.anomaly import scores

NOTE = "fashion_mnist · latent_dim 2 · correlated prior · β 1 · epoch 10"


@pytest.mark.parametrize("names", [("mnist, test", "strokes, test"), ("fashion_mnist, test", "fashion_mnist, test")])
def test_both_data_sets_have_a_histogram_of_each_score(check, names):
    inside, outside = torch.randn(1000), torch.randn(400) + 3
    outside[:3] = 1e6  # of a few failures
    found = {"−ELBO, nats": (inside, outside), "distance of the code": (inside, torch.zeros(400))}
    figure = check(scores(found, [0.987, 0.5], names, NOTE))
    assert [axes.get_title() for axes in figure.axes] == ["AUROC 0.987", "AUROC 0.500"]
    assert [axes.get_xlabel() for axes in figure.axes] == list(found)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == list(names)
    for axes in figure.axes:
        assert [patch.get_data().values.sum() for patch in axes.patches] == pytest.approx(
            [1, 1, 1, 1]
        )  # also what is beyond
        one, _, other, _ = (patch.get_data().edges for patch in axes.patches)
        assert np.array_equal(one, other) and -4 < one[0] < one[-1] < 10


def test_equal_scores_are_drawn(check):
    check(scores({"−ELBO, nats": (torch.ones(5), torch.ones(5))}, [0.5], ["mnist, test", "strokes, test"], NOTE))
