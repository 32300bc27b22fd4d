import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from vae.model.distributions import DiagonalNormal, FullNormal
from vae.model.noise import ShareOfNoise

SIZE = 7


def diagonal(part: slice) -> Distribution:
    loc = torch.arange(3.0 * SIZE).view(SIZE, 3)
    return DiagonalNormal(loc[part], 1 + loc[part])


def full(part: slice) -> Distribution:
    loc = torch.arange(3.0 * SIZE).view(SIZE, 3)
    return FullNormal(loc[part], torch.eye(3) + torch.ones(3, 3).tril().expand(SIZE, 3, 3)[part])


def drawn(q: Distribution, *shape: int) -> tuple[Tensor, Tensor]:
    """A draw with a fixed seed, and the state that it leaves."""
    return q.rsample(torch.Size(shape)), torch.get_rng_state()


@pytest.mark.parametrize("shape", [(), (5,)])
@pytest.mark.parametrize("q", [diagonal, full])
@pytest.mark.parametrize("share", [slice(0, 4), slice(4, 7), slice(2, 3), slice(0, 7)])
def test_a_share_of_the_noise_is_that_of_the_whole_batch(share, q, shape):
    torch.manual_seed(1)
    whole, after = drawn(q(slice(None)), *shape)
    torch.manual_seed(1)
    with ShareOfNoise(share, SIZE):
        found, after_share = drawn(q(share), *shape)
    assert torch.equal(found, whole[..., share, :])
    assert torch.equal(after_share, after)


def test_other_noise_is_left_alone():
    torch.manual_seed(1)
    expected = [torch.randn(SIZE), torch.empty(3, SIZE).normal_(), torch.rand(4, 2)]
    torch.manual_seed(1)
    with ShareOfNoise(slice(0, 4), SIZE):
        found = [torch.randn(SIZE), torch.empty(3, SIZE).normal_(), torch.rand(4, 2)]
    assert all(map(torch.equal, found, expected))


def test_gradients_pass():
    loc = torch.zeros(4, 3, requires_grad=True)
    with ShareOfNoise(slice(0, 4), SIZE):
        DiagonalNormal(loc, torch.ones(4, 3)).rsample().sum().backward()
    assert torch.equal(loc.grad, torch.ones(4, 3))
