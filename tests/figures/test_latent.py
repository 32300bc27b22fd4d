import itertools
import math

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from mpl_toolkits.mplot3d import Axes3D

from vae.evaluation.geometry import Geometry, ellipse
from vae.figures import latent, solid, style
from vae.model.priors import Correlated

NOTE = "fashion_mnist · latent_dim 2 · correlated prior · β 1 · epoch 10"
CLASSES = ("T-shirt/top", "Ankle boot", "Bag")


def view(points, dims=(0, 1)):
    prior = Geometry.of(Correlated(points.shape[1])()).marginal(dims)
    around = ellipse(torch.zeros(2).double(), torch.eye(2).double(), 2)
    return latent.View(points[:, list(dims)], [prior.outline(k) for k in (1, 2, 3)], around, [f"z{i}" for i in dims])


def scatter(axes):
    return next(each for each in axes.collections if isinstance(each, PathCollection))


@pytest.mark.parametrize("classes", [(), CLASSES, tuple(f"class {i}" for i in range(30))])
def test_clusters_show_codes_outlines_and_classes(check, classes):
    points, labels = torch.randn(600, 2), torch.arange(600) % max(1, len(classes))
    figure = check(latent.clusters([view(points)], labels, classes, NOTE))
    (axes,) = figure.axes
    drawn = scatter(axes).get_offsets()
    assert len(drawn) == 600 and np.allclose(np.sort(drawn[:, 0]), np.sort(points[:, 0].numpy()))
    first = int(np.flatnonzero(np.isclose(points[:, 0].numpy(), drawn[0, 0]))[0])
    expected = style.colours(len(classes))[labels[first]] if classes else style.CODES
    assert to_hex(scatter(axes).get_facecolors()[0]) == expected.lower()
    one_sigma = axes.lines[0].get_xydata()
    assert np.allclose(one_sigma[:, 0].max(), 1.0, atol=1e-3) and np.allclose(
        one_sigma[:, 1].max(), 0.5**0.5, atol=1e-3
    )
    outlines = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert len(outlines) == 4  # 1, 2, 3 σ and the aggregate posterior
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[:2] == ["prior: 1, 2, 3 σ", "aggregate\nposterior: 2 σ"]
    assert words[2:5] == list(classes[:3])
    box, (x0, x1), (y0, y1) = axes.get_window_extent(), axes.get_xlim(), axes.get_ylim()
    assert np.isclose((x1 - x0) / box.width, (y1 - y0) / box.height)  # a circle is round
    assert x0 <= drawn[:, 0].min() and drawn[:, 0].max() <= x1


def test_clusters_draw_a_part_of_many_codes():
    points = torch.randn(20_000, 2)
    (axes,) = latent.clusters([view(points)], torch.zeros(20_000), ()).axes
    assert len(scatter(axes).get_offsets()) == latent.POINTS


def test_clusters_of_more_dimensions_have_two_panels(check):
    points = torch.randn(100, 5)
    figure = check(latent.clusters([view(points, (1, 4)), view(points, (0, 2))], torch.zeros(100).long(), ("a",), NOTE))
    assert [axes.get_xlabel() for axes in figure.axes] == ["z1", "z0"]


def test_names_of_classes_do_not_hide_each_other(check):
    classes = (*"abcdefgh", "a long name")
    points = torch.cat([torch.zeros(90, 2), torch.randn(10, 2)])
    figure = check(latent.clusters([view(points)], torch.arange(100) % 9, classes))
    names = [text for text in figure.axes[0].texts if text.get_text() in classes]
    boxes = [text.get_window_extent() for text in names]
    assert len(names) == 9 and not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert max(math.hypot(*text.get_position()) for text in names) < 1.5  # near where the points are


def drawn_names(axes, classes):
    return {text.get_text(): text for text in axes.texts if text.get_text() in classes}


@pytest.mark.parametrize("spread", [0.0, 0.01])
def test_collapsed_codes_are_seen_beside_their_names(check, spread):
    classes = tuple("abcdefghij")
    points, labels = spread * torch.randn(500, 2), torch.arange(500) % 10
    figure = check(latent.clusters([view(points)], labels, classes))
    (axes,) = figure.axes
    pixels = axes.transData.transform(points)
    names = drawn_names(axes, classes)
    boxes = [text.get_window_extent() for text in names.values()]
    assert len(names) == 10 and not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box.contains(*place) for box in boxes for place in pixels)
    leaders = [line for line in axes.lines[4:] if len(line.get_xdata()) == 2]
    assert len(leaders) == 10 and all(line.get_zorder() < scatter(axes).get_zorder() for line in leaders)
    for line, text in zip(leaders, names.values(), strict=True):
        start, end = line.get_xydata()
        assert np.allclose(start, 0, atol=0.01) and np.allclose(end, text.get_position())


def test_a_name_hides_no_other_class():
    points = torch.cat([torch.randn(200, 2), torch.zeros(200, 2)])  # one class around, one in a single place
    labels = torch.arange(400) // 200
    (axes,) = latent.clusters([view(points)], labels, ("wide", "narrow")).axes
    place = axes.transData.transform((0, 0))
    assert not any(text.get_window_extent().contains(*place) for text in drawn_names(axes, ("wide", "narrow")).values())


def test_names_do_not_cover_those_of_the_contours():
    for y in (-0.7, 0.7, 1.4, 2.1):
        points = torch.randn(300, 2) * 0.4 + torch.tensor([0.5, y])
        (axes,) = latent.clusters([view(points)], torch.zeros(300).long(), ("a long name",)).axes
        (name,) = drawn_names(axes, ("a long name",)).values()
        contours = [text.get_window_extent() for text in axes.texts if text.get_text().endswith("σ")]
        assert len(contours) == 3 and not any(name.get_window_extent().overlaps(box) for box in contours)


@pytest.mark.parametrize("classes", [(), CLASSES])
def test_one_dimension_has_a_row_for_each_class(check, classes):
    x = torch.linspace(-4, 4, 100)
    means = torch.randn(300, 1)
    figure = check(latent.clusters_1d(means, torch.arange(300) % 3, classes, x, x**2, x**2 + 1, NOTE))
    top, rows = figure.axes
    assert [line.get_label() for line in top.lines] == ["prior p(z)", "aggregate posterior"]
    assert np.allclose(top.lines[0].get_ydata(), x**2)
    assert [label.get_text() for label in rows.get_yticklabels()] == (list(classes) or ["all"])
    assert len(rows.patches) == max(1, len(classes)) and rows.get_xlim() == top.get_xlim()


@pytest.mark.parametrize("k", [2, 3, 6])
def test_pairs_show_every_pair_and_every_marginal(check, k):
    means, labels = torch.randn(400, k), torch.arange(400) % 3
    views = [[view(means, (j, i)) if j < i else None for j in range(k)] for i in range(k)]
    x = torch.linspace(-4, 4, 50)
    prior = torch.exp(-0.5 * x**2) / (2 * torch.pi) ** 0.5
    names = [f"z{i}" for i in range(k)]
    figure = check(latent.pairs(means, labels, CLASSES, views, [(x, prior, prior)] * k, names, NOTE))
    assert len(figure.axes) == k * (k + 1) // 2
    below = [axes for axes in figure.axes if axes.collections]
    assert len(below) == k * (k - 1) // 2
    assert np.allclose(scatter(below[0]).get_offsets()[:, 0].max(), means[:, 0].max())
    first = figure.axes[0]
    assert np.allclose(first.lines[0].get_ydata(), prior)
    assert np.isclose(first.patches[0].get_data().values.sum() * 8 / 50, 1, atol=0.01)  # a density
    legend = figure.legends[0].get_window_extent()
    assert not any(axes.get_window_extent().overlaps(legend) for axes in figure.axes)
    assert [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()] == names


def test_clusters_in_space_have_outlines_on_the_walls_behind(check):
    means = torch.randn(500, 3)
    walls = {}
    for i, j in ((0, 1), (0, 2), (1, 2)):
        flat = view(means, (i, j))
        walls[i, j] = (flat.prior, flat.aggregate)
    figure = solid.clusters_3d(means, torch.arange(500) % 3, CLASSES, walls, points=100, note=NOTE)
    (axes,) = figure.axes
    assert isinstance(axes, Axes3D)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_zlabel()) == ("z₀", "z₁", "z₂")
    around = figure.legends[0].get_window_extent()
    assert around.x1 + 5 < figure.bbox.x1 and around.y1 + 5 < figure.bbox.y1
    assert len(axes.lines) == 12 and len(axes.collections[0].get_offsets()) == 100
    low, high = axes.get_xlim()
    z_wall, y_wall, x_wall = (np.asarray(axes.lines[4 * i].get_data_3d()[2 - i]) for i in range(3))
    assert np.allclose(z_wall, low) and np.allclose(y_wall, high) and np.allclose(x_wall, low)
    frames = list(solid.turning(figure, frames=4, dpi=40))
    assert len({frame.tobytes() for frame in frames}) == 4 and len({frame.shape for frame in frames}) == 1
    assert np.allclose(axes.lines[8].get_data_3d()[0], high)  # three quarters around: behind is elsewhere


def test_names_are_written_in_points_beside_the_cloud():
    cloud = np.random.default_rng(0).normal(size=(100, 3))
    zero, one, _ = solid.written(["0", "1", " "], cloud)
    assert min(zero[:, 0].min(), one[:, 0].min()) > cloud[:, 0].max()
    assert cloud[:, 1].max() >= zero[:, 1].max() > zero[:, 1].min() > one[:, 1].max()
    middle = (zero.min(0) + zero.max(0))[:2] / 2
    assert np.hypot(*(zero[:, :2] - middle).T).min() > 0.2 * np.ptp(zero[:, 0])  # nothing is in the hole
