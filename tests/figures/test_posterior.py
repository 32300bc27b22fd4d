import numpy as np
import pytest
import torch
from torch.distributions import Normal

from vae.figures import posterior
from vae.figures.posterior import Single

NOTE = "mnist · latent_dim 2 · correlated prior · β 1 · epoch 10"
TITLE = "KL(q‖p) = 0.31 nats\nlog p(x) = −152.30"
CIRCLE = torch.stack([torch.linspace(0, 6.3, 50).cos(), torch.linspace(0, 6.3, 50).sin()], 1)


def plane(channels: int = 1) -> Single:
    x, y = torch.linspace(-3, 5, 24), torch.linspace(-6, 2, 30)
    density = (Normal(2.0, 0.5).log_prob(x)[:, None] + Normal(-3.0, 0.3).log_prob(y)).exp()
    return Single(torch.rand(channels, 28, 20), TITLE, [x, y], density, [[CIRCLE], [2 * CIRCLE]])


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (4, 3)])
def test_a_plane_shows_both_densities_where_they_are(check, count, channels):
    figure = check(posterior.planes([plane(channels)] * count, ["z₀", "z₁"], NOTE))
    assert len(figure.axes) == count
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == TITLE and (axes.get_xlabel(), axes.get_ylabel()) == ("z₀", "z₁")
    one, two = axes.lines
    assert np.allclose(one.get_xydata(), CIRCLE) and np.allclose(two.get_xydata(), 2 * CIRCLE)
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    box = axes.get_window_extent()
    assert np.isclose((x1 - x0) / box.width, (y1 - y0) / box.height)  # a circle is round
    assert x0 < -2 and x1 > 2 and y0 < -3 and y1 > 2 and x1 - x0 < 7  # all of q and p, and little else
    thumb, image = sorted(axes.images, key=lambda each: np.ndim(each.get_array()), reverse=True)
    left, right, low, high = image.get_extent()
    values = np.asarray(image.get_array())
    row, column = np.unravel_index(values.argmax(), values.shape)
    dx, dy = (right - left) / values.shape[1], (high - low) / values.shape[0]
    assert abs(left + (column + 0.5) * dx - 2) < dx and abs(low + (row + 0.5) * dy + 3) < dy
    assert image.origin == "lower" and thumb.get_array().shape[:2] == (28, 20)
    legend = figure.legends[0]
    words = [text.get_text() for text in legend.get_texts()]
    around = legend.get_window_extent()
    assert axes.get_window_extent().x1 + 5 < around.x0 and around.x1 + 5 < figure.bbox.x1
    assert words == ["true posterior p(z|x)", "q(z|x): 1 σ", "q(z|x): 2 σ"]


def test_a_line_shows_two_curves(check):
    x, at = torch.linspace(-10, 10, 400), torch.linspace(2, 4, 80)
    q = torch.stack([at, Normal(3.0, 0.2).log_prob(at).exp()], 1)
    single = Single(torch.rand(1, 28, 28), TITLE, [x], Normal(0.0, 0.5).log_prob(x).exp(), [[q]])
    figure = check(posterior.lines([single] * 4, "z₀", NOTE))
    assert len(figure.axes) == 4 and [axes.get_ylabel() for axes in figure.axes] == ["density", "", "", ""]
    axes = figure.axes[1]
    assert np.allclose(axes.lines[0].get_xydata(), q)
    low, high = axes.get_xlim()
    assert -2.5 < low < -1 and 3.5 < high < 4.5 and axes.get_ylim()[0] == 0  # as far as there is something to see
