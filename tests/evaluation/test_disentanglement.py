import math

import numpy as np
import pytest
import torch

from vae.evaluation import disentanglement
from vae.evaluation.known_factors import paired

N, FACTORS = 3000, 4
METRICS = {
    "mig": disentanglement.mig,
    "sap": disentanglement.sap,
    "dci_disentanglement": lambda means, factors: disentanglement.dci(means, factors).disentanglement,
    "dci_completeness": lambda means, factors: disentanglement.dci(means, factors).completeness,
    "dci_informativeness": lambda means, factors: disentanglement.dci(means, factors).informativeness,
    "beta_vae_score": lambda means, factors: disentanglement.beta_vae_score(means, factors, 2000, 1000),
    "factor_vae_score": lambda means, factors: disentanglement.factor_vae_score(means, factors, 2000, 1000),
    "modularity": disentanglement.modularity,
}
# By reason: of a pair of codes (f ± g)/√2 each stands for both factors alike, so that an importance or a vote is as
# often the one's as the other's, and each code has as much information about both.
MIXED = {
    "mig": (0.0, 0.03),
    "sap": (0.0, 0.05),
    "dci_disentanglement": (1 - math.log(2) / math.log(FACTORS), 0.03),
    "dci_completeness": (1 - math.log(2) / math.log(FACTORS), 0.03),
    "dci_informativeness": (1.0, 0.06),  # it asks only whether the codes tell the factors
    "beta_vae_score": (0.5, 0.1),
    "factor_vae_score": (0.5, 0.1),
    "modularity": (1 - 1 / (FACTORS - 1), 0.06),
}
CHANCE = {"beta_vae_score": (1 / FACTORS, 0.1), "factor_vae_score": (1 / FACTORS, 0.1), "modularity": (0.15, 0.15)}


def continuous():
    return torch.randn(N, FACTORS)


def discrete():
    """Of two values each, because of more than two `sap` finds only the outer ones."""
    return torch.randint(2, (N, FACTORS)).float()


def sprites(n=4000):
    """Of as many values as those of dSprites and, like them, no integers."""
    return torch.stack([torch.randint(values, (n,)) / (values - 1) for values in (3, 6, 40, 32)], 1)


def table(repeats=1):
    """Factors a of 2 and b of 4 values, every pair of them as often as any other."""
    pairs = torch.cartesian_prod(torch.arange(2.0), torch.arange(4.0)).repeat(repeats, 1)
    return pairs[:, 0], pairs[:, 1]


@pytest.mark.parametrize("factors", [continuous, discrete])
@pytest.mark.parametrize("name", METRICS)
def test_the_factors_themselves_are_perfect_in_any_order_and_scale(name, factors):
    truth = factors()
    codes = truth[:, [2, 0, 3, 1]] * torch.tensor([3.0, -1.0, 0.6, 20.0]) + torch.tensor([0.0, 5.0, -1.0, 100.0])
    perfect = 0.5 if name == "sap" and factors is discrete else 1.0  # the second best code is right half the time
    # By chance the second best code seems to tell a little.
    assert METRICS[name](codes, truth) == pytest.approx(perfect, abs=0.03)


@pytest.mark.parametrize("name", [name for name in METRICS if name != "sap"])
def test_the_factors_themselves_are_perfect_with_many_values(name):
    truth = sprites()
    # 20 bins do not tell 40 values apart.
    perfect = (2 + math.log(20) / math.log(40) + math.log(20) / math.log(32)) / 4 if name == "mig" else 1.0
    assert METRICS[name](truth / truth.std(0), truth) == pytest.approx(perfect, abs=0.03)


def test_sap_takes_values_that_are_no_integers_for_classes():
    truth = sprites()
    codes = truth + 0.1 * torch.randn(truth.shape)
    integers = (truth * torch.tensor([2, 5, 39, 31])).round()
    assert disentanglement.sap(codes, truth) == disentanglement.sap(codes, integers) > 0.1


def test_values_that_many_images_share_are_classes_of_which_pairs_share_one():
    truth = sprites().numpy()
    pairs = paired(torch.rand(4000, 1), torch.from_numpy(truth))
    assert pairs.discrete == [True] * 4
    assert not any(paired(torch.rand(500, 1), torch.rand(500, 4)).discrete)
    assert paired(torch.rand(500, 1), torch.from_numpy(truth[:500])).discrete == [
        True,
        True,
        False,
        False,
    ]
    seen = []

    def vote(bins, count, generator):
        partners = disentanglement._partners(bins, np.arange(4000), generator)
        seen.append([(column == column[partners]).all() for column in truth.T])
        return np.zeros(count)

    disentanglement._votes(pairs, vote, 100)
    assert (np.array(seen) == np.eye(4, dtype=bool)).all()


def test_pairs_out_of_small_bins_do_not_tell_the_factor():
    truth = torch.stack([torch.arange(400) % 20, torch.arange(400) % 2], 1)
    # One pair in 20 would be an image with itself, and the classifier right four times out of five.
    assert disentanglement.beta_vae_score(torch.randn(400, 10), truth, 2000, 1000) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("name", METRICS)
def test_random_codes_score_what_chance_does(name):
    expected, tolerance = CHANCE.get(name, (0.0, 0.03))
    assert METRICS[name](torch.randn(N, 6), continuous()) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("name", METRICS)
def test_mixed_codes_are_punished_as_they_should(name):
    truth = continuous()
    f, g = truth[:, 0::2], truth[:, 1::2]
    expected, tolerance = MIXED[name]
    assert METRICS[name](torch.cat([f + g, f - g], 1) / 2**0.5, truth) == pytest.approx(expected, abs=tolerance)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factors", [continuous, discrete])
def test_constant_codes_are_worth_nothing(factors):
    found = {name: metric(torch.full((N, 3), 0.1), factors()) for name, metric in METRICS.items()}
    assert 0.1 < found.pop("beta_vae_score") < 0.4
    if factors is discrete:
        assert 0.4 < found.pop("dci_informativeness") < 0.6
    assert found == pytest.approx(dict.fromkeys(found, 0.0), abs=1e-9)


def test_scores_are_all_of_them_the_same_every_time():
    codes, truth = torch.randn(300, 2), torch.randn(300, 2)
    found = disentanglement.scores(codes, truth)
    assert set(found) == set(METRICS) and all(type(value) is float for value in found.values())
    assert found == disentanglement.scores(codes, truth)


def test_one_code_and_factors_that_do_not_vary():
    truth = torch.stack([torch.randn(N), torch.full((N,), 3.0), torch.randn(N)], 1)
    found = disentanglement.scores(truth[:, :1], truth)
    for name in ("mig", "sap"):
        assert found[name] == pytest.approx(0.5, abs=0.02)  # all of the one factor, nothing of the other
    assert found["dci_completeness"] == 1
    with pytest.raises(ValueError, match="two factors that vary, not 1"):
        disentanglement.mig(truth, truth[:, :2])


def test_mig_and_modularity_of_a_small_table():
    a, b = table()
    codes, truth = torch.stack([4 * a + b, b, torch.zeros(8)], 1), torch.stack([a, b], 1)
    # I(4a + b; a) = log 2 = H(a) and nothing else tells a; I(4a + b; b) = I(b; b) = log 4.
    assert disentanglement.mig(codes, truth) == pytest.approx((1 + 0) / 2)
    # 1 − (log 2 / log 4)² for the first code, 1 for the second, 0 for the third.
    assert disentanglement.modularity(codes, truth) == pytest.approx((0.75 + 1 + 0) / 3)


def test_mig_is_that_of_entropies_by_brute_force():
    truth = torch.stack([torch.randint(3, (500,)), torch.randint(5, (500,))], 1)
    codes = torch.stack([truth[:, 0] * truth[:, 1], truth.sum(1), torch.randint(2, (500,))], 1)

    def entropy(*columns):
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        return -sum(rows.count(row) / 500 * math.log(rows.count(row) / 500) for row in set(rows))

    gaps = []
    for f in truth.T:
        known = sorted((entropy(z) + entropy(f) - entropy(z, f)) / entropy(f) for z in codes.T)
        gaps.append(known[-1] - known[-2])
    assert disentanglement.mig(codes.float(), truth.float()) == pytest.approx(sum(gaps) / 2)


def test_mig_does_not_change_with_monotone_functions_of_the_codes():
    truth = continuous()
    codes = truth + 0.5 * torch.randn(N, FACTORS)
    assert disentanglement.mig(codes.double().exp(), truth) == pytest.approx(disentanglement.mig(codes, truth))


def test_sap_of_known_correlations():
    # Columns that are uncorrelated to the last digit, and as long as each other.
    basis = torch.linalg.qr(torch.cat([torch.ones(500, 1), torch.randn(500, 4)], 1).double())[0][:, 1:]
    f, g, noise, _ = basis.T
    codes = torch.stack([0.8 * f + 0.6 * g, 0.5 * g + 0.75**0.5 * noise, noise], 1)
    # f: 0.8² over 0; g: 0.6² over 0.5².
    assert disentanglement.sap(codes, torch.stack([f, g], 1)) == pytest.approx((0.64 + 0.36 - 0.25) / 2)


def test_sap_of_known_accuracies():
    truth = torch.cartesian_prod(torch.arange(2.0), torch.arange(2.0)).repeat(1500, 1)
    wrong = torch.tensor([0.1, 0.3, 0.2])  # shares of the two codes of the first factor, and of that of the second
    right = truth[:, [0, 0, 1]]
    codes = torch.where(torch.rand(len(truth), 3) < wrong, 1 - right, right)
    assert disentanglement.sap(codes, truth) == pytest.approx((0.9 - 0.7 + 0.8 - 0.5) / 2, abs=0.04)


def test_dci_of_known_importances():
    a, b = table(100)
    # One code that tells everything: all importance is its own, half of it for each factor.
    found = disentanglement.dci(torch.stack([4 * a + b, torch.zeros(800)], 1), torch.stack([a, b], 1))
    assert found == pytest.approx((0.0, 1.0, 1.0))
    matrix = np.array([[0.8, 0.3], [0.2, 0.7], [0.0, 0.0]])
    kept = 1 + (0.8 * math.log(0.8 / 1.1) + 0.3 * math.log(0.3 / 1.1)) / (1.1 * math.log(2))
    rest = 1 + (0.2 * math.log(0.2 / 0.9) + 0.7 * math.log(0.7 / 0.9)) / (0.9 * math.log(2))
    assert disentanglement._concentration(matrix) == pytest.approx((1.1 * kept + 0.9 * rest) / 2)


def test_votes_for_a_code_of_one_factor_and_one_of_none():
    truth = torch.randn(10_000, 2)
    codes = torch.stack([truth[:, 0], torch.randn(10_000)], 1)
    # Fixing the first factor every vote is for its code. Fixing the second either code is as likely to vary least, and
    # the noise gets these votes alone: ½ + ¼ are right.
    assert disentanglement.factor_vae_score(codes, truth) == pytest.approx(0.75, abs=0.04)
    # A collapsed dimension has no vote; the other stands for one factor, which is as often fixed as the other.
    codes = codes * torch.tensor([1.0, 0.2])
    assert disentanglement.factor_vae_score(codes, truth) == pytest.approx(0.5, abs=0.04)
    assert disentanglement.factor_vae_score(0.2 * codes, truth) == 0
    # Whether the code of the first factor is closer than usual says which one is fixed.
    assert disentanglement.beta_vae_score(codes, truth, 1000, 1000) == pytest.approx(1.0, abs=0.01)
    assert disentanglement.beta_vae_score(codes[:, 1:], truth, 1000, 1000) == pytest.approx(0.5, abs=0.1)


def test_the_votes_for_discrete_factors_are_those_of_drawing_them_one_by_one():
    """Against a loop that draws each image by its factors: a, b of table() and a code that mixes them."""
    a, b = table(200)
    codes, truth = torch.stack([a + 0.8 * b, a * (1 + b)], 1), torch.stack([a, b], 1)
    generator = np.random.default_rng(1)
    scale = codes.std(0).numpy()
    votes = np.zeros((2, 2))
    for _ in range(3000):
        fixed = generator.integers(2)
        drawn = np.stack([generator.integers(2, size=64), generator.integers(4, size=64)])
        drawn[fixed] = drawn[fixed, 0]
        mixed = np.stack([drawn[0] + 0.8 * drawn[1], drawn[0] * (1 + drawn[1])])
        votes[fixed, (mixed.std(1) / scale).argmin()] += 1
    expected = votes.max(0).sum() / votes.sum()
    assert 0.55 < expected < 0.98  # neither chance nor perfect
    assert disentanglement.factor_vae_score(codes, truth, 3000, 3000) == pytest.approx(expected, abs=0.06)


def test_partners_share_the_bin_and_are_all_drawn():
    bins = np.array([2, 0, 1, 0, 2, 2])
    first = np.tile(np.arange(6), (400, 1))
    partners = disentanglement._partners(bins, first, np.random.default_rng(0))
    assert (bins[partners] == bins[first]).all()
    assert [set(each) for each in partners.T] == [{4, 5}, {3}, {2}, {1}, {0, 5}, {0, 4}]  # itself only where alone
