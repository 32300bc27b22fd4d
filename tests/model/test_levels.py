"""A linear-Gaussian model of two levels, whose log p(x) and posterior are known in closed form."""

from typing import NamedTuple

import pytest
import torch
from models import NOISE, PIXELS, SHAPE, Unbounded
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from vae.model.backbones import Backbone, Dense
from vae.model.distributions import FullNormal, kl
from vae.model.levels import Encoding, Latent, Level
from vae.model.likelihoods import Bernoulli
from vae.model.noise import Draw
from vae.model.objectives import ELBO, IWAE, Batch
from vae.model.posteriors import Diagonal
from vae.model.priors import Isotropic, Prior, Vamp
from vae.model.vae import VAE

TOP, BELOW = 1, 2
DRAWS = 20_000


class Twofold(Backbone):
    """Both levels read x, and the image is a linear map of both z."""

    def __init__(self, w: Tensor):
        super().__init__()
        self.w = nn.Parameter(w)

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        return x.flatten(1), x.flatten(1)

    def image(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return (z @ self.w.T).unflatten(-1, SHAPE)


class Conditional(Prior):
    """N(A · z above, LLᵀ)."""

    def __init__(self, a: Tensor, factor: Tensor):
        super().__init__()
        self.a, self.factor = a, factor

    def forward(self, state: Tensor | None = None) -> FullNormal:
        assert state is not None
        return FullNormal(state @ self.a.T, self.factor)


class Regressed(Encoding):
    """N(B · (x, z above) + shift, LLᵀ)."""

    def __init__(self, b: Tensor, factor: Tensor):
        super().__init__()
        self.b, self.factor, self.shift = b, factor, 0.0

    def forward(self, features: Tensor, state: Tensor | None, prior: torch.distributions.Distribution, draw: Draw):
        known = features if state is None else torch.cat([features.expand(*state.shape[:-1], -1), state], -1)
        q = FullNormal(known @ self.b.T + self.shift, self.factor)
        z = draw.of(q)
        return Latent(z, kl(q, prior, z), q, prior)


class Truth(NamedTuple):
    vae: VAE
    x: Tensor
    log_p: Tensor
    joint: Tensor  # covariance of x


def regression(joint: Tensor, of: slice, on: list[int]) -> tuple[Tensor, Tensor]:
    """Of centred normal variables: the linear map to E[of | on], and a factor of Cov[of | on]."""
    b = torch.linalg.solve(joint[on][:, on], joint[on][:, of]).T
    return b, torch.linalg.cholesky(joint[of, of] - b @ joint[on][:, of])


@pytest.fixture
def truth() -> Truth:
    """A random model with the exact posteriors, one image, and log p(x) of that image."""
    a, w = torch.randn(BELOW, TOP).double(), torch.randn(PIXELS, TOP + BELOW).double()
    factor = torch.tensor([[0.8, 0.0], [0.3, 0.5]]).double()
    # (z above, z below, x) is a linear map of independent normals.
    latents = torch.cat([torch.eye(TOP, TOP + BELOW).double(), torch.cat([a, factor], 1)])
    whole = torch.cat([torch.cat([latents, w @ latents]), torch.eye(TOP + BELOW + PIXELS, PIXELS).double()], 1)
    whole[:, TOP + BELOW :] = 0
    whole[TOP + BELOW :, TOP + BELOW :] = NOISE * torch.eye(PIXELS)
    joint = whole @ whole.T
    top, below = slice(0, TOP), slice(TOP, TOP + BELOW)
    pixels = list(range(TOP + BELOW, TOP + BELOW + PIXELS))
    levels = [
        Level(Isotropic(TOP).double(), Regressed(*regression(joint, top, pixels))),
        Level(Conditional(a, factor), Regressed(*regression(joint, below, [*pixels, 0]))),
    ]
    marginal = MultivariateNormal(torch.zeros(PIXELS).double(), joint[pixels][:, pixels])
    x = marginal.sample()
    vae = VAE(Twofold(w), levels, Unbounded())
    return Truth(vae, x.view(1, *SHAPE), marginal.log_prob(x), joint[pixels][:, pixels])


def test_the_exact_posteriors_of_two_levels_reach_the_evidence(truth, mean_is):
    terms = truth.vae(truth.x.expand(DRAWS, *SHAPE))
    assert [latent.z.shape for latent in terms.latents] == [(DRAWS, TOP), (DRAWS, BELOW)]
    assert torch.allclose(terms.log_weight, truth.log_p.expand(DRAWS))  # at every z, without any noise
    assert torch.equal(terms.kl, terms.latents[0].kl + terms.latents[1].kl)
    mean_is(-terms.total, truth.log_p)


def test_any_other_posteriors_stay_below_it_by_their_divergence(truth, mean_is):
    level = truth.vae.levels[1]
    level.encoding.shift = 0.2
    terms = truth.vae(truth.x.expand(DRAWS, *SHAPE))
    inverse = torch.cholesky_inverse(level.encoding.factor)
    mean_is(-terms.total, truth.log_p - 0.5 * 0.2**2 * inverse.sum())


def test_several_samples_draw_one_z_below_for_each_above(truth):
    k = 5
    terms = truth.vae(truth.x.expand(3, *SHAPE), draw=Draw(samples=k))
    assert [latent.z.shape for latent in terms.latents] == [(k, 3, TOP), (k, 3, BELOW)]
    assert torch.allclose(terms.log_weight, truth.log_p.expand(k, 3))
    loss, _ = IWAE(k)(truth.vae, Batch(truth.x), 0)
    assert torch.allclose(-loss.value, truth.log_p)


def test_a_sample_goes_down_through_all_levels(truth):
    images = truth.vae.sample(DRAWS).flatten(1)
    expected = truth.joint - NOISE**2 * torch.eye(PIXELS).double()
    error = (expected.diagonal().outer(expected.diagonal()) + expected**2).div(DRAWS).sqrt()
    assert ((images.T.cov() - expected).abs() < 6 * error).all()


def test_the_loss_is_that_of_all_levels(truth):
    torch.manual_seed(1)
    (loss, _), terms = ELBO(2.0)(truth.vae, Batch(truth.x), 0)
    loss.backward()
    assert torch.isclose(loss, (terms.recon + 2 * terms.kl).mean()) and truth.vae.backbone.w.grad.all()


def test_what_knows_of_one_level_says_so(truth):
    line = "^a model of 2 levels of latents: this needs one of a single level$"
    for ask in (lambda: truth.vae.prior, lambda: truth.vae.encode(truth.x), lambda: truth.vae(truth.x).latent):
        with pytest.raises(ValueError, match=line):
            ask()
    pair = [Level(Vamp(2, components=3, init="random"), Diagonal(4, 2)), Level(Isotropic(2), Diagonal(4, 2))]
    with pytest.raises(ValueError, match=line):
        VAE(Dense((1, 2, 2), 4, hidden=[4]), pair, Bernoulli())
