"""Sliced and entropic transport, against sorting by hand and the exact assignment."""

import numpy as np
import pytest
import torch
from models import terms
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from vae.model.distributions import DiagonalNormal
from vae.model.objectives import Batch
from vae.model.priors import Isotropic
from vae.model.transport import Wasserstein, sinkhorn, sliced, transport


def points(count: int = 50, n: int = 3, shift: float = 0.0) -> Tensor:
    return torch.randn(count, n, dtype=torch.float64) + shift


def test_sliced_is_the_mean_over_directions_of_sorted_differences() -> None:
    a, b, directions = points(), points(shift=1.0), 2 * torch.randn(4, 3, dtype=torch.float64)
    each = []
    for direction in directions.numpy():
        unit = direction / np.linalg.norm(direction)
        each.append(np.mean((np.sort(a.numpy() @ unit) - np.sort(b.numpy() @ unit)) ** 2))
    assert sliced(a, b, directions).item() == pytest.approx(np.mean(each))


def test_sliced_of_a_shift_is_its_share_in_a_direction() -> None:
    """The mean of (uᵀs)² over directions u is ‖s‖²/n."""
    a, shift = points(), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = sliced(a, a + shift, torch.randn(50_000, 3, dtype=torch.float64))
    assert found.item() == pytest.approx(shift.square().sum().item() / 3, rel=0.03)


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_transport_with_little_entropy_is_the_exact_assignment(shift: float) -> None:
    a, b = points(), points(shift=shift)
    costs = ((a[:, None] - b) ** 2).sum(-1).numpy()
    exact = costs[linear_sum_assignment(costs)].mean()
    epsilon = 0.0025  # of the entropy of an assignment, log 50
    found = transport(a, b, epsilon, sweeps=2000)
    assert found.item() == pytest.approx(exact + epsilon * np.log(50), rel=2e-3)


def test_the_gradient_is_that_of_the_cost() -> None:
    a, b = points(6, 2).requires_grad_(), points(6, 2, shift=1.0)

    def cost(a: Tensor) -> Tensor:
        return transport(a, b, 0.25, sweeps=400) - 0.5 * transport(a, a, 0.25, sweeps=400)

    (found,) = torch.autograd.grad(cost(a), a)
    step, expected = 1e-4, torch.empty_like(a)
    with torch.no_grad():
        for place in np.ndindex(*a.shape):
            change = torch.zeros_like(a)
            change[place] = step
            expected[place] = (cost(a + change) - cost(a - change)) / (2 * step)
    assert torch.allclose(found, expected, rtol=1e-3, atol=3e-4)


def test_nothing_is_to_be_carried_from_points_to_themselves() -> None:
    a = points()
    assert abs(sinkhorn(a, a, 0.3).item()) < 1e-9 and sinkhorn(a, points(shift=1.0), 0.3) > 1


@pytest.mark.parametrize("kind", ["sliced", "sinkhorn"])
def test_it_brings_a_shifted_aggregate_to_the_prior(kind: str) -> None:
    objective = Wasserstein(kind, weight=1.0, directions=20, epsilon=0.1)
    p, shift = Isotropic(2)(), nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = torch.optim.SGD([shift], 0.2)
    for _ in range(60):
        z = shift + torch.randn(100, 2)
        batch = terms(torch.zeros(100), torch.zeros(100), z, DiagonalNormal(z, torch.ones_like(z)), p)
        optimizer.zero_grad()
        objective.loss(batch, Batch(torch.empty(0)), 0).value.backward()
        optimizer.step()
    assert shift.abs().max() < 0.4
