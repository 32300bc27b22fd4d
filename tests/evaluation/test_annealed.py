import math
from typing import NamedTuple

import pytest
import torch
from models import IMAGES, MORE_PRIORS, NOISE, PRIORS, SHAPE, N, linear_gaussian, made
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from vae.evaluation import annealed as module
from vae.evaluation.annealed import annealed, bidirectional, leapfrog, log_weights, moved, planned, points
from vae.evaluation.likelihood import weighed
from vae.evaluation.theory import Curve, Given, Known, Noisy
from vae.model.backbones import Dense
from vae.model.distributions import DiagonalNormal
from vae.model.levels import Level
from vae.model.likelihoods import Bernoulli
from vae.model.posteriors import Diagonal
from vae.model.priors import Isotropic
from vae.model.vae import VAE


def zeros(n: int) -> Tensor:
    return torch.zeros(n).long()


def marginal(vae: VAE) -> MultivariateNormal:
    """p(x) of a linear model."""
    w, b = (weight.detach() for weight in vae.backbone.decoder[0].parameters())
    return MultivariateNormal(b, w @ vae.prior().covariance_matrix @ w.T + NOISE**2 * torch.eye(len(b)).double())


@pytest.fixture(autouse=True)
def plan_little(monkeypatch) -> None:
    """Toys need no more, and most of the time would go there."""
    monkeypatch.setattr(module, "PLANNED", 25)


@pytest.fixture
def seen(monkeypatch) -> list[Tensor]:
    """The images that chains are asked about."""
    images = []
    monkeypatch.setattr(module, "points", lambda vae, p, x, labels: images.append(x) or points(vae, p, x, labels))
    return images


# Moves ----------------------------------------------------------------------------------------------------------------


class Between(NamedTuple):
    """A linear model's image at a temperature t, and p(z) p(x|z)^t, which is a Gaussian."""

    at: module.At
    t: Tensor
    target: MultivariateNormal


def between(t: float) -> Between:
    vae, x, _ = linear_gaussian("correlated", "exact")
    w, b = (weight.detach() for weight in vae.backbone.decoder[0].parameters())
    precision = vae.prior().precision_matrix + t * w.T @ w / NOISE**2
    mean = torch.linalg.solve(precision, t * w.T @ (x.flatten() - b) / NOISE**2)
    at = points(vae, vae.prior(), x, zeros(1))
    return Between(at, torch.full((1,), t).double(), MultivariateNormal(mean, precision_matrix=precision))


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_a_point_knows_its_density_and_where_that_rises(t):
    at, temperature, target = between(t)
    z = torch.randn(50, 1, N, dtype=torch.float64)
    point = at(z)
    difference = point.log_density(temperature) - target.log_prob(z)
    assert torch.allclose(difference, difference[:1].expand_as(difference))
    assert torch.allclose(point.slope(temperature), (target.mean - z) @ target.precision_matrix)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_moves_leave_the_distribution_as_it_is(t, mean_is):
    at, temperature, target = between(t)
    start = at(target.sample(torch.Size([5000, 1])))
    size = 1.3 * target.variance.min().sqrt() * torch.tensor([[1.0, 0.8]]).double()
    point, shares = start, []
    for _ in range(4):
        point, share = moved(at, point, temperature, size)
        shares.append(share.mean().item())
    assert 0.3 < min(shares) < 0.95 and (point.z != start.z).double().mean() > 0.9
    z = point.z[:, 0] - target.mean
    mean_is(z, torch.zeros(N).double())
    mean_is(z[:, :, None] * z[:, None], target.covariance_matrix)
    mean_is((z @ target.precision_matrix * z).sum(-1) ** 2, torch.tensor(N * (N + 2.0)).double())


def test_a_path_leads_back_with_the_momentum_turned():
    at, t, _ = between(0.5)
    start, momentum = at(torch.randn(7, 1, N, dtype=torch.float64)), torch.randn(7, 1, N, dtype=torch.float64)
    size = torch.tensor([0.2, 0.1]).double()
    end, last = leapfrog(at, start, momentum, t, size)
    assert (end.z - start.z).abs().min() > 1e-3
    again, first = leapfrog(at, end, -last, t, size)
    assert torch.allclose(again.z, start.z) and torch.allclose(first, -momentum)


def test_a_path_that_goes_astray_is_not_taken():
    at, t, _ = between(1.0)
    start = at(torch.randn(7, 1, N, dtype=torch.float64))
    end, share = moved(at, start, t, torch.full((1, N), 1e30).double())
    assert torch.equal(end.z, start.z) and not share.any()


def test_a_plan_rises_from_the_prior_to_the_posterior_with_moves_that_are_taken(monkeypatch):
    monkeypatch.setattr(module, "PLANNED", 100)
    vae, x, _ = linear_gaussian("correlated", "exact")
    at, steps = points(vae, vae.prior(), x.expand(50, *SHAPE), zeros(50)), 200
    plan = planned(at, vae.prior(), 50, steps)
    assert plan.t.shape == (steps + 1, 50) and (plan.t.diff(dim=0) > 0).all()
    assert (plan.t[0] == 0).all() and torch.allclose(plan.t[-1], torch.ones(50).double())
    point = at(vae.prior().sample(torch.Size([8, 50])))
    shares = []
    for step in range(1, steps):
        assert plan.size(step).shape == (50, N)
        point, share = moved(at, point, plan.t[step], plan.size(step))
        shares.append(share.mean())
    assert torch.stack(shares)[20:].mean().item() == pytest.approx(module.ACCEPTED, abs=0.1)


# Bounds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize(("chains", "steps"), [(1, 10), (4, 5), (3, 1)])
def test_weights_are_exact_in_the_mean_however_few_the_temperatures(prior, chains, steps, mean_is):
    vae, x, log_p = linear_gaussian(prior, "exact")
    found = annealed(vae, x.expand(800, *SHAPE), zeros(800), chains, steps)
    assert all(part.shape == (800,) and part.dtype == torch.float64 for part in found)
    mean_is((found.log_p - log_p).exp(), torch.tensor(1.0))
    assert found.log_p.mean() < log_p - 0.02


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("chains", [1, 4])
def test_bounds_of_simulated_images_are_exact_in_the_mean_of_w_and_of_1_over_w(prior, chains, seen, mean_is):
    vae, _, _ = linear_gaussian(prior, "exact")
    found = bidirectional(vae, zeros(800), chains, 10)
    x = torch.cat(seen).flatten(1)
    mean_is(x, marginal(vae).mean)
    mean_is((x - marginal(vae).mean) ** 2, marginal(vae).variance)
    log_p = marginal(vae).log_prob(x)
    mean_is((found.lower - log_p).exp(), torch.tensor(1.0))
    mean_is((log_p - found.upper).exp(), torch.tensor(1.0))
    error = (found.gap.std() / 800**0.5).item()
    assert found.lower.mean() < log_p.mean() - 3 * error and log_p.mean() + 3 * error < found.upper.mean()


def test_chains_that_start_at_the_exact_posterior_lead_back(mean_is):
    vae, x, log_p = linear_gaussian("correlated", "exact")
    at = points(vae, vae.prior(), x.expand(800, *SHAPE), zeros(800))
    plan = planned(at, vae.prior(), 800, 10)
    z = vae.encode(x).sample(torch.Size([2, 800])).squeeze(2).detach()
    mean_is((log_p - log_weights(at, z, plan, back=True)).exp().flatten(), torch.tensor(1.0))


@pytest.mark.parametrize("prior", PRIORS)
def test_the_evidence_of_a_linear_model_is_found(prior, seen):
    vae, x, log_p = linear_gaussian(prior, "exact")
    found = annealed(vae, x.expand(20, *SHAPE), zeros(20), 16, 100)
    assert ((found.log_p - log_p).abs() < 6 * found.error).all() and (found.error < 0.25).all()
    assert ((found.ess > 5) & (found.ess < 16)).all()
    seen.clear()
    both = bidirectional(vae, zeros(200), 16, 100)
    log_p = marginal(vae).log_prob(torch.cat(seen).flatten(1))
    assert (log_p - both.lower).mean().abs() < 0.02 and (both.upper - log_p).mean().abs() < 0.02
    assert 0 < both.gap.mean() < 0.03


def test_the_error_is_how_far_repetitions_scatter():
    vae, x, log_p = linear_gaussian("isotropic", "exact")
    found = annealed(vae, x.expand(1000, *SHAPE), zeros(1000), 32, 20)
    assert found.error.square().mean().sqrt().item() == pytest.approx(found.log_p.std().item(), rel=0.15)
    assert 0.9 < ((found.log_p - log_p).abs() < 2 * found.error).double().mean() < 0.98


def test_a_mode_that_the_encoder_does_not_know_is_found():
    noise, n = 0.3, 20
    q = DiagonalNormal(torch.full((n, 1), 2**0.5).double(), torch.full((n, 1), 0.12).double())
    vae = VAE(Known(Curve(0.0)), [Level(Isotropic(1).double(), Given(q), 1)], Noisy(noise))
    x = torch.tensor([2.0, 0.0]).double().expand(n, 1, 1, 2)
    with torch.no_grad():
        grid = torch.linspace(-6, 6, 12_001, dtype=torch.float64)[:, None]
        log_p = (vae.decode(grid).log_prob(x[:1]) + vae.prior().log_prob(grid)).logsumexp(0) + math.log(1e-3)
        one_sided = weighed(vae, x, zeros(n), q, vae.prior(), 1000)
    assert torch.allclose(one_sided.log_p, log_p - math.log(2), atol=0.1)
    assert one_sided.ess.median() > 800 and one_sided.error.median() < 0.02  # there is no telling from its draws
    found = annealed(vae, x, zeros(n), 64, 100)
    assert ((found.log_p - log_p).abs() < 6 * found.error).all() and (found.error < 0.1).all()
    assert (found.log_p.mean() - log_p).abs() < 0.05


def test_a_decoder_that_makes_the_same_of_all_latents_leaves_nothing_open():
    vae, x, _ = linear_gaussian("correlated", "exact")
    nn.init.zeros_(vae.backbone.decoder[0].weight)
    log_p = vae.decode(torch.zeros(1, N).double()).log_prob(x).detach()
    found = annealed(vae, x, zeros(1), 4, 10)
    assert torch.allclose(found.log_p, log_p) and found.error < 1e-6
    assert bidirectional(vae, zeros(5), 4, 10).gap.abs().max() < 1e-9


def test_a_single_chain_has_no_error():
    vae, x, _ = linear_gaussian("isotropic", "exact")
    found = annealed(vae, x, zeros(1), 1, 20)
    assert found.ess.item() == pytest.approx(1) and found.error.isnan().all()


# Any model ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", MORE_PRIORS)
def test_any_prior_against_the_sum_over_a_grid(prior):
    vae = made("dense", prior, "full", "bernoulli").double()
    nn.init.normal_(vae.backbone.decoder[-2].weight, std=0.3)
    x = torch.rand(3, *IMAGES, dtype=torch.float64)
    side = torch.linspace(-12, 12, 241, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        joint = vae.decode(grid[:, None]).log_prob(x) + vae.prior().log_prob(grid)[:, None]
    expected = joint.logsumexp(0) + 2 * math.log(0.1)
    found = annealed(vae, x, zeros(3), 32, 60)
    assert ((found.log_p - expected).abs() < 6 * found.error + 1e-3).all() and (found.error < 0.3).all()


@pytest.mark.parametrize("prior", ["isotropic", *MORE_PRIORS])
@pytest.mark.parametrize("likelihood", ["bernoulli", "optimal"])
def test_the_model_is_left_as_it_was(prior, likelihood, seen):
    vae = made("dense", prior, "diagonal", likelihood)
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    learned = [weight.requires_grad for weight in vae.parameters()]
    single = annealed(vae, torch.rand(3, *IMAGES), zeros(3), 2, 5)
    both = bidirectional(vae, zeros(3), 2, 5)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert all(weight.grad is None for weight in vae.parameters())
    assert [weight.requires_grad for weight in vae.parameters()] == learned
    assert vae.training and all(module.training for module in vae.modules())
    for part in (*single, *both):
        assert part.shape == (3,) and part.dtype == torch.float64
        assert part.isfinite().all() and not part.requires_grad
    assert seen[1].shape == (3, *IMAGES) and seen[1].dtype == torch.float32
    assert (seen[1].unique().tolist() == [0, 1]) == (likelihood == "bernoulli")


def test_a_conditional_model_is_told_the_label(seen):
    vae = VAE(Dense(SHAPE, N, hidden=[8], classes=3), [Level(Isotropic(N), Diagonal(8, N), N)], Bernoulli()).double()
    nn.init.normal_(vae.backbone.decoder[0].weight[:, N:], std=5.0)
    x, labels = torch.rand(1, *SHAPE).round().expand(3, *SHAPE), torch.tensor([2, 0, 1])
    found = annealed(vae, x, labels, 64, 50)
    again = annealed(vae, x, labels.flip(0), 64, 50)
    assert ((found.log_p - again.log_p.flip(0)).abs() < 6 * (found.error + again.error.flip(0))).all()
    assert (found.log_p - found.log_p.roll(1)).abs().min() > 0.1
    seen.clear()
    both = bidirectional(vae, labels.repeat(20), 16, 50)
    exact = annealed(vae, seen[0], labels.repeat(20), 64, 50)
    assert both.gap.abs().max() < 0.1 and ((both.lower - exact.log_p).abs() < 0.1).all()


def test_portions_of_images_have_their_places(monkeypatch, seen):
    vae = made("dense", "isotropic", "diagonal", "bernoulli").double()
    x = torch.rand(5, *IMAGES, dtype=torch.float64).round()
    whole = annealed(vae, x, zeros(5), 16, 50)
    monkeypatch.setattr(module, "DECODED", 2 * 16 * math.prod(IMAGES))
    seen.clear()
    parts = annealed(vae, x, zeros(5), 16, 50)
    assert [len(images) for images in seen] == [2, 2, 1]
    error = (whole.error**2 + parts.error**2).sqrt()
    assert ((whole.log_p - parts.log_p).abs() < 6 * error).all()
    assert (whole.log_p - whole.log_p.flip(0)).abs().max() > 10 * error.max()
    monkeypatch.setattr(module, "DECODED", 1)
    assert bidirectional(vae, zeros(3), 2, 5).gap.shape == (3,)
    assert [len(images) for images in seen[3:]] == [1, 1, 1]


def test_single_precision_is_enough_and_seeds_decide_all():
    vae, x, log_p = linear_gaussian("correlated", "exact")
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        found.append(annealed(vae.float(), x, zeros(1), 64, 100))
    assert torch.equal(found[0].log_p, found[1].log_p)
    assert (found[0].log_p - log_p).abs() < 6 * found[0].error
