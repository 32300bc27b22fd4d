"""The variational autoencoder, as its equations read; knows nothing of training, configuration or files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vae.model.backbones import Backbone
from vae.model.distributions import draws, kl
from vae.model.likelihoods import Likelihood
from vae.model.noise import Draw
from vae.model.part import Part
from vae.model.posteriors import Posterior
from vae.model.priors import Prior


class Terms(NamedTuple):
    """What the model says about a batch, before any reduction; with k samples z of each image, of shape (k, batch)."""

    recon: Tensor  # −log p(x|z), (batch,), nats
    kl: Tensor  # KL(q(z|x) ‖ p(z)), (batch,), nats; also with k samples where it is exact
    z: Tensor  # (batch, latent_dim)
    q: Distribution  # q(z|x)
    p: Distribution  # p(z)
    p_x: Distribution  # p(x|z)

    @property
    def total(self) -> Tensor:
        """−ELBO of each image, (batch,), nats."""
        return self.recon + self.kl


class VAE(nn.Module):
    """p(x, z) = p(x|z) p(z) with the amortised posterior q(z|x) (Kingma and Welling, 2014).

    Where the backbone knows of classes, p(x|z) and q(z|x) are given the label, too; else labels are ignored.
    """

    def __init__(self, backbone: Backbone, prior: Prior, posterior: Posterior, likelihood: Likelihood):
        super().__init__()
        self.backbone = backbone
        self.prior = prior
        self.posterior = posterior
        self.likelihood = likelihood
        for part in self.parts:
            part.attach(self)

    @property
    def parts(self) -> tuple[Part, ...]:
        """All that the model is made of."""
        return self.backbone, self.prior, self.posterior, self.likelihood

    def start_at(self, images: Tensor, labels: Tensor, lr: float = 1e-3) -> None:
        """Let training at a learning rate begin from what these training images (n, channels, height, width) tell."""
        for part in self.parts:
            part.start_at(images, labels, lr)

    def observe(self, terms: Terms) -> None:
        """Let the parts learn from a training step what gradients do not teach."""
        for part in self.parts:
            part.observe(terms)

    @torch.inference_mode()
    def sample(self, n: int, labels: Tensor | int | None = None) -> Tensor:
        """E[x|z] of n draws of z from the prior, (n, channels, height, width); of one class, or each of its own."""
        z = draws(self.prior(), n)
        return self.decode(z, None if labels is None else torch.as_tensor(labels)).mean

    def encode(self, x: Tensor, labels: Tensor | None = None) -> Distribution:
        """q(z|x) of images (batch, channels, height, width) with labels (batch,)."""
        return self.posterior(self.backbone.encode(x, labels), self.prior())

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Distribution:
        """p(x|z) of latents (…, latent_dim) with labels that broadcast to (…,)."""
        flat = None if labels is None else labels.expand(z.shape[:-1]).flatten()
        params = self.backbone.decode(z.flatten(0, -2), flat)
        return self.likelihood(params.unflatten(0, z.shape[:-1]))

    def forward(self, x: Tensor, labels: Tensor | None = None, draw: Draw = Draw()) -> Terms:  # noqa: B008
        """z of each image and the terms of −ELBO = E_q[−log p(x|z)] + KL(q(z|x) ‖ p(z))."""
        p = self.prior()
        q = self.posterior(self.backbone.encode(x, labels), p)
        z = draw.of(q)
        p_x = self.decode(z, labels)
        return Terms(recon=-p_x.log_prob(x), kl=kl(q, p, z), z=z, q=q, p=p, p_x=p_x)


@contextmanager
def evaluating(vae: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while: in training mode an optimal σ would fit the images whose density is asked for."""
    training = vae.training
    vae.eval()
    try:
        yield
    finally:
        vae.train(training)
