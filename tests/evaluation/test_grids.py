import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vae.evaluation import grids
from vae.evaluation.geometry import Geometry
from vae.model.priors import Correlated, Isotropic


def geometry(prior):
    return Geometry.of(prior())


def test_a_whitened_grid_is_m_plus_l_g():
    (sheet,) = grids.manifold(geometry(Correlated(2)), "whitened")
    assert sheet.z.shape == (20, 20, 2) and sheet.dims == (0, 1)
    g = torch.linspace(-3, 3, 20).double()
    factor = torch.linalg.cholesky(torch.tensor([[1.0, 0.4], [0.4, 0.5]]).double())
    for row, column in [(0, 0), (3, 17), (19, 4)]:
        expected = factor @ torch.stack([g[column], g[row]])
        assert torch.allclose(sheet.z[row, column], expected, atol=1e-6)


def test_a_square_grid_ignores_the_covariance():
    (sheet,) = grids.manifold(geometry(Correlated(2)), "square", count=5)
    assert torch.allclose(sheet.z[1, 3], torch.tensor([1.5, -1.5]).double())


@pytest.mark.parametrize("prior", [Isotropic(2), Correlated(2)])
def test_cells_of_a_quantile_grid_have_equal_mass(prior):
    (sheet,) = grids.manifold(geometry(prior), "quantile", count=4)
    z = prior().sample((100_000,)).double()
    first = sheet.z[0, :, 0]
    below = (z[:, :1] < first).double().mean(0)
    assert torch.allclose(below, torch.tensor([0.125, 0.375, 0.625, 0.875]).double(), atol=0.01)
    near = z[(z[:, 0] - first[2]).abs() < 0.05]  # the second coordinate given the first
    below = (near[:, 1:] < sheet.z[:, 2, 1]).double().mean(0)
    assert torch.allclose(below, torch.tensor([0.125, 0.375, 0.625, 0.875]).double(), atol=0.05)


def test_quantiles_of_a_mixture_lie_where_its_mass_is():
    means = torch.tensor([[-4.0, 0.0], [4.0, 8.0]])
    prior = Geometry.of(MixtureSameFamily(Categorical(torch.ones(2)), Independent(Normal(means, 0.5), 1)))
    (sheet,) = grids.manifold(prior, "quantile", count=10)
    distance = (sheet.z[..., None, :] - means.double()).norm(dim=-1).min(-1).values
    assert (distance < 2).double().mean() > 0.95  # all but a column that holds a few draws of either part
    assert (sheet.z[0].diff(dim=0)[:, 0] > 0).all() and (sheet.z[..., 1].diff(dim=0) > 0).all()
    (strip,) = grids.manifold(prior.marginal([0]), "quantile", count=10)
    assert strip.z.shape == (1, 10, 1) and (strip.z.abs() > 2).all()


@pytest.mark.parametrize("kind", grids.KINDS)
def test_one_dimension_is_a_strip(kind):
    (sheet,) = grids.manifold(geometry(Isotropic(1)), kind)
    assert sheet.z.shape == (1, 20, 1) and sheet.dims == (0,)
    assert (sheet.z[0, :, 0].diff() > 0).all()


def test_three_dimensions_are_cut_in_the_priors_units():
    sheets = grids.manifold(geometry(Correlated(3)), "whitened")
    scale = 0.5**0.5
    assert [sheet.cut[2] for sheet in sheets] == [-1, 0, 1]
    for sheet, value in zip(sheets, (-scale, 0, scale), strict=True):
        assert sheet.cut[0] == 2 and abs(sheet.cut[1] - value) < 1e-6
        assert torch.allclose(sheet.z[..., 2], torch.tensor(value).double(), atol=1e-6)
    # The middle of a slice is the prior's mean given the third coordinate.
    sigma = Correlated(3)().covariance_matrix.double()
    expected = sigma[:2, 2] / sigma[2, 2] * scale
    assert torch.allclose(sheets[2].z[..., :2].mean((0, 1)), expected, atol=1e-6)
    assert [sheet.cut[1] for sheet in grids.manifold(geometry(Correlated(3)), "square")] == [-1, 0, 1]


def test_more_dimensions_are_the_plane_through_the_mean():
    (sheet,) = grids.manifold(geometry(Correlated(5)), "whitened", (1, 4))
    assert sheet.dims == (1, 4) and sheet.cut is None
    assert (sheet.z[..., [0, 2, 3]] == 0).all()
    # Whitened by the covariance of the two given the others: the inverse of a block of the precision matrix.
    precision = Correlated(5)().covariance_matrix.double().inverse()[[1, 4]][:, [1, 4]]
    corner = sheet.z[0, 0, [1, 4]]
    assert abs((corner @ precision @ corner).item() - 18) < 1e-3  # g = (−3, −3)


def test_an_unknown_grid_is_refused():
    with pytest.raises(ValueError, match="grid=round: must be one of whitened, square, quantile"):
        grids.manifold(geometry(Isotropic(2)), "round")


def test_interpolation_is_a_straight_line():
    start, end = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, 4.0], [1.0, 3.0]])
    z = grids.interpolation(start, end, 5)
    assert z.shape == (2, 5, 2)
    assert torch.equal(z[:, 0], start) and torch.equal(z[:, -1], end)
    assert z[0, 1].tolist() == [0.5, 1.0]


def test_a_traversal_moves_one_dimension_by_its_scale():
    code, prior = torch.tensor([0.5, -0.5, 1.0]), geometry(Correlated(3, [[1.0, 0.5, 0], [0.5, 4, 0], [0, 0, 16]]))
    z = grids.traversal(code, prior, [2, 0], torch.tensor([-3.0, 0.0, 3.0]))
    assert z.shape == (2, 3, 3)
    assert z[0].tolist() == [[0.5, -0.5, -11.0], [0.5, -0.5, 1.0], [0.5, -0.5, 13.0]]
    assert z[1, :, 0].tolist() == [-2.5, 0.5, 3.5] and (z[1, :, 1:] == code[1:]).all()


def test_a_conditional_traversal_moves_the_others_as_a_correlated_prior_does(mean_is):
    """To E[z | zᵢ = codeᵢ + offset sᵢ] for a code on that line: by regression on draws of the prior."""
    prior = Correlated(3)()
    draws = prior.sample((200_000,)).double()
    z = grids.traversal(torch.zeros(3), geometry(Correlated(3)), [1], torch.tensor([1.0]), "conditional")[0, 0].double()
    assert z[1].item() == pytest.approx(prior.stddev[1].item())
    slopes = (draws[:, [1]] * draws).mean(0) / draws[:, 1].square().mean()
    assert torch.allclose(z / z[1], slopes, atol=0.01) and (z[[0, 2]] > 0.2).all()


def test_an_isotropic_prior_has_but_one_way_to_walk():
    code, prior, offsets = torch.randn(4), geometry(Isotropic(4)), torch.linspace(-3, 3, 5)
    axis, conditional = (grids.traversal(code, prior, [0, 3], offsets, walk) for walk in grids.WALKS)
    assert torch.equal(axis, conditional)
    with pytest.raises(ValueError, match=r"^walk=round: must be one of axis, conditional$"):
        grids.traversal(code, prior, [0], offsets, "round")


def test_quantiles_of_a_mixture_s_slices_are_conditional():
    """Two parts, apart in z₀ and told by z₂: a slice at z₂ = ∓2 holds one of them, that in the middle both."""
    means = torch.tensor([[-3.0, 0.0, -2.0], [3.0, 1.0, 2.0]])
    prior = Geometry.of(MixtureSameFamily(Categorical(torch.ones(2)), Independent(Normal(means, 0.5), 1)))
    low, middle, high = grids.manifold(prior, "quantile", count=9)
    for sheet, centre in ((low, means[0]), (high, means[1])):
        assert sheet.cut is not None and abs(sheet.cut[1] - centre[2].item()) < 0.1
        assert torch.allclose(sheet.z[4, 4, :2], centre[:2].double(), atol=0.05)
        # The middles of nine cells of equal mass of N(centre, 0.5²).
        expected = Normal(centre[0].double(), 0.5).icdf((torch.arange(9).double() + 0.5) / 9)
        assert torch.allclose(sheet.z[0, :, 0], expected, atol=0.05)
    assert middle.z[0, 0, 0] < -2 and middle.z[0, -1, 0] > 2
