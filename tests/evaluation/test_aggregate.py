import math

import numpy as np
import pytest
import torch
from models import terms
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

from vae.evaluation import aggregate
from vae.model.batchwise import decomposed
from vae.model.distributions import DiagonalNormal, FullNormal

STANDARD = DiagonalNormal(torch.zeros(2).double(), torch.ones(2).double())
EVERY = 40_000  # draws, where a mean over them is checked


def test_mmd_by_all_pairs():
    z, p = torch.randn(9, 2).double(), torch.randn(12, 2).double() + 1
    points = torch.cat([z, p])
    squared = sorted(((points[i] - points[j]) ** 2).sum().item() for i in range(21) for j in range(i))
    median = squared[(len(squared) - 1) // 2]

    def k(a, b):
        return np.mean([math.exp(-((a - b) ** 2).sum().item() / (2 * s * median)) for s in (0.25, 0.5, 1, 2, 4)])

    same_z = np.mean([k(z[i], z[j]) for i in range(9) for j in range(9) if i != j])
    same_p = np.mean([k(p[i], p[j]) for i in range(12) for j in range(12) if i != j])
    expected = same_z + same_p - 2 * np.mean([k(a, b) for a in z for b in p])
    assert aggregate.mmd_test(z, p, 10).mmd2 == pytest.approx(expected)


def test_the_permutations_are_those_of_the_points():
    """The p-value is that of all 20 divisions of six points, of which two are as far apart as the true one."""
    z, p = torch.tensor([[0.0], [1], [2]]), torch.tensor([[10.0], [11], [12]])
    test = aggregate.mmd_test(z, p, 4000)
    assert abs(test.p_value - 2 / 20) < 6 * math.sqrt(0.1 * 0.9 / 4000)


def test_the_p_value_is_uniform_where_codes_follow_the_prior_and_small_where_not():
    same = torch.tensor([aggregate.mmd_test(torch.randn(15, 3), torch.randn(25, 3), 99).p_value for _ in range(400)])
    for level in (0.05, 0.2, 0.5, 0.8):
        assert abs((same <= level + 1e-9).double().mean() - level) < 6 * math.sqrt(level * (1 - level) / 400)
    for other in (torch.randn(100, 3) + 1, torch.randn(100, 3) * 0.4):
        assert aggregate.mmd_test(other, torch.randn(150, 3), 99).p_value == 0.01


def test_the_generator_decides_on_the_permutations():
    z, p = torch.randn(20, 2), torch.randn(20, 2)
    first, second = (aggregate.mmd_test(z, p, 50, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first == second


def test_points_that_are_all_equal_are_no_evidence():
    assert aggregate.mmd_test(torch.ones(5, 2), torch.ones(6, 2), 20) == (pytest.approx(0, abs=1e-12), 1.0)


def turned(degrees, variances=(3.0, 0.5)):
    t = math.radians(degrees)
    turn = torch.tensor([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]], dtype=torch.float64)
    return turn @ torch.tensor(variances, dtype=torch.float64).diag() @ turn.T


@pytest.mark.parametrize(("degrees", "expected"), [(0, 0), (1e-5, 1e-5), (25, 25), (-25, 25), (90, 90), (130, 50)])
def test_the_angle_between_principal_axes(degrees, expected):
    match = aggregate.covariance_match(turned(40 + degrees), turned(40))
    assert match.angle == pytest.approx(expected, abs=1e-8)
    assert match.error == pytest.approx(2.5 * math.sqrt(2) * abs(math.sin(math.radians(degrees))) / math.sqrt(9.25))


def test_the_error_is_relative_and_without_a_principal_axis_there_is_no_angle():
    assert aggregate.covariance_match(2 * turned(10), turned(10)) == pytest.approx((1, 0), abs=1e-9)
    match = aggregate.covariance_match(turned(10), torch.eye(2))
    assert match.error == pytest.approx(math.sqrt((4 + 0.25) / 2)) and math.isnan(match.angle)
    assert math.isnan(aggregate.covariance_match(torch.eye(2), turned(10)).angle)
    assert aggregate.covariance_match(torch.tensor([[3.0]]), torch.tensor([[2.0]])) == pytest.approx((0.5, 0))


def test_the_mean_is_off_by_standard_deviations_of_the_prior():
    zero = torch.zeros(2)
    assert aggregate.mean_error(torch.tensor([3.0, 0.0]), zero, torch.diag(torch.tensor([4.0, 1.0]))) == 1.5
    along = torch.tensor([math.cos(math.radians(20)), math.sin(math.radians(20))])
    assert aggregate.mean_error(1 + along, zero + 1, turned(20)) == pytest.approx(1 / math.sqrt(3))


def posteriors(full, n, scale=0.4):
    means = torch.randn(n, 2).double()
    if not full:
        return DiagonalNormal(means, (scale * torch.randn(n, 2).double()).exp() * 0.5)
    factors = torch.randn(n, 2, 2).double().tril(-1) + torch.diag_embed((scale * torch.randn(n, 2).double()).exp())
    return FullNormal(means, factors * 0.5)


@pytest.mark.parametrize("full", [False, True])
def test_but_for_the_bias_the_parts_are_those_of_training_where_the_batch_is_all_there_is(full, monkeypatch):
    q, p = posteriors(full, 30), MultivariateNormal(torch.ones(2).double(), turned(30))
    z = q.sample()
    none = torch.zeros(30)
    expected = decomposed(terms(none, none, z=z, q=q, p=p))
    found = decompose_seeded(q, z, p)
    mi, rest = expected[0], expected[1] + expected[2]
    assert found.mi.value - found.bias.value == pytest.approx(mi.mean().item())
    assert found.tc.value + found.bias.value + found.dwkl.value == pytest.approx(rest.mean().item())
    monkeypatch.setattr(aggregate, "CHUNK", 7 * 60)
    assert torch.allclose(torch.tensor(decompose_seeded(q, z, p)), torch.tensor(found))


def decompose_seeded(q, z, p):
    torch.manual_seed(1)
    return aggregate.decompose(q, torch.arange(len(z)), z, p)


@pytest.mark.parametrize("full", [False, True])
def test_the_parts_add_up_to_the_kl(full):
    q = posteriors(full, 50)
    chosen = torch.randint(50, (EVERY,))
    picked = aggregate.decompose(q, chosen, q.sample((EVERY,))[torch.arange(EVERY), chosen], STANDARD)
    expected = kl_divergence(q, STANDARD)[chosen].mean().item()
    assert total(picked) == pytest.approx(expected, abs=6 * sum(part.error for part in picked[:3]))


def total(parts):
    return parts.mi.value + parts.tc.value + parts.dwkl.value


def test_each_z_is_that_of_its_own_image():
    q, chosen = posteriors(False, 20), torch.tensor([4, 17, 4])
    z = q.sample()[chosen]
    own = Normal(q.loc[chosen], q.scale[chosen]).log_prob(z).sum(1)
    assert total(aggregate.decompose(q, chosen, z, STANDARD)) == pytest.approx(
        (own - STANDARD.log_prob(z)).mean().item()
    )


def test_one_posterior_for_all_images_has_no_information_and_its_own_correlation():
    factor = torch.tensor([[1.0, 0.0], [0.6, 0.8]]).double()  # a correlation of 0.6
    q = FullNormal(torch.ones(8, 2).double(), factor.expand(8, 2, 2))
    chosen = torch.arange(EVERY) % 8
    z = FullNormal(torch.ones(EVERY, 2).double(), factor.expand(EVERY, 2, 2)).sample()
    mi, tc, dwkl, bias = aggregate.decompose(q, chosen, z, STANDARD)
    assert mi == pytest.approx((0, 0), abs=1e-9) and bias == pytest.approx((0, 0), abs=1e-9)
    assert tc.value == pytest.approx(-0.5 * math.log(1 - 0.36), abs=6 * tc.error) and 0 < tc.error < 0.01
    assert dwkl.value == pytest.approx(1.0, abs=6 * dwkl.error)  # ½ of each mean's square


@pytest.mark.parametrize("full", [False, True])
def test_a_grid_of_means_has_no_total_correlation(full):
    side = torch.linspace(-2, 2, 9).double()
    means = torch.cartesian_prod(side, side * 0.5 + 1).repeat(25, 1)  # as many that one counts little
    scale = torch.tensor([0.3, 0.2]).double()
    q = FullNormal(means, scale.diag().expand(2025, 2, 2)) if full else DiagonalNormal(means, scale.expand(2025, 2))
    chosen = torch.randint(2025, (500,))
    z = means[chosen] + scale * torch.randn(500, 2).double()
    mi, tc, dwkl, _ = aggregate.decompose(q, chosen, z, STANDARD)
    assert tc == pytest.approx((0, 0), abs=0.01) and mi.value > 1 and dwkl.value > 0


def test_information_and_distance_from_the_prior_by_quadrature():
    q = DiagonalNormal(
        torch.tensor([[-1.5], [0.0], [0.4], [2.0]]).double(), torch.tensor([[0.3], [1], [0.5], [0.7]]).double()
    )
    prior = DiagonalNormal(torch.zeros(1).double(), torch.ones(1).double())
    x = torch.linspace(-12, 12, 20_001).double()
    each = Normal(q.loc, q.scale).log_prob(x)  # (4, points)
    mixture = each.logsumexp(0) - math.log(4)
    mi = torch.trapezoid(each.exp() * (each - mixture), x).mean().item()
    dwkl = torch.trapezoid(mixture.exp() * (mixture - Normal(0.0, 1.0).log_prob(x)), x).item()
    chosen = torch.arange(EVERY) % 4
    z = Normal(q.loc[chosen], q.scale[chosen]).sample()
    many = DiagonalNormal(q.loc.repeat(50, 1), q.scale.repeat(50, 1))  # as many that one counts little
    found = aggregate.decompose(many, chosen, z, prior)
    assert found.mi.value == pytest.approx(mi, abs=6 * found.mi.error) and found.mi.error < 0.01
    assert found.tc == pytest.approx((0, 0), abs=1e-9)
    assert found.dwkl.value == pytest.approx(dwkl, abs=6 * found.dwkl.error) and found.dwkl.error < 0.01


def test_without_the_correction_distinct_images_are_known_by_their_codes():
    q = DiagonalNormal(torch.arange(64.0)[:, None] * torch.ones(2), torch.full((64, 2), 0.01))
    found = aggregate.decompose(q, torch.arange(64), q.sample(), DiagonalNormal(torch.zeros(2), torch.ones(2)))
    assert found.mi.value - found.bias.value == pytest.approx(math.log(64), abs=1e-4)
    assert found.bias.value > 1  # which says that nothing is known of mi and tc


def gaussian_aggregate(covariance, scale, n, m):
    """n posteriors of one scale with N(0, covariance) as their limit, and one draw from each of m."""
    latent_dim = len(covariance)
    factor = torch.linalg.cholesky(covariance - scale**2 * torch.eye(latent_dim).double())
    q = DiagonalNormal(torch.randn(n, latent_dim).double() @ factor.T, torch.full((n, latent_dim), scale).double())
    chosen = torch.randperm(n)[:m]
    return q, chosen, q.sample()[chosen]


def correlated(latent_dim, correlation):
    return torch.full((latent_dim, latent_dim), correlation).double().fill_diagonal_(1)


def standard(latent_dim):
    return DiagonalNormal(torch.zeros(latent_dim).double(), torch.ones(latent_dim).double())


@pytest.mark.parametrize(
    ("latent_dim", "correlation", "scale", "n", "bias"),
    [
        (10, 0.0, 0.55, 1000, 0.5),
        (2, 0.0, 0.05, 1000, 0.3),
        (1, 0.0, 0.01, 1000, 0.01),
        (3, 0.7, 0.1, 2000, 0.2),
        (10, 0.4, 0.55, 1000, 0.2),
    ],
)
def test_gaussians_of_known_information_and_correlation(latent_dim, correlation, scale, n, bias):
    covariance = correlated(latent_dim, correlation)
    log_det = torch.logdet(covariance).item()
    found = aggregate.decompose(*gaussian_aggregate(covariance, scale, n, 500), standard(latent_dim))
    assert found.tc.value == pytest.approx(-log_det / 2, abs=3 * found.tc.error + 1e-9) and found.tc.error < 0.15
    mi = log_det / 2 - latent_dim * math.log(scale)
    assert found.mi.value == pytest.approx(mi, abs=3 * found.mi.error) and found.mi.error < 0.25
    assert found.bias.value > bias  # that much more tc, and less mi, without the correction


def test_a_clustered_aggregate_of_known_correlation():
    centres = torch.tensor([[-2.0, -2], [0, 0], [2, 2], [2, -1]]).double()
    means = centres.repeat(500, 1) + 0.4 * torch.randn(2000, 2).double()
    q = DiagonalNormal(means, torch.full((2000, 2), 0.06).double())
    width = math.sqrt(0.4**2 + 0.06**2)
    exact = centres[torch.arange(EVERY) % 4] + width * torch.randn(EVERY, 2).double()
    log_each = Normal(centres, width).log_prob(exact[:, None])  # (draws, 4, 2)
    tc = (log_each.sum(-1).logsumexp(1) - log_each.logsumexp(1).sum(1) + math.log(4)).mean().item()
    chosen = torch.randperm(2000)[:1000]
    found = aggregate.decompose(q, chosen, q.sample()[chosen], standard(2))
    assert found.tc.value == pytest.approx(tc, abs=3 * found.tc.error) and found.tc.error < 0.05
    assert found.bias.value > 0.1


def test_the_errors_are_those_of_other_images_and_draws():
    off = []
    for _ in range(40):
        mi, tc, _, _ = aggregate.decompose(*gaussian_aggregate(correlated(10, 0), 0.6, 400, 200), standard(10))
        off.append([(mi.value + 10 * math.log(0.6)) / mi.error, tc.value / tc.error])
    assert all(0.6 < size < 1.1 for size in torch.tensor(off).square().mean(0).sqrt())


def test_a_large_correlation_is_not_taken_for_bias():
    """Posteriors with permuted dimensions overlap far less than these, unless there are more of them."""
    covariance = correlated(3, 0.97)
    tc = [
        aggregate.decompose(*gaussian_aggregate(covariance, 0.05, 1200, 1200), standard(3)).tc.value for _ in range(4)
    ]
    assert np.mean(tc) == pytest.approx(-torch.logdet(covariance).item() / 2, abs=0.12)


def test_a_correlated_prior_is_no_correlation_where_the_posterior_is_the_prior():
    factor = torch.linalg.cholesky(correlated(3, 0.6))
    mean = torch.tensor([1.0, 2.0, 3.0]).double()
    q = FullNormal(mean.expand(50, 3), factor.expand(50, 3, 3))
    found = aggregate.decompose(q, torch.arange(50), q.sample(), FullNormal(mean, factor))
    assert [part.value for part in found] == pytest.approx([0, 0, 0, 0], abs=1e-9)


def test_a_correlated_prior_is_no_correlation_where_the_aggregate_is_the_prior():
    covariance = correlated(3, 0.6)
    prior = FullNormal(torch.zeros(3).double(), torch.linalg.cholesky(covariance))
    found = aggregate.decompose(*gaussian_aggregate(covariance, 0.2, 1500, 500), prior)
    assert found.tc.value == pytest.approx(0, abs=3 * found.tc.error) and found.tc.error < 0.06
    assert found.dwkl.value == pytest.approx(0, abs=0.02)
    mi = torch.logdet(covariance).item() / 2 - 3 * math.log(0.2)
    assert found.mi.value == pytest.approx(mi, abs=3 * found.mi.error)


def test_of_a_prior_that_is_no_gaussian_the_dimensions_distances_are_no_divergence():
    """The aggregate posterior is the prior, whose own correlation is in tc and, below zero, in dwkl."""
    centres, width = torch.tensor([[-2.0, -2], [2, 2]]).double(), torch.ones(2, 2).double()
    prior = MixtureSameFamily(Categorical(torch.ones(2).double()), DiagonalNormal(centres, width))
    q = DiagonalNormal(centres.repeat(1000, 1), width.repeat(1000, 1))
    found = aggregate.decompose(q, torch.arange(2000), q.sample(), prior)
    assert found.tc.value > 0.5
    assert found.dwkl.value == pytest.approx(-found.tc.value, abs=5e-3)


@pytest.mark.parametrize("n", [2, 3, 12])
def test_fewer_images_than_dimensions_say_little_but_something(n):
    found = aggregate.decompose(*gaussian_aggregate(correlated(5, 0.3), 0.3, n, n), standard(5))
    assert all(math.isfinite(number) for part in found for number in part)
