"""Likelihoods p(x|z): modules that turn the decoder's image parameters into a distribution over images.

Each yields event_dim 3, so that `log_prob` is summed over channels and pixels and has shape (batch,).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch import distributions as torch_distributions
from torch.distributions import Independent, Normal


class Bernoulli(nn.Module):
    """Independent Bernoulli pixels with the parameters as logits; for grey pixels binary cross-entropy."""

    def forward(self, params: Tensor) -> Independent:
        """(batch, channels, height, width) → p(x|z)."""
        pixels = torch_distributions.Bernoulli(logits=params, validate_args=False)  # grey pixels would not validate
        return Independent(pixels, 3, validate_args=False)


class Gaussian(nn.Module):
    """N(sigmoid(params), σ²) with one σ for all pixels, fixed or learned with the weights."""

    def __init__(self, sigma: float | str):
        super().__init__()
        learned = sigma == "learned"
        self.log_sigma = nn.Parameter(torch.tensor(0.0 if learned else math.log(float(sigma))), requires_grad=learned)

    def forward(self, params: Tensor) -> Independent:
        """(batch, channels, height, width) → p(x|z)."""
        pixels = Normal(params.sigmoid(), self.log_sigma.exp(), validate_args=False)
        return Independent(pixels, 3, validate_args=False)
