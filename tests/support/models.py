"""Models of every kind, small; and linear-Gaussian ones, of which everything is known in closed form."""

import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal

from vae.model.backbones import Backbone, Conv, Dense
from vae.model.distributions import DiagonalNormal, FullNormal
from vae.model.levels import Latent, Level
from vae.model.likelihoods import Bernoulli, ContinuousBernoulli, Gaussian, Likelihood
from vae.model.posteriors import Diagonal, Full, Posterior, Tied
from vae.model.priors import Correlated, Flow, Isotropic, Learned, Mixture, Prior, Vamp
from vae.model.resnet import Resnet
from vae.model.vae import VAE, Terms

SHAPE, PIXELS, N = (2, 1, 3), 6, 2

NOISE = 0.6  # standard deviation of p(x|z)

M = TypeVar("M", bound=nn.Module)


def terms(recon: Tensor, kl: Any = None, z: Any = None, q: Any = None, p: Any = None, p_x: Any = None) -> Terms:
    """Of one level, as far as a test needs them."""
    return Terms(recon, (Latent(z, kl, q, p),), p_x)


class Linear(Backbone):
    """x ↦ x as features, z ↦ W z + b as image parameters."""

    decoder: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        self.features = PIXELS
        self.encoder = nn.Flatten()
        self.decoder = nn.Sequential(nn.Linear(N, PIXELS), nn.Unflatten(1, SHAPE))


class Unbounded(Likelihood):
    """N(params, NOISE²)."""

    def forward(self, params: Tensor) -> Independent:
        return Independent(Normal(params, NOISE), 3)


class Exact(Posterior):
    """p(z|x) = N(S Wᵀ (x − b) / NOISE², S) with S = (Σ⁻¹ + WᵀW / NOISE²)⁻¹."""

    def __init__(self, w: Tensor, b: Tensor, sigma: Tensor):
        super().__init__()
        self.b = b
        self.covariance = (sigma.inverse() + w.T @ w / NOISE**2).inverse()
        self.map = self.covariance @ w.T / NOISE**2

    def q(self, features: Tensor, prior: object) -> FullNormal:
        factor = torch.linalg.cholesky(self.covariance).expand(len(features), N, N)
        return FullNormal((features - self.b) @ self.map.T, factor)


PRIORS: dict[str, Callable[[], Prior]] = {
    "isotropic": lambda: Isotropic(N),
    "correlated": lambda: Correlated(N, [[2.0, -0.7], [-0.7, 1.5]]),
}

POSTERIORS: dict[str, Callable[..., Posterior]] = {"diagonal": Diagonal, "tied": Tied, "full": Full}


def vamp(n: int, posterior: type = Diagonal, init: str = "random", components: int = 3) -> Vamp:
    backbone = Dense(SHAPE, n, hidden=[16, 8])
    prior = Vamp(n, components=components, init=init)
    VAE(backbone, [Level(prior, posterior(backbone.features, n), n)], Bernoulli())
    return prior


LATENTS = list(itertools.product(PRIORS, POSTERIORS))


def linear_gaussian(prior: str, posterior: str) -> tuple[VAE, Tensor, Tensor]:
    """A random model, one image, and log p(x) of that image."""
    backbone, p_z = Linear().double(), PRIORS[prior]().double()
    sigma = p_z().covariance_matrix
    w, b = (weight.detach() for weight in backbone.decoder[0].parameters())
    q = Exact(w, b, sigma) if posterior == "exact" else POSTERIORS[posterior](PIXELS, N)
    vae = VAE(backbone, [Level(p_z, q.double(), N)], Unbounded())
    marginal = MultivariateNormal(b, w @ sigma @ w.T + NOISE**2 * torch.eye(PIXELS, dtype=torch.float64))
    x = marginal.sample()
    return vae, x.view(1, *SHAPE), marginal.log_prob(x)


def affine(vae: VAE) -> tuple[nn.Parameter, nn.Parameter]:
    """W and b of a linear model."""
    assert isinstance(vae.backbone, Linear)
    w, b = vae.backbone.decoder[0].parameters()
    return w, b


def exact_elbo(vae: VAE, x: Tensor) -> Tensor:
    """E_q[log p(x|z)] − KL(q ‖ p) of one image, by formulas that share nothing with the model's."""
    q, p = vae.encode(x), vae.prior()
    w, b = affine(vae)
    assert isinstance(q, DiagonalNormal | FullNormal)
    mean, cov = q.mean[0], q.covariance_matrix[0]
    inside = Normal(w @ mean + b, NOISE).log_prob(x.flatten()).sum() - (w @ cov @ w.T).trace() / (2 * NOISE**2)
    reference = MultivariateNormal(torch.zeros(N, dtype=torch.float64), p.covariance_matrix)
    return inside - torch.distributions.kl_divergence(MultivariateNormal(mean, cov), reference)


def linear_exact(vae: VAE) -> Exact:
    w, b = (weight.detach() for weight in affine(vae))
    return Exact(w, b, vae.prior().covariance_matrix)


LIKELIHOODS: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": Bernoulli,
    "gaussian": lambda: Gaussian(0.3),
    "learned": lambda: Gaussian("learned"),
    "optimal": lambda: Gaussian("optimal"),
    "continuous": ContinuousBernoulli,
}

MORE_PRIORS: dict[str, Callable[[], Prior]] = {
    "learned": lambda: Learned(N),
    "mixture": lambda: Mixture(N, components=3, covariance="full"),
    "vamp": lambda: Vamp(N, components=3, init="images"),
    "flow": lambda: Flow(N, kind="nsf", layers=2, hidden=[8]),
}


@torch.no_grad()
def awake(network: M) -> M:
    """The same a little later: what starts at zero hides the layers before it from the first gradient."""
    for weight in network.parameters():
        if not weight.any():
            weight.normal_(std=0.1)
    return network


BACKBONES: dict[str, Callable[..., Backbone]] = {
    "dense": lambda shape: Dense(shape, N, hidden=[32, 16]),
    "conv": lambda shape: Conv(shape, N, channels=[8, 8], hidden=16),
    "resnet": lambda shape: awake(Resnet(shape, N, channels=[8, 16], depth=1, groups=4, attention=[4])),
}
LADDERS: dict[str, Callable[..., Backbone]] = {  # of several levels
    "two vectors": lambda shape: Dense(shape, N, hidden=[32, 16], gated=True, below=[5]),
    "maps": lambda shape: awake(Resnet(shape, N, [8, 16], 1, None, [], gated=True, below=[[4, 3], [4, 2], [8, 1]])),
}

IMAGES = (3, 9, 8)


def made(backbone: str, prior: str, posterior: str, likelihood: str) -> VAE:
    body = (BACKBONES | LADDERS)[backbone](IMAGES)
    p, q = (PRIORS | MORE_PRIORS)[prior](), POSTERIORS[posterior](body.features, N)
    top, *below = body.levels(p, q, N)
    vae = VAE(body, [top, *map(awake, below)], LIKELIHOODS[likelihood]())
    awake(top.onward or nn.Identity())
    vae.start_at(torch.rand(6, *IMAGES), torch.zeros(6).long())
    return vae
