"""Priors p(z): modules whose `forward` returns the distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily

from vae.model.distributions import CholeskyFactor, DiagonalNormal, FullNormal, StandardNormal
from vae.model.part import Part

if TYPE_CHECKING:
    from vae.model.vae import VAE


LEAST_VARIANCE = 1e-6  # of a density that is fitted to points


class Prior(Part):
    """Base."""

    def forward(self, state: Tensor | None = None) -> Distribution:
        """The prior, with event shape (latent_dim,), given what the levels above have made; the top one's has none."""
        raise NotImplementedError

    def fit(self, z: Tensor) -> None:
        """Become the density that these z (n, latent_dim) are most likely under."""
        raise NotImplementedError


class Isotropic(Prior):
    """N(0, I)."""

    loc: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int):
        super().__init__()
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("scale", torch.ones(latent_dim), persistent=False)

    def forward(self, state: Tensor | None = None) -> StandardNormal:
        """The prior, with event shape (latent_dim,)."""
        return StandardNormal(self.loc, self.scale)


class Correlated(Prior):
    """N(0, Σ), Σ any covariance matrix; without one `default_covariance(latent_dim)`."""

    loc: Tensor
    scale_tril: Tensor

    def __init__(self, latent_dim: int, covariance: Sequence[Sequence[float]] | None = None):
        super().__init__()
        sigma = default_covariance(latent_dim) if covariance is None else torch.tensor(covariance, dtype=torch.float64)
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        factor = torch.linalg.cholesky(sigma).to(torch.get_default_dtype())  # in double: Σ may be near singular
        self.register_buffer("scale_tril", factor, persistent=False)

    def forward(self, state: Tensor | None = None) -> FullNormal:
        """The prior, with event shape (latent_dim,)."""
        return FullNormal(self.loc, self.scale_tril)


class Learned(Prior):
    """N(m, LLᵀ) with m and L trained with the model, from N(0, I) on."""

    def __init__(self, latent_dim: int):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(latent_dim))
        self.factor = nn.Parameter(torch.zeros(CholeskyFactor.numbers(latent_dim)))

    @torch.no_grad()
    def fit(self, z: Tensor) -> None:
        """Have their mean and covariance."""
        doubles = z.cpu().double()
        floor = LEAST_VARIANCE * torch.eye(z.shape[1], dtype=doubles.dtype)
        covariance = doubles.T.cov(correction=0).view(floor.shape) + floor
        self.loc.copy_(doubles.mean(0))
        self.factor.copy_(CholeskyFactor.free(torch.linalg.cholesky(covariance)))

    def forward(self, state: Tensor | None = None) -> FullNormal:
        """The prior, with event shape (latent_dim,)."""
        return FullNormal(self.loc, CholeskyFactor.of(self.factor))


class Mixture(Prior):
    """Σₖ wₖ N(mₖ, Σₖ) with everything learned; Σₖ full or diagonal (Dilokthanakul et al., 2016)."""

    def __init__(self, latent_dim: int, components: int, covariance: str):
        super().__init__()
        full = covariance == "full"
        self.logits = nn.Parameter(torch.zeros(components))
        # Components that begin apart find work of their own; a single one begins as N(0, I).
        self.loc = nn.Parameter(torch.randn(components, latent_dim) * (components > 1))
        self.factor = nn.Parameter(torch.zeros(components, CholeskyFactor.numbers(latent_dim) if full else latent_dim))
        self.full = full

    @torch.no_grad()
    def fit(self, z: Tensor) -> None:
        """Begin with k-means' clusters, and go on by expectation maximisation."""
        from sklearn.mixture import GaussianMixture

        count, kind = len(self.logits), "full" if self.full else "diag"
        if count > len(z):
            raise ValueError(
                f"prior.components={count}: must be at most {len(z)}, the codes that the prior is fitted to"
            )
        found = GaussianMixture(count, covariance_type=kind, reg_covar=LEAST_VARIANCE, random_state=0)
        found.fit(z.cpu().double().numpy())
        weights, means, spreads = (
            torch.from_numpy(each) for each in (found.weights_, found.means_, found.covariances_)
        )
        self.logits.copy_(weights.log())
        self.loc.copy_(means)
        self.factor.copy_(CholeskyFactor.free(torch.linalg.cholesky(spreads)) if self.full else 0.5 * spreads.log())

    def forward(self, state: Tensor | None = None) -> MixtureSameFamily:
        """The prior, with event shape (latent_dim,)."""
        components: Distribution
        if self.full:
            components = FullNormal(self.loc, CholeskyFactor.of(self.factor))
        else:
            components = DiagonalNormal(self.loc, self.factor.exp())
        return mixture(self.logits, components)


class Vamp(Prior):
    """(1/K) Σₖ q(z|uₖ): a mixture of the posteriors of K learned pseudo-inputs (Tomczak and Welling, 2018).

    Pseudo-inputs start as training images, which `start_at` provides, or at random; in a conditional model each keeps
    the class that it started with.
    """

    labels: Tensor

    def __init__(self, latent_dim: int, components: int, init: str):
        super().__init__()
        self.components = components
        self.from_images = init == "images"

    def attach(self, model: VAE) -> None:
        backbone = model.backbone
        self._encoder = (backbone, model.posterior)  # a tuple, or they would become parts of the prior, too
        self.logits = nn.Parameter(torch.randn(self.components, *backbone.shape))  # sigmoid makes images of them
        labels = torch.arange(self.components) % max(1, backbone.classes)
        self.register_buffer("labels", labels, persistent=backbone.classes > 0)

    @torch.no_grad()
    def start_at(self, images: Tensor, labels: Tensor, lr: float) -> None:
        """Let training begin with the first of the images as pseudo-inputs."""
        if self.from_images:
            chosen = torch.arange(self.components) % len(images)
            self.logits.copy_(images[chosen].logit(eps=0.01))
            self.labels.copy_(labels[chosen])

    def forward(self, state: Tensor | None = None) -> MixtureSameFamily:
        """The prior, with event shape (latent_dim,)."""
        backbone, posterior = self._encoder
        features, *_ = backbone.encode(self.logits.sigmoid(), self.labels)
        q = posterior.q(features, None)
        return mixture(self.logits.new_zeros(self.components), q)


class Flow(Prior):
    """A normalising flow over N(0, I) (Rezende and Mohamed, 2015), from the library zuko; no layers: N(0, I)."""

    zero: Tensor

    def __init__(self, latent_dim: int, kind: str, layers: int, hidden: Sequence[int]):
        super().__init__()
        import zuko  # of all that this package can do, only this needs it

        make = {"nsf": zuko.flows.NSF, "maf": zuko.flows.MAF}[kind]
        self.flow = make(latent_dim, transforms=layers, hidden_features=tuple(hidden)) if layers else None
        self.register_buffer("zero", torch.zeros(latent_dim), persistent=False)

    def forward(self, state: Tensor | None = None) -> Distribution:
        """The prior, with event shape (latent_dim,)."""
        return StandardNormal(self.zero, torch.ones_like(self.zero)) if self.flow is None else self.flow()


def mixture(logits: Tensor, components: Distribution) -> MixtureSameFamily:
    """Σₖ wₖ pₖ with w the softmax of logits (K,), and the components a batch (K,) with event shape (latent_dim,)."""
    return MixtureSameFamily(Categorical(logits=logits, validate_args=False), components, validate_args=False)


def default_covariance(latent_dim: int) -> Tensor:
    """Σᵢⱼ = ρ^|i−j| √(vᵢ vⱼ), ρ = 0.4/√0.5, variances falling geometrically from 1 to ½; float64.

    At latent_dim 2 this is [[1.0, 0.4], [0.4, 0.5]]. Positive definite for every latent_dim, being an AR(1)
    correlation matrix scaled by standard deviations.
    """
    scale = torch.logspace(0, -0.5, latent_dim, base=2, dtype=torch.float64)  # √vᵢ: 1 … √½
    index = torch.arange(latent_dim, dtype=torch.float64)  # a power of integers would be in single precision
    rho = 0.4 / 0.5**0.5
    return rho ** (index[:, None] - index).abs() * torch.outer(scale, scale)
