import math

import numpy as np
import pytest
import torch

from vae.evaluation import quality


def ssim_of_windows(x, y):
    """The definition for one channel (height, width): every window by itself, moments as weighted sums."""
    sizes = [min(11, side - (side + 1) % 2) for side in x.shape]
    weights = np.array(
        [
            [math.exp(-((i - sizes[0] // 2) ** 2 + (j - sizes[1] // 2) ** 2) / (2 * 1.5**2)) for j in range(sizes[1])]
            for i in range(sizes[0])
        ]
    )
    weights /= weights.sum()
    values = []
    for i in range(x.shape[0] - sizes[0] + 1):
        for j in range(x.shape[1] - sizes[1] + 1):
            a, b = (image[i : i + sizes[0], j : j + sizes[1]].numpy() for image in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            cov = (weights * (a - mean_a) * (b - mean_b)).sum()
            above = (2 * mean_a * mean_b + 0.0001) * (2 * cov + 0.0009)
            values.append(above / ((mean_a**2 + mean_b**2 + 0.0001) * (var_a + var_b + 0.0009)))
    return np.mean(values)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 13, 16), (1, 11, 11), (2, 6, 9), (1, 5, 14), (1, 1, 1)])
def test_ssim_is_that_of_all_windows(shape):
    x = torch.rand(2, *shape)
    y = (x + 0.2 * torch.randn_like(x)).clamp(0, 1)
    expected = [np.mean([ssim_of_windows(a, b) for a, b in zip(*pair, strict=True)]) for pair in zip(x, y, strict=True)]
    assert quality.ssim(x, y).tolist() == pytest.approx(expected, abs=2e-5)
    assert quality.ssim(x.double(), y.double()).tolist() == pytest.approx(expected, abs=1e-7)


def test_equal_images_are_similar_inverted_ones_are_not():
    x = torch.rand(3, 1, 28, 28)
    assert torch.allclose(quality.ssim(x, x), torch.ones(3))
    assert (quality.ssim(x, 1 - x) < -0.5).all()
    expected = {"mse": 0.0, "psnr": pytest.approx(100), "ssim": pytest.approx(1), "mse_of_variance": 0.0}
    assert quality.reconstruction(x, x) == expected
    numbers = x.double().numpy()
    mean = x.mean().expand_as(x)  # which leaves all of the variance
    assert quality.reconstruction(x, mean)["mse_of_variance"] == pytest.approx(1, rel=1e-5)
    assert quality.reconstruction(x, 0 * x)["mse_of_variance"] == pytest.approx((numbers**2).mean() / numbers.var())
    assert quality.reconstruction(torch.zeros(2, 1, 9, 9), torch.ones(2, 1, 9, 9))["mse_of_variance"] == 0.0


def test_ssim_does_not_depend_on_the_chunks(monkeypatch):
    x, y = torch.rand(2, 7, 1, 12, 12)
    whole = quality.ssim(x, y)
    monkeypatch.setattr(quality, "CHUNK", 3)
    assert torch.allclose(quality.ssim(x, y), whole)


def test_psnr_of_known_noise():
    x = torch.full((4, 3, 20, 20), 0.5).double()
    noise = 0.1 * (torch.randint(2, x.shape) * 2 - 1)
    assert torch.allclose(quality.psnr(x, x + noise), torch.full((4,), 20.0).double(), atol=1e-4)
    y = x.clone()
    y[1] += 0.01
    assert quality.mse(x, y).tolist() == pytest.approx([0, 1e-4, 0, 0])
    assert quality.reconstruction(x, y)["psnr"] == pytest.approx((3 * 100 + 40) / 4, abs=1e-3)


def features(n, mean, covariance):
    """n features whose sample mean and sample covariance are exactly these."""
    x = torch.randn(n, len(mean)).double()
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T
    return white @ torch.linalg.cholesky(torch.tensor(covariance).double()).T + torch.tensor(mean).double()


def test_frechet_distance_of_known_gaussians():
    first, second = [[2.0, 0.6], [0.6, 0.5]], [[0.7, -0.3], [-0.3, 1.1]]
    a, b = features(50, [0.0, 1.0], first), features(80, [2.0, 0.5], second)
    product = torch.tensor(first).double() @ torch.tensor(second).double()
    root = (product.trace() + 2 * product.det().sqrt()).sqrt()  # the trace of the root of a matrix of two rows
    expected = 4.25 + 2.5 + 1.8 - 2 * root.item()
    assert quality.frechet_distance(a, b) == pytest.approx(expected)
    assert quality.frechet_distance(b, a) == pytest.approx(expected)
    a, b = features(30, [0.0, 0, 0], np.diag([1.0, 4, 9])), features(30, [1.0, 0, 0], np.diag([4.0, 4, 1]))
    assert quality.frechet_distance(a, b) == pytest.approx(1 + 1 + 0 + 4)


def test_frechet_distance_by_the_eigenvalues_of_the_product():
    a, b = torch.randn(200, 12) @ torch.randn(12, 12), torch.randn(100, 12) @ torch.randn(12, 12) + 1
    product = np.cov(a.double().T) @ np.cov(b.double().T)
    cross = np.sqrt(np.linalg.eigvals(product).real.clip(0)).sum()
    traces = np.cov(a.double().T).trace() + np.cov(b.double().T).trace()
    expected = ((a.double().mean(0) - b.double().mean(0)) ** 2).sum().item() + traces - 2 * cross
    assert quality.frechet_distance(a, b) == pytest.approx(expected)


def test_frechet_distance_of_equal_and_of_singular_sets():
    a = torch.randn(20, 64)  # fewer than dimensions
    assert quality.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert quality.frechet_distance(a, a + 0.5) == pytest.approx(16)
    same = torch.ones(9, 3)
    assert quality.frechet_distance(same, same + 1) == pytest.approx(3)
    assert quality.frechet_distance(torch.zeros(5, 1), torch.arange(5.0)[:, None]) == pytest.approx(4 + 2.5)


def test_kernel_distance_by_all_pairs(monkeypatch):
    a, b = torch.randn(7, 3).double(), torch.randn(9, 3).double() + 0.5

    def k(x, y):
        return (float(x @ y) / 3 + 1) ** 3

    same_a = np.mean([k(a[i], a[j]) for i in range(7) for j in range(7) if i != j])
    same_b = np.mean([k(b[i], b[j]) for i in range(9) for j in range(9) if i != j])
    expected = same_a + same_b - 2 * np.mean([k(x, y) for x in a for y in b])
    assert quality.kernel_distance(a, b) == pytest.approx(expected)
    monkeypatch.setattr(quality, "CHUNK", 4)
    assert quality.kernel_distance(a, b) == pytest.approx(expected)


def test_kernel_distance_of_one_distribution_is_zero_on_average(mean_is):
    distances = [quality.kernel_distance(torch.randn(10, 4), torch.randn(14, 4)) for _ in range(500)]
    mean_is(torch.tensor(distances), torch.zeros(()))


def test_precision_and_recall_on_a_line():
    real = torch.tensor([[0.0], [1], [2], [10]])  # the balls of k=1 reach 1, 1, 1 and 8
    fake = torch.tensor([[-1.5], [0.5], [3.0], [30], [31]])  # 2, 2, 2.5, 1 and 1
    # Of the samples 0.5 and 3 lie in balls of images; of the images 0, 1 and 2 lie in balls of samples.
    assert quality.precision_recall(real, fake, k=1) == pytest.approx((2 / 5, 3 / 4))
    # Hits: 0.5 in two balls, 3 in those of 2 and 10, and the last ball reaches from 2 to 18.
    assert quality.density_coverage(real, fake, k=1) == pytest.approx((4 / 5, 4 / 4))


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("dims", [1, 2])
def test_precision_recall_density_and_coverage_by_all_pairs(k, dims, monkeypatch):
    monkeypatch.setattr(quality, "CHUNK", 9)
    real, fake = torch.randn(30, dims), torch.randn(25, dims) * 1.5 + 0.7

    def balls(points):
        return [sorted((p - other).norm().item() for other in points)[k] for p in points]

    def within(points, centres):
        return np.array([[(p - c).norm() <= r for c, r in zip(centres, balls(centres), strict=True)] for p in points])

    fakes, reals = within(fake, real), within(real, fake)
    expected = (fakes.any(1).mean(), reals.any(1).mean())
    assert quality.precision_recall(real, fake, k) == pytest.approx(expected)
    assert quality.density_coverage(real, fake, k) == pytest.approx((fakes.sum() / (k * 25), fakes.any(0).mean()))


def test_disjoint_sets_share_nothing_and_equal_ones_everything():
    real = torch.rand(40, 64) * 1000
    found = quality.samples(real, real + 5000)
    assert [found[name] for name in ("precision", "recall", "density", "coverage")] == [0, 0, 0, 0]
    found = quality.samples(real, real.clone())
    assert [found[name] for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert found["frechet"] == pytest.approx(0, abs=1e-3) and found["kernel"] < 0


def test_a_model_that_always_draws_one_image_is_precise_and_covers_little():
    real = torch.randn(200, 5)
    fake = real[:1].repeat(50, 1)
    precision, recall = quality.precision_recall(real, fake)
    assert precision == 1 and recall == 1 / 200  # its balls have no radius: all that they hold is the image itself
    assert quality.density_coverage(real, fake).coverage < 0.2


def test_samples_of_the_images_own_distribution_cover_what_is_expected(mean_is):
    n, k = 40, 5
    found = torch.tensor([quality.density_coverage(torch.randn(n, 2), torch.randn(n, 2), k) for _ in range(300)])
    coverage = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    mean_is(found, torch.tensor([1.0, coverage]))


def test_too_few_features_for_the_neighbours_are_refused():
    with pytest.raises(ValueError, match="3 features: must be more than k=3"):
        quality.precision_recall(torch.randn(3, 2), torch.randn(9, 2))
