"""The models that the page must run, small and with random weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from vae.model.backbones import Conv, Dense
from vae.model.levels import Level
from vae.model.likelihoods import Bernoulli, ContinuousBernoulli, Gaussian, Likelihood
from vae.model.posteriors import Diagonal, Full, Tied
from vae.model.priors import Correlated, Isotropic, Learned, Prior, Vamp
from vae.model.vae import VAE

CLASSES = ("a", "b", "</script>")


class Setup(NamedTuple):
    shape: tuple[int, int, int] = (1, 10, 12)
    latent_dim: int = 2
    backbone: type[Dense] | type[Conv] = Dense
    conditional: bool = False
    prior: Callable[..., Prior] = Isotropic
    posterior: type[Diagonal] | type[Full] = Diagonal
    gated: bool = False
    likelihood: Likelihood = Bernoulli()


MODELS = {
    "dense": Setup(),
    "gated": Setup(gated=True),
    "conv": Setup((1, 10, 13), backbone=Conv),
    "conv in colour": Setup((3, 20, 28), 5, Conv, prior=Correlated, posterior=Full),
    "conditional dense": Setup(conditional=True, prior=Correlated, posterior=Tied),
    "conditional conv": Setup((3, 9, 8), backbone=Conv, conditional=True, prior=Learned),
    "one dimension": Setup(latent_dim=1, likelihood=Gaussian(0.1)),
    "vamp": Setup(prior=lambda n: Vamp(n, 4, "random"), likelihood=ContinuousBernoulli()),
}


def build(name: str) -> VAE:
    """One of `MODELS` with weights larger than fresh ones, which make images that hardly differ."""
    setup = MODELS[name]
    torch.manual_seed(0)
    told: dict[str, Any] = {"classes": len(CLASSES) if setup.conditional else 0}
    told |= (
        {"hidden": [32, 16], "gated": setup.gated} if setup.backbone is Dense else {"channels": [4, 6], "hidden": 16}
    )
    backbone = setup.backbone(setup.shape, setup.latent_dim, **told)
    posterior = setup.posterior(backbone.features, setup.latent_dim)
    vae = VAE(backbone, [Level(setup.prior(setup.latent_dim), posterior, setup.latent_dim)], setup.likelihood).eval()
    with torch.no_grad():
        for parameter in [*backbone.parameters(), *posterior.parameters()]:
            parameter.mul_(2)
    return vae
