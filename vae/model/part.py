"""What the parts of a model have in common: backbone, priors, posteriors and likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from vae.model.vae import VAE, Terms


class Part(nn.Module):
    """A part of a model; each of these methods may stay as it is.

    A forward pass changes nothing: what a batch teaches besides gradients is for `observe`. A `player` is optimised by
    itself, for the KL alone, and has this name.
    """

    player: str | None = None

    def attach(self, model: VAE) -> None:
        """Take note of the model, once all its parts are there."""

    def start_at(self, images: Tensor, labels: Tensor, lr: float) -> None:
        """Let training at a learning rate begin from what these images (n, channels, height, width) tell."""

    def observe(self, terms: Terms) -> None:
        """Learn from the terms of a training step, after it."""
