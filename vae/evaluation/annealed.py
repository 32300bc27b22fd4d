"""log p(x) by annealed importance sampling, which needs no encoder, and between two bounds for simulated images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from vae.common.terminal import NO_BAR, Bar, bar_of_long
from vae.evaluation.doubles import doubles
from vae.evaluation.likelihood import DECODED
from vae.model.vae import VAE, evaluating

LEAPS = 2  # leapfrog steps of a move: for the same work, more temperatures gain more than longer moves
JITTER = 0.2  # of step sizes, up and down: with a fixed one some paths lead round and back to where they began

# The run that plans the others.
PLANNERS = 8  # chains an image
PLANNED = 100  # temperatures
ACCEPTED = 0.65  # share of moves, about the best for Hamiltonian ones (Beskos et al., 2013)
RATE = 0.5  # of a step size's logarithm, in shares of accepted moves
START = 0.5  # the first step size
STEEPNESS = 4.0  # of its sigmoidal temperatures (Wu et al., 2017)
MEASURED = 0.8  # how far the plan's temperatures go by what was measured; by that sigmoid the rest


class Annealed(NamedTuple):
    """What the weights w of k chains of each image say; (n,) each, float64 on the CPU, nats."""

    log_p: Tensor  # log (1/k) Σ w, in the mean a lower bound on log p(x)
    error: Tensor  # standard error of log_p; itself too small where ess is but a few
    ess: Tensor  # effective sample size (Σ w)² / Σ w², from 1 to k (Kish, 1965)


class Bounds(NamedTuple):
    """log p(x) of n simulated images from both sides, each bound in the mean; (n,) each, float64 on the CPU, nats."""

    lower: Tensor
    upper: Tensor

    @property
    def gap(self) -> Tensor:
        """Upper − lower: in the mean no less than what `lower` misses of log p(x)."""
        return self.upper - self.lower


class Point(NamedTuple):
    """Latents of k chains of n images, what the model says about them, and where that rises."""

    z: Tensor  # (k, n, latent_dim)
    log_prior: Tensor  # log p(z), (k, n)
    log_likelihood: Tensor  # log p(x|z), (k, n)
    prior_slope: Tensor  # ∂ log p(z) / ∂z, (k, n, latent_dim)
    likelihood_slope: Tensor  # ∂ log p(x|z) / ∂z, (k, n, latent_dim)

    def log_density(self, t: Tensor) -> Tensor:
        """Log p(z) + t log p(x|z) at temperatures t (n,), (k, n)."""
        return self.log_prior + t * self.log_likelihood

    def slope(self, t: Tensor) -> Tensor:
        """Its gradient, (k, n, latent_dim)."""
        return self.prior_slope + t.unsqueeze(-1) * self.likelihood_slope


At = Callable[[Tensor], Point]  # what makes a point of latents (k, n, latent_dim)


class Plan(NamedTuple):
    """The temperatures and step sizes of chains of n images, fixed before they run."""

    t: Tensor  # rising from 0 to 1, (steps + 1, n), float64 on the CPU
    places: Tensor  # of each of these among `PLANNED`, (steps + 1, n)
    sizes: Tensor  # there, of steps, (PLANNED, n)
    scales: Tensor  # there, of the latents, in which sizes count, (PLANNED, latent_dim)

    def size(self, step: int) -> Tensor:
        """Step sizes of a move at t[step], (n, latent_dim)."""
        place = self.places[step]
        return self.sizes.gather(0, place[None])[0].unsqueeze(-1) * self.scales[place]


@torch.no_grad()
def annealed(vae: VAE, images: Tensor, labels: Tensor, chains: int, steps: int) -> Annealed:
    """log p(x) ≈ log (1/k) Σ w of images (n, channels, height, width) with labels (n,), by k chains each (Neal, 2001).

    A chain leads from the prior to the posterior by moves that leave p(z) p(x|z)^t / Z(t) as it is, for t that rise
    from 0 to 1 in `steps` steps; w = Π p(x|z)^Δt, each factor at where the chain then is, has the mean p(x).
    """
    x = images.to(next(vae.parameters()))
    parts = []
    portions = _portions(len(x), chains, x[0].numel())
    with evaluating(vae), bar_of_long("annealing", len(portions) * (PLANNED + steps - 1)) as progress:
        for start, end in portions:
            p = vae.p(labels[start:end])
            at = points(vae, p, x[start:end], labels[start:end])
            plan = planned(at, p, end - start, steps, progress)
            parts.append(log_weights(at, p.sample(torch.Size([chains, end - start])), plan, progress=progress))
    log_w = torch.cat(parts, 1)
    ess = (2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp()
    variance = (1 / ess - 1 / chains).clamp(min=0) / (1 - 1 / chains)  # as in `weighed`
    return Annealed(_log_mean(log_w), variance.sqrt(), ess)


@torch.no_grad()
def bidirectional(vae: VAE, labels: Tensor, chains: int, steps: int) -> Bounds:
    """Bounds on log p(x) of one image for each of labels (n,), drawn from the model itself (Grosse et al., 2015).

    The z that an image was drawn from is an exact draw of p(z|x). From there a chain leads back to the prior by the
    same moves, and such a path has w / p(x) times the density of a path onwards. Take k paths, of which one, by chance
    any, leads back: together they have (1/k) Σ w / p(x) times the density of k paths onwards. So the mean of
    log (1/k) Σ w lies below log p(x) where all lead onwards and above it where one leads back, each time by a
    Kullback-Leibler divergence (Sobolev and Vetrov, 2019; with k = 1 Grosse et al.). The other k − 1 can be the same.

    Images are what p(x|z) draws, binary under a Bernoulli and noisy under a Gaussian: for the data's own, which may be
    grey, the gap is one by analogy.
    """
    lower, upper = [], []
    with evaluating(vae):
        pixels = vae.decode(vae.p(labels[:1]).sample(torch.Size([1])), labels[:1]).event_shape.numel()
        portions = _portions(len(labels), chains, pixels)
        with bar_of_long("annealing both ways", len(portions) * (PLANNED + 2 * (steps - 1))) as progress:
            for start, end in portions:
                given = labels[start:end]
                p = vae.p(given)
                exact = p.sample(torch.Size([end - start]))
                at = points(vae, p, vae.decode(exact, given).sample(), given)
                # Knows nothing of `exact`, else that would be no draw from p(z|x) given the plan.
                plan = planned(at, p, end - start, steps, progress)
                onwards = log_weights(at, p.sample(torch.Size([chains, end - start])), plan, progress=progress)
                back = log_weights(at, exact[None], plan, back=True, progress=progress)
                lower.append(_log_mean(onwards))
                upper.append(_log_mean(torch.cat([back, onwards[1:]])))
    return Bounds(torch.cat(lower), torch.cat(upper))


def _portions(n: int, chains: int, pixels: int) -> list[tuple[int, int]]:
    """Starts and ends of portions of n images; the chains of a portion run at once."""
    at_once = max(1, DECODED // (max(chains, PLANNERS) * pixels))
    return [(start, min(start + at_once, n)) for start in range(0, n, at_once)]


def _log_mean(log_w: Tensor) -> Tensor:
    return log_w.logsumexp(0) - math.log(len(log_w))


def points(vae: VAE, p: Distribution, x: Tensor, labels: Tensor) -> At:
    """Make points for images (n, channels, height, width) with labels (n,)."""

    def at(z: Tensor) -> Point:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_prior, log_likelihood = p.log_prob(z), vae.decode(z, labels).log_prob(x)
            # Not `backward`, which would leave gradients at the model's weights, too.
            slopes = [torch.autograd.grad(log_p.sum(), z)[0] for log_p in (log_prior, log_likelihood)]
        return Point(z.detach(), log_prior.detach(), log_likelihood.detach(), *slopes)

    return at


def log_weights(at: At, z: Tensor, plan: Plan, back: bool = False, progress: Bar = NO_BAR) -> Tensor:
    """log w of chains from z (k, n, latent_dim) at the prior to the posterior, or back; (k, n), float64 on the CPU."""
    rises = plan.t.diff(dim=0)  # (steps, n)
    rises = rises.flip(0) if back else rises
    moves = range(1, len(rises))  # none at the first temperature and the last
    t = plan.t.to(z)
    point = at(z)
    log_w = rises[0] * _double(point.log_likelihood)
    for step, rise in zip(reversed(moves) if back else moves, rises[1:], strict=True):
        point, _ = moved(at, point, t[step], plan.size(step))
        log_w += rise * _double(point.log_likelihood)
        progress.update()
    return log_w


def planned(at: At, p: Distribution, n: int, steps: int, progress: Bar = NO_BAR) -> Plan:
    """A plan for chains of n images, made in a run of its own.

    A plan that adapted to the chains it moves would change their distribution, and neither bound would be a bound.
    Temperatures lie closest where the spread of log p(x|z) is largest: ∫ spread dt is the same between any two,
    which makes the weights' variance least (Gelman and Meng, 1998).
    """
    t = torch.linspace(-STEEPNESS, STEEPNESS, PLANNED + 1, dtype=torch.float64).sigmoid()
    t = (t - t[0]) / (t[-1] - t[0])
    point = at(p.sample(torch.Size([PLANNERS, n])))
    log_size = torch.full_like(point.log_prior[0], math.log(START))
    spreads, sizes, scales = [_double(point.log_likelihood).std(0)], [], []
    for t_now in t[1:].to(point.z):
        scales.append(point.z.var(0).mean(0).sqrt())  # of one image's latents, in the mean over images
        point, acceptance = moved(at, point, t_now.expand(n), log_size.exp().unsqueeze(-1) * scales[-1])
        log_size = log_size + RATE * (acceptance.mean(0) - ACCEPTED)
        sizes.append(log_size.exp())
        spreads.append(_double(point.log_likelihood).std(0))
        progress.update()
    spread = torch.stack(spreads) + 1e-6  # a decoder may make the same of all latents
    length = torch.cumulative_trapezoid(spread, t, dim=0)  # (PLANNED, n)
    measured = torch.cat([torch.zeros_like(length[:1]), length / length[-1]])
    curve = MEASURED * measured + (1 - MEASURED) * torch.linspace(0, 1, len(t), dtype=t.dtype).unsqueeze(-1)
    # The plan's t are where the curve reaches even heights.
    heights = torch.linspace(0, 1, steps + 1, dtype=t.dtype)
    found = torch.searchsorted(curve.T.contiguous(), heights.expand(n, -1).contiguous()).T.clamp(1, PLANNED)
    low, high = curve.gather(0, found - 1), curve.gather(0, found)
    between = torch.lerp(t[found - 1], t[found], (heights.unsqueeze(-1) - low) / (high - low))
    return Plan(between, (found - 1).to(point.z.device), torch.stack(sizes), torch.stack(scales))


def moved(at: At, point: Point, t: Tensor, size: Tensor) -> tuple[Point, Tensor]:
    """The point after a Hamiltonian move that leaves p(z) p(x|z)^t as it is, and how likely it was (k, n) (Neal, 2011).

    `size` (n, latent_dim) is that of a step in each dimension, at temperatures t (n,).
    """
    jitter = 1 + JITTER * (2 * torch.rand_like(point.log_prior) - 1)
    momentum = torch.randn_like(point.z)
    end, last = leapfrog(at, point, momentum, t, size * jitter.unsqueeze(-1))
    change = end.log_density(t) - point.log_density(t) + 0.5 * (momentum.square() - last.square()).sum(-1)
    accepted = torch.rand_like(change).log() < change  # not where a path went astray to NaN
    pairs = zip(end, point, strict=True)
    kept = [torch.where(accepted if new.dim() == 2 else accepted.unsqueeze(-1), new, old) for new, old in pairs]
    return Point(*kept), change.exp().clamp(max=1).nan_to_num(0)


def leapfrog(at: At, point: Point, momentum: Tensor, t: Tensor, size: Tensor) -> tuple[Point, Tensor]:
    """Where `LEAPS` steps lead: a map that keeps volumes, and leads back with the momentum turned (Neal, 2011)."""
    momentum = momentum + 0.5 * size * point.slope(t)
    for leap in range(LEAPS):
        point = at(point.z + size * momentum)
        momentum = momentum + (0.5 if leap == LEAPS - 1 else 1.0) * size * point.slope(t)
    return point, momentum


def _double(values: Tensor) -> Tensor:
    return doubles(values)
