import numpy as np
import pytest
import torch

from vae.evaluation import grids
from vae.evaluation.geometry import Geometry
from vae.figures.manifold import manifold
from vae.model.priors import Correlated, Isotropic

NOTE = "mnist · latent_dim 2 · isotropic prior · β 1 · epoch 10"


def sheet(prior, kind="whitened", count=20):
    (found,) = grids.manifold(Geometry.of(prior()), kind, count=count)
    return found.z[..., list(found.dims)]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 28), (1, 28, 14)])
def test_the_axes_are_the_latent_space(check, shape):
    z = sheet(Isotropic(2))
    figure = check(manifold([torch.rand(20, 20, *shape)], [z], note=NOTE))
    (axes,) = figure.axes
    half = 3 + 3 / 19  # half a tile further than the outermost latents
    assert np.allclose(axes.get_xlim(), (-half, half)) and np.allclose(axes.get_ylim(), (-half, half))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z₀", "z₁")
    (image,) = axes.images
    assert np.allclose(image.get_extent(), (-half, half, -half, half))
    assert np.isclose(axes.get_aspect(), shape[1] / shape[2])  # images keep their proportions
    assert [text.get_text() for text in figure.texts] == [NOTE]


def test_every_tile_is_at_its_latent(shown):
    z = sheet(Isotropic(2), count=4)
    images = torch.arange(16).reshape(4, 4, 1, 1, 1).expand(4, 4, 1, 2, 2) / 16
    (axes,) = manifold([images], [z]).axes
    pixels = shown(axes.images[0])
    assert np.allclose(pixels[:, -2:, :2], 0)  # lowest first, rows upwards
    assert np.allclose(pixels[:, :2, -2:], 15 / 16, atol=0.5 / 255)


def test_a_correlated_prior_gives_a_tilted_sheet(check):
    z = sheet(Correlated(2))
    (axes,) = check(manifold([torch.rand(20, 20, 1, 28, 28)], [z], note=NOTE)).axes
    assert len(axes.images) == 20
    for column, image in enumerate(axes.images):
        left, right, low, high = image.get_extent()
        assert np.isclose((left + right) / 2, z[0, column, 0])
        assert np.isclose((low + high) / 2, z[:, column, 1].mean())
        assert np.isclose((high - low) / 20, (z[1, 0, 1] - z[0, 0, 1]).item())
    assert np.isclose(axes.get_aspect(), 1)


def test_ticks_of_quantiles_name_their_latents(check):
    z = sheet(Isotropic(2), "quantile")
    (axes,) = check(manifold([torch.rand(20, 20, 1, 28, 28)], [z], note=NOTE)).axes
    for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
        assert label.get_text() == f"{z[0, int(tick), 0]:.2f}".replace("-", "−")
    assert axes.get_ylabel() == "z₁"


def test_ticks_of_a_correlated_priors_quantiles_say_of_which_column(check):
    z = sheet(Correlated(2), "quantile")
    (axes,) = check(manifold([torch.rand(20, 20, 1, 28, 28)], [z], note=NOTE)).axes
    assert axes.get_ylabel() == f"z₁ where z₀ = {z[0, 10, 0]:.2f}"
    tick, label = int(axes.get_yticks()[0]), axes.get_yticklabels()[0].get_text()
    assert label == f"{z[tick, 10, 1]:.2f}".replace("-", "−")


@pytest.mark.parametrize("kind", grids.KINDS)
def test_one_dimension_is_a_strip(check, kind):
    z = sheet(Isotropic(1), kind)
    (axes,) = check(manifold([torch.rand(1, 20, 1, 28, 28)], [z], note=NOTE)).axes
    assert len(axes.get_yticks()) == 0 and axes.get_xlabel() == "z₀"
    if kind != "quantile":
        assert np.allclose(axes.get_xlim(), (-3 - 3 / 19, 3 + 3 / 19))


def test_three_slices_stand_side_by_side(check):
    sheets = grids.manifold(Geometry.of(Correlated(3)()))
    titles = ["z₂ = −0.71 (−1 σ)", "z₂ = 0", "z₂ = 0.71 (1 σ)"]
    places = [each.z[..., :2] for each in sheets]
    figure = check(manifold([torch.rand(20, 20, 1, 28, 28)] * 3, places, titles=titles, note=NOTE))
    assert [axes.get_title() for axes in figure.axes] == titles
    assert [axes.get_ylabel() for axes in figure.axes] == ["z₁", "", ""]
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}) == 1  # only the first has tick labels
    for axes, place in zip(figure.axes, places, strict=True):
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        assert left < place[..., 0].min() and place[..., 0].max() < right
        assert low < place[..., 1].min() and place[..., 1].max() < high
        assert np.isclose(np.mean(axes.images[0].get_extent()[:2]), place[0, 0, 0])


@pytest.mark.parametrize(("count", "shape"), [(2, (1, 2)), (5, (1, 5)), (6, (2, 3)), (10, (2, 5)), (12, (3, 4))])
def test_sheets_of_classes_stand_in_full_rows(check, count, shape):
    z = sheet(Isotropic(2), count=3)
    titles = [f"class {i}" for i in range(count)]
    figure = check(manifold([torch.rand(3, 3, 1, 8, 8)] * count, [z] * count, titles=titles, note=NOTE))
    corners = np.array([axes.get_window_extent().p0 / figure.dpi for axes in figure.axes]).round(1)
    assert (len(set(corners[:, 1])), len(set(corners[:, 0]))) == shape


def test_slices_of_quantiles_have_ticks_of_their_own(check):
    places = [each.z[..., :2] for each in grids.manifold(Geometry.of(Correlated(3)()), "quantile")]
    figure = check(manifold([torch.rand(20, 20, 1, 28, 28)] * 3, places, titles=["a", "b", "c"], note=NOTE))
    for axes, place in zip(figure.axes, places, strict=True):
        assert axes.get_xticklabels()[0].get_text() == f"{place[0, 0, 0]:.2f}".replace("-", "−")
        assert axes.get_yticklabels()[0].get_visible() and axes.get_ylabel().startswith("z₁ where z₀ = ")
