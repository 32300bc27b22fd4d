"""Objectives: turn one batch's terms into the loss that the optimiser minimises."""

from __future__ import annotations

from torch import Tensor, nn

from vae.model import Terms


class ELBO(nn.Module):
    """loss = mean over images of recon + β kl; β = 1 is −ELBO, β > 1 the β-VAE (Higgins et al., 2017)."""

    def __init__(self, beta: float):
        super().__init__()
        self.beta = beta

    def forward(self, terms: Terms) -> Tensor:
        """Terms of shape (batch,) → scalar."""
        return (terms.recon + self.beta * terms.kl).mean()
