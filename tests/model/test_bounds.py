"""The Rényi bound against quadrature in one dimension."""

import numpy as np
import pytest
import torch
from models import terms
from torch import Tensor
from torch.distributions import Normal

from vae.model.bounds import IWAE, NEAR_ONE, Renyi, renyi
from vae.model.distributions import DiagonalNormal, kl
from vae.model.objectives import Batch
from vae.model.priors import Isotropic
from vae.model.vae import Terms

X, SLOPE, NOISE = 1.3, 0.8, 0.7  # p(x|z) = N(SLOPE z, NOISE²)
LOC, SCALE = 0.6, 0.5  # of a q that is narrower than p(z|x), without which the integrals for α > 1 are infinite
ALPHAS = [0.0, 0.3, 1 - NEAR_ONE / 2, 1.0, 1.2, 2.0]


def by_quadrature(alpha: float, loc: float = LOC, scale: float = SCALE) -> float:
    z = np.linspace(-14, 14, 400_001)

    def log_normal(x: np.ndarray | float, mean: np.ndarray | float, deviation: float) -> np.ndarray:
        return -0.5 * ((x - mean) / deviation) ** 2 - np.log(deviation * np.sqrt(2 * np.pi))

    log_q = log_normal(z, loc, scale)
    log_w = log_normal(z, 0, 1) + log_normal(X, SLOPE * z, NOISE) - log_q
    if alpha == 1:
        return float(np.trapezoid(np.exp(log_q) * log_w, z))
    return float(np.log(np.trapezoid(np.exp(log_q + (1 - alpha) * log_w), z)) / (1 - alpha))


def at_quantiles(loc: Tensor, scale: Tensor, count: int = 400_000) -> Terms:
    """Terms of one image with samples at the quantiles of q: the mean over them is nearly an integral."""
    noise = Normal(0, 1).icdf((torch.arange(count, dtype=torch.float64) + 0.5) / count)
    q = DiagonalNormal(loc.view(1, 1), scale.view(1, 1))
    z = loc + scale * noise.view(-1, 1, 1)
    recon = -Normal(SLOPE * z, NOISE).log_prob(torch.tensor(X, dtype=torch.float64)).sum(-1)
    p = Isotropic(1).double()()
    return terms(recon, kl(q, p, z), z, q, p)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_it_is_the_integral_and_so_is_its_gradient(alpha: float) -> None:
    loc, scale = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (LOC, SCALE))
    bound = -Renyi(1, alpha).loss(at_quantiles(loc, scale), Batch(torch.empty(0)), 0).value
    assert bound.item() == pytest.approx(by_quadrature(alpha), abs=2e-3)
    found = torch.autograd.grad(bound, [loc, scale])
    step = 1e-4
    expected = [
        (by_quadrature(alpha, LOC + step) - by_quadrature(alpha, LOC - step)) / (2 * step),
        (by_quadrature(alpha, scale=SCALE + step) - by_quadrature(alpha, scale=SCALE - step)) / (2 * step),
    ]
    assert [gradient.item() for gradient in found] == pytest.approx(expected, abs=0.02)


def test_it_falls_with_alpha_and_has_known_cases() -> None:
    log_w = torch.randn(7, 5, dtype=torch.float64) * 3
    each = torch.stack([renyi(log_w, alpha) for alpha in ALPHAS])
    assert (each.diff(dim=0) < 0).all()
    assert torch.allclose(renyi(log_w, 1.0), log_w.mean(0))
    assert torch.allclose(renyi(log_w, 0.0), log_w.exp().mean(0).log())
    batch = at_quantiles(torch.tensor(LOC).double(), torch.tensor(SCALE).double(), count=9)
    found, expected = (each.loss(batch, Batch(torch.empty(0)), 0).value for each in (Renyi(9, 0.0), IWAE(9)))
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("side", [-1, 1])
def test_it_has_no_jump_where_the_series_begins(side: int) -> None:
    log_w = torch.randn(50, 5, dtype=torch.float64) * 3
    inside, outside = (renyi(log_w, 1 + side * NEAR_ONE * factor) for factor in (0.999, 1.001))
    assert torch.allclose(inside, outside, rtol=0, atol=2e-4)
