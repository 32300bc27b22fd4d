import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace

from vae.model.distributions import DiagonalNormal, FullNormal
from vae.model.draws import draws
from vae.model.noise import FRESH, Draw, SharedNoise, sampled
from vae.model.priors import Flow, Mixture

SIZE = 7


def diagonal(part: slice) -> Distribution:
    loc = torch.arange(3.0 * SIZE).view(SIZE, 3)
    return DiagonalNormal(loc[part], 1 + loc[part])


def full(part: slice) -> Distribution:
    loc = torch.arange(3.0 * SIZE).view(SIZE, 3)
    return FullNormal(loc[part], torch.eye(3) + torch.ones(3, 3).tril().expand(SIZE, 3, 3)[part])


def seeded(draw: Draw, q: Distribution) -> tuple[Tensor, Tensor]:
    """A draw with a fixed seed, and the state that it leaves."""
    torch.manual_seed(1)
    return draw.of(q), torch.get_rng_state()


@pytest.mark.parametrize("samples", [None, 5])
@pytest.mark.parametrize("q", [diagonal, full])
def test_fresh_noise_draws_what_torch_does(q, samples):
    found, after = seeded(Draw(samples=samples), q(slice(None)))
    torch.manual_seed(1)
    expected = q(slice(None)).rsample(torch.Size([] if samples is None else [samples]))
    assert torch.equal(found, expected) and torch.equal(after, torch.get_rng_state())


@pytest.mark.parametrize("samples", [None, 5])
@pytest.mark.parametrize("q", [diagonal, full])
@pytest.mark.parametrize("share", [slice(0, 4), slice(4, 7), slice(2, 3), slice(0, 7)])
def test_a_share_of_the_noise_is_that_of_the_whole_batch(share, q, samples):
    whole, after = seeded(Draw(samples=samples), q(slice(None)))
    found, after_share = seeded(Draw(SharedNoise(share, SIZE), samples), q(share))
    assert torch.equal(found, whole[..., share, :])
    assert torch.equal(after_share, after)


def test_shares_of_uniform_noise_are_those_of_the_whole_batch():
    like = torch.empty(0, dtype=torch.float64)
    torch.manual_seed(1)
    whole = FRESH.uniform([2, SIZE], like, -1)
    torch.manual_seed(1)
    assert torch.equal(SharedNoise(slice(2, 5), SIZE).uniform([2, 3], like, -1), whole[:, 2:5])
    assert whole.dtype == torch.float64 and whole.min() >= 0 and whole.max() < 1


def test_gradients_pass_and_the_mean_needs_no_noise():
    loc = torch.zeros(4, 3, requires_grad=True)
    Draw(SharedNoise(slice(0, 4), SIZE)).of(DiagonalNormal(loc, torch.ones(4, 3))).sum().backward()
    assert torch.equal(loc.grad, torch.ones(4, 3))
    before = torch.get_rng_state()
    assert torch.equal(Draw(mean=True).of(DiagonalNormal(loc, torch.ones(4, 3))), loc)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "prior", [lambda: Mixture(2, 3, "full"), lambda: Mixture(2, 3, "diagonal"), lambda: Flow(2, "nsf", 2, [8])]
)
@torch.no_grad()
def test_priors_are_drawn_from_noise(prior, mean_is):
    p = prior()()
    z = sampled(p, FRESH, [40_000])
    own = draws(p, 100_000)
    assert z.shape == (40_000, 2)
    for power in (1, 2, 3):
        mean_is(z**power, (own**power).mean(0))


def test_a_distribution_from_elsewhere_draws_in_its_own_way():
    q = Independent(Laplace(torch.zeros(5, 2), torch.ones(5, 2)), 1)
    torch.manual_seed(1)
    expected = q.rsample(torch.Size([3]))
    assert torch.equal(seeded(Draw(samples=3), q)[0], expected)
