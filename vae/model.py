"""The variational autoencoder, as its equations read; knows nothing of training, configuration or files."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.distributions import Distribution

from vae.backbones import Backbone
from vae.distributions import kl


class Terms(NamedTuple):
    """What the model says about a batch, before any reduction."""

    recon: Tensor  # −log p(x|z), (batch,), nats
    kl: Tensor  # KL(q(z|x) ‖ p(z)), (batch,), nats
    z: Tensor  # (batch, latent_dim)
    q: Distribution  # q(z|x)
    p: Distribution  # p(z)
    p_x: Distribution  # p(x|z)

    @property
    def total(self) -> Tensor:
        """−ELBO of each image, (batch,), nats."""
        return self.recon + self.kl


class VAE(nn.Module):
    """p(x, z) = p(x|z) p(z) with the amortised posterior q(z|x) (Kingma and Welling, 2014)."""

    def __init__(self, backbone: Backbone, prior: nn.Module, posterior: nn.Module, likelihood: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.prior = prior
        self.posterior = posterior
        self.likelihood = likelihood

    def encode(self, x: Tensor) -> Distribution:
        """q(z|x) of images (batch, channels, height, width)."""
        return self.posterior(self.backbone.encoder(x), self.prior())

    def decode(self, z: Tensor) -> Distribution:
        """p(x|z) of latents (batch, latent_dim)."""
        return self.likelihood(self.backbone.decoder(z))

    def forward(self, x: Tensor) -> Terms:
        """One sample of z for each image and the terms of −ELBO = E_q[−log p(x|z)] + KL(q(z|x) ‖ p(z))."""
        p = self.prior()
        q = self.posterior(self.backbone.encoder(x), p)
        z = q.rsample()
        p_x = self.decode(z)
        return Terms(recon=-p_x.log_prob(x), kl=kl(q, p, z), z=z, q=q, p=p, p_x=p_x)
