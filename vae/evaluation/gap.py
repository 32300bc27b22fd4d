"""The gap between log p(x) and the ELBO: the part of the posterior's family, and that of the encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import MixtureSameFamily

from vae.common.terminal import bar_of_long
from vae.evaluation.likelihood import weighed
from vae.model.distributions import CholeskyFactor, DiagonalNormal, FullNormal, gaussian, kl, parameters
from vae.model.posteriors import Tied
from vae.model.priors import mixture
from vae.model.vae import VAE, evaluating, only

Normals = DiagonalNormal | FullNormal

DRAWS = 4  # of z for each image and step
RATE = 0.1  # of the first step, in standard deviations of the amortised posterior


class Gap(NamedTuple):
    """log p(x) − ELBO = approximation + amortisation, of n images; (n,) each, float64 on the CPU, nats."""

    log_p: Tensor  # by importance sampling
    error: Tensor  # standard error of log_p
    best_elbo: Tensor  # of the best q of the family for each image alone
    elbo: Tensor  # of the encoder's q

    @property
    def approximation(self) -> Tensor:
        """log p(x) − best ELBO: what the family of the posterior cannot reach."""
        return self.log_p - self.best_elbo

    @property
    def amortisation(self) -> Tensor:
        """Best ELBO − ELBO: what the encoder, which serves all images, misses of it."""
        return self.best_elbo - self.elbo


def inference_gap(vae: VAE, images: Tensor, labels: Tensor, samples: int, steps: int) -> Gap:
    """The two gaps of images (n, channels, height, width) with labels (n,) (Cremer et al., 2018).

    The best q comes from `steps` of Adam on −ELBO that begin at the encoder's; too few of them count as approximation
    what is amortisation. Both ELBOs are means of log p(x, z) / q(z) over `samples` draws by the same noise: an estimate
    that becomes exact as q nears the posterior. Around the best q log p(x) is estimated, too: by draws of the encoder's
    it may come out below the best ELBO.
    """
    x = images.to(next(vae.parameters()).dtype)
    only(vae.levels)
    with evaluating(vae):
        with torch.no_grad():
            p, amortised = vae.prior(), vae.encode(x, labels)
        if not isinstance(amortised, Normals):
            raise ValueError(f"{type(amortised).__name__}: must be a Gaussian, in whose family the best can be sought")
        free, member = family(vae.posterior, amortised)
        optimizer = torch.optim.Adam([free], lr=RATE)
        with bar_of_long("best posteriors", steps) as progress:
            for step in range(steps):
                optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)  # in the end the noise has to average out
                q = member(free)
                z = q.rsample(torch.Size([DRAWS]))
                elbo = vae.decode(z, labels).log_prob(x) - kl(q, p, z)  # (DRAWS, n)
                # Not `backward`, which would leave gradients at the model's weights, too.
                (free.grad,) = torch.autograd.grad(-elbo.mean(0).sum(), free)
                optimizer.step()
                progress.update()
        with torch.no_grad(), bar_of_long("log p(x) around them", 3 * samples) as progress:
            q = member(free)
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                best = weighed(vae, x, labels, q, p, samples, progress)
            own = weighed(vae, x, labels, amortised, p, samples, progress)  # by the same noise
            evidence = weighed(vae, x, labels, _with_tails(q), p, samples, progress)
    return Gap(evidence.log_p, evidence.error, best.elbo, own.elbo)


def family(posterior: nn.Module, q: Normals) -> tuple[Tensor, Callable[[Tensor], Normals]]:
    """Free numbers (n, …), and how the members of the posterior's family are made of them; at zero they are q (n).

    They count in q's own standard deviations, so that steps of one size suit every image, however narrow its
    posterior. Diagonal: N(μ + σ a, (σ eᵇ)²). Full: N(μ + L a, L B (L B)ᵀ) with B triangular. Tied, which keeps its
    correlations: N(μ + L a, D L (D L)ᵀ) with D = diag eᵇ.
    """
    n = q.loc.shape[-1]
    full = isinstance(q, FullNormal) and not isinstance(posterior, Tied)

    def member(free: Tensor) -> Normals:
        shift, scales = free[:, :n], free[:, n:]
        if isinstance(q, DiagonalNormal):
            return DiagonalNormal(q.loc + q.scale * shift, q.scale * scales.exp())
        loc = q.loc + (q.scale_tril @ shift.unsqueeze(-1)).squeeze(-1)
        if full:
            return FullNormal(loc, q.scale_tril @ CholeskyFactor.of(scales))
        return FullNormal(loc, q.scale_tril * scales.exp().unsqueeze(-1))

    return q.loc.new_zeros(len(q.loc), n + (CholeskyFactor.numbers(n) if full else n)).requires_grad_(), member


def _with_tails(q: Normals) -> MixtureSameFamily:
    """½ q + ½ q with twice its scales: the best q is too narrow where the posterior has correlations that it has not.

    Weights p(x, z) / q(z) then have no variance, and no number of draws is enough.
    """
    loc, scale = parameters(q)
    both = gaussian(torch.stack([loc, loc], 1), torch.stack([scale, 2 * scale], 1))  # batch shape (n, 2)
    return mixture(loc.new_zeros(both.batch_shape), both)
