"""A model with its test images, encoded once for all pictures and measures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor

from vae.common.seeding import apart
from vae.data.loader import BatchLoader
from vae.evaluation import latents
from vae.evaluation.geometry import SAMPLES, Geometry, covariance
from vae.model.vae import VAE, evaluating


class Encoded:
    """Base of `Scene` and `Subject`: each value here is computed once, when the first picture or measure asks.

    It is the same whichever asks, and the caller's random numbers stay as they were.
    """

    prior_draws = SAMPLES  # of a prior that has no formulas

    def __init__(self, vae: VAE, loader: BatchLoader, at_mean: bool):
        self.vae = vae
        self.loader = self.fitting(loader)  # of the test images
        self.at_mean = at_mean  # an autoencoder, see vae.settings.config.is_at_mean

    def fitting(self, loader: BatchLoader) -> BatchLoader:
        """The loader, which serves images as this model takes them."""
        some = next(self.vae.parameters())
        loader.to(some.device, some.dtype)
        return loader

    @cached_property
    def codes(self) -> latents.Codes:
        """Codes of all test images."""
        with self.quietly():
            return latents.encode(self.vae, self.loader, self.at_mean)

    @cached_property
    def prior(self) -> Geometry:
        with self.quietly():
            return Geometry.of(self.vae.prior(), self.prior_draws)

    @cached_property
    def between(self) -> Tensor:
        """Covariance of the posterior means, (latent_dim, latent_dim)."""
        return covariance(self.codes.means)

    @cached_property
    def aggregate(self) -> Tensor:
        """Covariance of the aggregate posterior, (latent_dim, latent_dim)."""
        return self.between + self.codes.noise

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Use the model without a trace: no gradients, no other mode, no random numbers of the caller's."""
        with torch.inference_mode(), apart("pictures"), evaluating(self.vae):
            yield
