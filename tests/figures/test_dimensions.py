import itertools

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from vae.figures import dimensions, style

NOTE = "fashion_mnist · latent_dim 2 · correlated prior · β 1 · epoch 10"


@pytest.mark.parametrize("n", [1, 2, 10, 17, 40])
def test_covariances_share_a_scale_and_show_numbers_where_they_fit(check, n):
    prior, means = torch.eye(n), 2 * torch.eye(n) - 0.001
    names = [style.axis_name(i) for i in range(n)]
    figure = check(dimensions.covariance(prior, means, means + 1, names, NOTE))
    panels = figure.axes[:3]
    assert [axes.get_title() for axes in panels] == ["prior", "posterior means", "aggregate posterior"]
    low, high = panels[0].images[0].get_clim()
    assert np.isclose(low, -high) and np.isclose(high, 2.999) and panels[1].images[0].get_clim() == (low, high)
    assert np.allclose(panels[1].images[0].get_array(), means)
    zeros = n * (n - 1) if n > 4 else 0  # of many dimensions, what is 0 beside the diagonal is not written
    assert [len(axes.texts) for axes in panels[:2]] == [n * n - zeros if n <= 16 else 0] * 2
    if n <= 16:
        assert zeros == 0 or "0.00" not in [text.get_text() for text in panels[1].texts]
    if n == 2:
        assert [text.get_text() for text in panels[1].texts] == ["2.00", "0.00", "0.00", "2.00"]
        assert [label.get_text() for label in panels[0].get_yticklabels()] == ["z₀", "z₁"]
    if n <= 16:  # numbers stay inside their squares
        figure.canvas.draw()
        square = panels[0].get_window_extent().width / n
        assert max(text.get_window_extent().width for text in panels[1].texts) < square


@pytest.mark.parametrize("n", [1, 2, 10, 17, 20, 40])
def test_activity_marks_the_active_units(check, n):
    kl, variance = torch.linspace(0.1, 2, n), torch.logspace(-4, 0, n) if n > 1 else torch.ones(1)
    mixed = torch.randperm(n)
    kl, variance = kl[mixed], variance[mixed]
    active, by_kl = variance > 0.01, kl.argsort(descending=True)
    shares = torch.full((n,), 1 / n)
    figure = check(dimensions.activity(kl, variance, shares, active, 0.01, "a remark", NOTE))
    left, middle, right = figure.axes
    assert np.allclose([bar.get_height() for bar in left.patches], kl[by_kl])
    assert np.allclose([bar.get_y() + bar.get_height() for bar in middle.patches], variance[by_kl])
    for axes in (left, middle):
        step = by_kl[:: 1 if n <= 20 else n]  # a dimension's number stands below its bar
        shown = dict(zip(axes.get_xticks(), [label.get_text() for label in axes.get_xticklabels()], strict=True))
        assert all(shown[i] == style.axis_name(int(dim)) for i, dim in enumerate(step))
        words = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(words))
    blue = [to_hex(bar.get_facecolor()) == style.CODES.lower() for bar in middle.patches]
    assert blue == active[by_kl].tolist()
    assert middle.get_title() == f"{active.sum()} of {n} units active (above 0.01)"
    assert middle.lines[0].get_ydata()[0] == 0.01 and middle.get_yscale() == "log"
    assert np.allclose(right.lines[0].get_ydata(), np.arange(1, n + 1) / n)
    assert left.texts[0].get_text() == "a remark"


@pytest.mark.parametrize("n", [501, 2000])
def test_a_covariance_of_more_entries_than_pixels_hides_none(check, n):
    means = torch.zeros(n, n)
    means[7, n - 3], means[n - 3, 7] = -2.0, 0.5
    figure = check(dimensions.covariance(torch.eye(n), means, means, [style.axis_name(i) for i in range(n)], NOTE))
    shown = figure.axes[1].images[0].get_array()
    size = -(-n // 500)
    assert shown.shape == (-(-n // size),) * 2 and (shown != 0).sum() == 2
    assert shown[7 // size, (n - 3) // size] == -2 and shown[(n - 3) // size, 7 // size] == 0.5
    assert (np.diagonal(figure.axes[0].images[0].get_array()) == 1).all()
    assert len(figure.axes[0].get_yticklabels()) <= 16
    assert figure.axes[3].get_ylabel() == f"covariance (the largest of {size} × {size})"


@pytest.mark.parametrize("n", [100, 199, 2000])
def test_activity_of_many_dimensions_is_legible(check, n):
    kl, active = torch.full((n,), 0.1), torch.zeros(n).bool()
    kl[57], active[57] = 3.0, True
    figure = check(dimensions.activity(kl, kl / 100, torch.full((n,), 1 / n), active, 0.01, note=NOTE))
    left, middle, _ = figure.axes
    size = -(-n // 200)
    assert len(left.patches) == n // size
    (bar,) = [bar for bar in left.patches if bar.get_height() == 3]
    assert bar is left.patches[0] and left.get_xticklabels()[0].get_text() == "z₅₇"
    assert [to_hex(bar.get_facecolor()) for bar in middle.patches].count(style.CODES.lower()) == 1
    assert middle.get_title() == f"1 of {n} units active (above 0.01)"
    for axes in figure.axes:
        words = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(words))
