"""The numbers of docs/theory.md: toys with a known truth, and what this program finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vae.model.backbones import Backbone
from vae.model.distributions import DiagonalNormal, kl
from vae.model.levels import Level
from vae.model.likelihoods import Likelihood
from vae.model.posteriors import Posterior
from vae.model.priors import Isotropic
from vae.model.vae import VAE


class Known(Backbone):
    """A given decoder (batch, latent_dim) → (batch, channels, height, width); the encoder hands the pixels on."""

    def __init__(self, decoder: nn.Module):
        super().__init__()
        self.encoder = nn.Flatten()
        self.decoder = decoder


class Given(Posterior):
    """A given posterior, whatever the image."""

    def __init__(self, q: Distribution):
        super().__init__()
        self.given = q

    def q(self, features: Tensor, prior: Distribution | None) -> Distribution:
        """The given one."""
        return self.given


class Noisy(Likelihood):
    """N(params, noise²): as `vae.model.likelihoods.Gaussian`, but of images that know no bounds."""

    def __init__(self, noise: float):
        super().__init__()
        self.sigma = noise

    def forward(self, params: Tensor) -> Independent:
        """(batch, channels, height, width) → p(x|z)."""
        return Independent(Normal(params, self.sigma), 3)


class Curve(nn.Module):
    """z ↦ (z², tilt · z), (batch, 1) → (batch, 1, 1, 2): z and −z are hard to tell apart."""

    def __init__(self, tilt: float):
        super().__init__()
        self.tilt = nn.Parameter(torch.tensor(tilt, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        """Image parameters of latents."""
        return torch.cat([z.square(), self.tilt * z], 1)[:, None, None]


class Bent(nn.Module):
    """A level's prior by the number z above it, (…, 1) → (…, 4): mean (z, ½ z² − 1), log σ of −1.2 and −0.9."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([z, 0.5 * z.square() - 1, torch.full_like(z, -1.2), torch.full_like(z, -0.9)], -1)


class Constant(nn.Module):
    """The same numbers (n,) whatever it reads, (…, size) → (…, n)."""

    def __init__(self, numbers: Sequence[float]):
        super().__init__()
        self.numbers = numbers

    def forward(self, values: Tensor) -> Tensor:
        return values.new_tensor(self.numbers).expand(*values.shape[:-1], -1)


def rounded_logistics(
    weights: Sequence[float], middles: Sequence[float], scales: Sequence[float], levels: int
) -> Tensor:
    """Probabilities (levels,) of a mixture rounded to 0, 1, …; what lies beyond the ends counts to them."""
    level = torch.arange(levels, dtype=torch.float64).unsqueeze(1)
    weight, middle, scale = torch.tensor([weights, middles, scales], dtype=torch.float64)
    up, down = (((level + half - middle) / scale).sigmoid() for half in (0.5, -0.5))
    cut = torch.where(level < levels - 1, up, 1.0) - torch.where(level > 0, down, 0.0)  # (levels, logistics)
    return cut @ weight


class LinearToy(NamedTuple):
    """A linear-Gaussian model with one of its images, and the truth about it."""

    vae: VAE
    x: Tensor  # (1, 1, 1, pixels)
    q: DiagonalNormal  # its posterior, the best diagonal one
    log_p: float  # log p(x) = log N(x; 0, WWᵀ + noise² I)


def linear_toy(latent_dim: int, pixels: int, noise: float) -> LinearToy:
    """x = Wz + noise · ε with W and z drawn from N(0, I); p(z|x) = N(S Wᵀx / noise², S), S⁻¹ = I + WᵀW / noise²."""
    linear = nn.Linear(latent_dim, pixels, bias=False, dtype=torch.float64)
    nn.init.normal_(linear.weight)
    w = linear.weight.detach()
    x = w @ torch.randn(latent_dim, dtype=w.dtype) + noise * torch.randn(pixels, dtype=w.dtype)
    precision = torch.eye(latent_dim, dtype=w.dtype) + w.T @ w / noise**2
    mean = torch.linalg.solve(precision, w.T @ x / noise**2)
    q = DiagonalNormal(mean[None], precision.diagonal().rsqrt()[None])
    decoder = nn.Sequential(linear, nn.Unflatten(1, (1, 1, pixels)))
    vae = VAE(Known(decoder), [Level(Isotropic(latent_dim).double(), Given(q), latent_dim)], Noisy(noise))
    # |WWᵀ + noise² I| = noise^(2 pixels) |S⁻¹|, and xᵀ(…)⁻¹x = (‖x‖² − meanᵀWᵀx) / noise².
    distance = (x @ x - mean @ (w.T @ x)) / noise**2
    log_p = -0.5 * (distance + precision.logdet() + pixels * math.log(2 * math.pi * noise**2))
    return LinearToy(vae, x.view(1, 1, 1, -1), q, log_p.item())


class Gradients(NamedTuple):
    """Estimates of one number of a gradient from one draw each, (draws,)."""

    score: Tensor  # f(z) ∂ log q(z) / ∂μ
    pathwise: Tensor  # ∂ f(μ + σε) / ∂μ


def gradients(latent_dim: int, scale: float, draws: int) -> Gradients:
    """Two estimates of ∂/∂μ₀ E[f(z)], f(z) = ½ ‖z‖², at μ = 0 for z ~ N(μ, scale² I).

    Both have the mean 0. Their variances are scale² (n + 2)(n + 4) / 4 in n dimensions, and scale².
    """
    loc = torch.zeros(draws, latent_dim, dtype=torch.float64, requires_grad=True)  # each draw has a mean of its own
    q = DiagonalNormal(loc, torch.full_like(loc, scale, requires_grad=False))
    z = q.rsample()
    (pathwise,) = torch.autograd.grad(0.5 * z.square().sum(), loc)
    drawn = z.detach()
    cost = 0.5 * drawn.square().sum(-1)
    (score,) = torch.autograd.grad((cost * q.log_prob(drawn)).sum(), loc)
    return Gradients(score[:, 0], pathwise[:, 0])


def water_filling(variances: Tensor, noise: float, beta: float) -> Tensor:
    """½ log (λ / β noise²), or 0 where λ ≤ β noise²: nats that the best linear β-VAE spends on each component.

    `variances` λ (n,) are those of the data's principal components; the decoder's noise is fixed.
    """
    return 0.5 * (variances / (beta * noise**2)).log().clamp(min=0)


def linear_optimum(variances: Tensor, noise: float, beta: float) -> Tensor:
    """The same, (n,) and falling, found by minimising recon + β kl over all linear encoders and decoders.

    q(z|x) = N(Vx, diag s²) and p(x|z) = N(Wz, noise² I), for data of covariance diag λ.
    """
    n = len(variances)
    x = (n * variances).sqrt().diag()  # these n images have that covariance around 0, and no more of them is asked
    encoder, decoder = (torch.randn(n, n, dtype=x.dtype).requires_grad_() for _ in range(2))
    log_scale = torch.zeros(n, dtype=x.dtype, requires_grad=True)
    prior = DiagonalNormal(torch.zeros(n, dtype=x.dtype), torch.ones(n, dtype=x.dtype))
    free = [encoder, decoder, log_scale]
    optimizer = torch.optim.LBFGS(
        free, max_iter=300, tolerance_grad=1e-6, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def posterior() -> DiagonalNormal:
        return DiagonalNormal(x @ encoder.T, log_scale.exp().expand(n, n))

    def loss() -> Tensor:
        optimizer.zero_grad()
        q = posterior()
        # E_q ‖x − Wz‖² is that at the mean and what the noise of z adds.
        squares = (x - q.loc @ decoder.T).square().sum(-1) + (q.variance @ decoder.T.square()).sum(-1)
        value = (squares / (2 * noise**2) + beta * kl(q, prior, q.loc)).mean()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return kl(posterior().base_dist, prior.base_dist, x).mean(0).sort(descending=True).values


# Divergences ----------------------------------------------------------------------------------------------------------

Divergence = Callable[[Tensor, Tensor, Tensor], Tensor]  # of densities (…, points) and (points,) at evenly spaced z


def two_modes(z: Tensor) -> Tensor:
    """A narrow mode with more of the mass and a wide one with less."""
    return 0.6 * _normal(z, -1.5, 0.5) + 0.4 * _normal(z, 1.8, 0.9)


def _normal(z: Tensor, mean: Tensor | float, deviation: Tensor | float) -> Tensor:
    return torch.exp(-0.5 * ((z - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))


def nearest_normal(z: Tensor, p: Tensor, divergence: Divergence) -> tuple[float, float]:
    """Mean and deviation of the Gaussian q of least divergence from p, by search on a grid."""
    deviations = torch.logspace(-1, 0.6, 81, dtype=z.dtype)
    best = (math.inf, 0.0, 0.0)
    for mean in torch.linspace(-3, 3, 121, dtype=z.dtype):
        found = divergence(_normal(z, mean, deviations[:, None]), p, z)
        place = int(found.argmin())
        best = min(best, (found[place].item(), mean.item(), deviations[place].item()))
    return best[1:]


def _sum(values: Tensor, z: Tensor) -> Tensor:
    return values.sum(-1) * (z[1] - z[0])


def kl_of(q: Tensor, p: Tensor, z: Tensor) -> Tensor:
    """KL(q ‖ p)."""
    return _sum(torch.special.xlogy(q, q) - q * p.clamp(min=1e-300).log(), z)


def renyi_of(order: float) -> Divergence:
    """1/(α − 1) log ∫ q^α p^(1−α), α the order."""
    return lambda q, p, z: _sum(q**order * p ** (1 - order), z).log() / (order - 1)


def jensen_shannon(q: Tensor, p: Tensor, z: Tensor) -> Tensor:
    """½ KL(q ‖ m) + ½ KL(p ‖ m) with m = ½ (q + p): log 2 less half of the best critic's loss."""
    m = 0.5 * (q + p)
    return 0.5 * (kl_of(q, m, z) + kl_of(p, m, z))


def wasserstein_of(q: Tensor, p: Tensor, z: Tensor) -> Tensor:
    """W₂², from the quantiles."""
    levels = torch.linspace(0.0005, 0.9995, 1000, dtype=z.dtype)

    def quantiles(density: Tensor) -> Tensor:
        shares = density.cumsum(-1) * (z[1] - z[0])
        return z[torch.searchsorted(shares, levels.expand(*shares.shape[:-1], -1).contiguous()).clamp(max=len(z) - 1)]

    return (quantiles(q) - quantiles(p)).square().mean(-1)


def mmd_of(q: Tensor, p: Tensor, z: Tensor) -> Tensor:
    """MMD² with the kernel 1/(1 + (a − b)²)."""
    kernel = 1 / (1 + (z[:, None] - z).square())
    return _sum((q - p) * ((q - p) @ kernel) * (z[1] - z[0]), z)


DIVERGENCES: tuple[tuple[str, Divergence], ...] = (
    ("KL(q ‖ p): elbo", kl_of),
    ("Rényi, α = ½: renyi", renyi_of(0.5)),
    ("KL(p ‖ q): maximum likelihood", lambda q, p, z: kl_of(p, q, z)),
    ("Jensen–Shannon: a critic", jensen_shannon),
    ("W₂: wasserstein", wasserstein_of),
    ("MMD: mmd", mmd_of),
)
