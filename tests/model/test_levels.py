"""A linear-Gaussian model of two levels, whose log p(x) and posterior are known in closed form."""

from typing import NamedTuple

import pytest
import torch
from models import NOISE, PIXELS, SHAPE, Unbounded
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from vae.evaluation.annealed import annealed, bidirectional
from vae.evaluation.gap import inference_gap
from vae.evaluation.likelihood import importance_likelihood
from vae.explorer.networks import networks
from vae.model.backbones import Backbone
from vae.model.bounds import IWAE
from vae.model.distributions import FullNormal
from vae.model.levels import Level
from vae.model.noise import Draw
from vae.model.objectives import ELBO, EVEN, Batch
from vae.model.posteriors import Posterior
from vae.model.priors import Isotropic, Prior
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

    def image(self, state: Tensor) -> Tensor:
        z = state.roll(TOP, -1)  # the last level's come first
        return (z @ self.w.T).unflatten(-1, SHAPE)


class Conditional(Prior):
    """N(A · z above, LLᵀ)."""

    def __init__(self, a: Tensor, factor: Tensor):
        super().__init__()
        self.a, self.factor = a, factor

    def forward(self, state: Tensor | None = None) -> FullNormal:
        assert state is not None
        return FullNormal(state @ self.a.T, self.factor)


class Regressed(Posterior):
    """N(B · (x, z above) + shift, LLᵀ)."""

    def __init__(self, b: Tensor, factor: Tensor):
        super().__init__()
        self.b, self.factor, self.shift = b, factor, 0.0

    def q(self, features: Tensor, prior: Distribution | None) -> FullNormal:
        return FullNormal(features @ self.b.T + self.shift, self.factor)

    def q_given(self, features: Tensor, prior: Distribution, state: Tensor | None) -> FullNormal:
        if state is None:
            return self.q(features, prior)
        return self.q(torch.cat([features.expand(*state.shape[:-1], -1), state], -1), prior)


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
        Level(Isotropic(TOP).double(), Regressed(*regression(joint, top, pixels)), TOP),
        Level(Conditional(a, factor), Regressed(*regression(joint, below, [*pixels, 0])), BELOW),
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


def test_free_bits_of_each_level_are_not_charged(truth):
    terms = truth.vae(truth.x.expand(4, *SHAPE))
    top, below = (latent.kl.mean().item() for latent in terms.latents)
    assert top < below
    for bits, charged in ((0.5 * top, top + below), (0.5 * (top + below), 0.5 * (top + below) + below)):
        loss = ELBO(3.0, free_bits=bits, free_bits_per="level").loss(terms, Batch(truth.x), 0).value
        assert loss.item() == pytest.approx(terms.recon.mean().item() + 3 * charged)


@pytest.mark.parametrize("kind", [int, torch.tensor])
def test_balanced_levels_are_weighed_by_the_kl_of_a_number_until_the_warm_up_ends(truth, kind):
    terms = truth.vae(truth.x.expand(4, *SHAPE))
    objective = ELBO(3.0, annealing="linear", warmup=2, balance=True)
    objective.prepare(steps=40, epochs=4)
    top, below = (latent.kl.mean().item() for latent in terms.latents)
    shares = (top + EVEN) / TOP, (below + EVEN) / BELOW
    weighed = (shares[0] * top + shares[1] * below) / (sum(shares) / 2)
    for step, weight, charged in ((5, 0.25, weighed), (20, 1, top + below), (40, 1, top + below)):
        loss = objective.loss(terms, Batch(truth.x), kind(step)).value
        assert loss.item() == pytest.approx(terms.recon.mean().item() + 3 * weight * charged)


def test_all_levels_are_one_distribution(truth):
    """p and q of the whole z, beside what a forward pass says, and beside each other by the evidence."""
    terms = truth.vae(truth.x.expand(3, *SHAPE), draw=Draw(samples=5))
    z = torch.cat([latent.z for latent in terms.latents], -1)
    p, q = truth.vae.p(), truth.vae.q(truth.x.expand(3, *SHAPE))
    assert torch.allclose(p.log_prob(z) - q.log_prob(z) - terms.recon, terms.log_weight)
    assert torch.allclose(-truth.vae.decode(z).log_prob(truth.x), terms.recon)
    assert p.sample((4, 2)).shape == (4, 2, TOP + BELOW) and q.sample((4,)).shape == (4, 3, TOP + BELOW)
    assert q.mean.shape == q.variance.shape == (3, TOP + BELOW)


def test_the_mean_of_gaussian_levels_is_the_exact_one(truth):
    found = truth.vae.q(truth.x).mean[0]
    z = truth.vae.q(truth.x).sample((DRAWS,))[:, 0]
    assert ((z.mean(0) - found).abs() < 6 * z.std(0) / DRAWS**0.5).all()


def test_importance_sampling_and_annealing_find_the_evidence_of_two_levels(truth):
    labels = torch.zeros(1, dtype=torch.int64)
    found = importance_likelihood(truth.vae, [(truth.x, labels)], samples=10)
    assert torch.allclose(found.log_p, truth.log_p) and found.error < 1e-6  # whatever z, with exact posteriors
    truth.vae.levels[1].encoding.shift = 0.2
    found = importance_likelihood(truth.vae, [(truth.x, labels)], samples=DRAWS)
    assert abs(found.log_p - truth.log_p) < 6 * found.error and found.elbo < truth.log_p - 1e-3
    chains = annealed(truth.vae, truth.x, labels, chains=200, steps=60)
    assert abs(chains.log_p - truth.log_p) < 6 * chains.error < 0.5
    bounds = bidirectional(truth.vae, labels.expand(20), chains=20, steps=60)
    assert bounds.gap.mean() < 0.5


def test_the_upper_levels_alone_are_decoded_at_the_mean_of_the_others(truth):
    z = torch.randn(6, TOP).double()
    lower = truth.vae.levels[1].prior(z).mean
    assert torch.equal(truth.vae.decode(z).mean, truth.vae.decode(torch.cat([z, lower], -1)).mean)


def test_what_knows_of_one_level_says_so(truth):
    line = "^a model of 2 levels of latents: this needs one of a single level$"
    for ask in (
        lambda: truth.vae(truth.x).latent,
        lambda: inference_gap(truth.vae, truth.x, torch.zeros(1), samples=2, steps=1),
        lambda: networks(truth.vae, truth.x, torch.zeros(1), torch.zeros(1, 3)),
    ):
        with pytest.raises(ValueError, match=line):
            ask()
