"""A trained model as three programs that need nothing of this package: tensors in and out, all by name."""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import MixtureSameFamily

from vae.model.backbones import Backbone
from vae.model.distributions import DiagonalNormal, FullNormal, from_noise, parameters
from vae.model.vae import VAE, only
from vae.use.trained import Trained

Tensors = dict[str, Tensor]


class Program(NamedTuple):
    """A module that takes tensors by the names of its inputs and returns tensors by the names of its outputs."""

    module: nn.Module
    inputs: Tensors  # examples with a batch of two, which exporters follow through the module
    outputs: Tensors  # what it makes of them


class Encoder(nn.Module):
    """Images, and labels where the model is conditional → `mean` and `scale` or `scale_tril` of q(z|x)."""

    def __init__(self, vae: VAE):
        super().__init__()
        self.backbone = _half(vae.backbone, "decoder")
        self.posterior = vae.posterior
        self.prior = vae.prior()  # as it is now: not to be computed again for every batch

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensors:
        q = self.posterior.q(only(self.backbone.encode(images, labels)), self.prior)
        if not isinstance(q, DiagonalNormal | FullNormal):
            raise ValueError(f"posterior {type(self.posterior).__name__}: must be Gaussian to be exported")
        mean, scale = parameters(q)
        return {"mean": mean, "scale" if isinstance(q, DiagonalNormal) else "scale_tril": scale}


class Decoder(nn.Module):
    """Latents `z` (batch, latent_dim) → `images`, E[x|z], and `logits`, the parameters of p(x|z)."""

    def __init__(self, vae: VAE):
        super().__init__()
        self.backbone = _half(vae.backbone, "encoder")
        self.likelihood = vae.likelihood

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensors:
        logits = self.backbone.image(z, labels)
        return {"images": self.likelihood(logits).mean, "logits": logits}


class Sampler(nn.Module):
    """Standard-normal `noise` (batch, latent_dim), and `choice` (batch,) in [0, 1) for mixtures → `images`.

    They are E[x|z] of draws z from the prior.
    """

    def __init__(self, vae: VAE):
        super().__init__()
        self.prior = vae.prior()  # a VampPrior's needs the encoder
        self.decoder = Decoder(vae)

    def forward(self, noise: Tensor, choice: Tensor | None = None, labels: Tensor | None = None) -> Tensors:
        return {"images": self.decoder(from_noise(self.prior, noise, choice), labels)["images"]}


@torch.no_grad()
def programs_of(model: Trained) -> tuple[dict[str, Program], dict[str, str]]:
    """Encoder, decoder and sampler by their names, as they compute now, and the reason for any that cannot be had."""
    vae = deepcopy(model.vae).cpu().requires_grad_(False).eval()
    labels = {"labels": torch.zeros(2, dtype=torch.int64)} if model.conditional else {}
    noise = {"noise": torch.zeros(2, model.latent_dim)}
    choice = {"choice": torch.zeros(2)} if isinstance(vae.prior(), MixtureSameFamily) else {}
    made = {
        "encoder": _program(Encoder(vae), {"images": torch.zeros(2, *model.shape)} | labels),
        "decoder": _program(Decoder(vae), {"z": torch.zeros(2, model.latent_dim)} | labels),
    }
    try:
        return made | {"sampler": _program(Sampler(vae), noise | choice | labels)}, {}
    except ValueError as reason:
        return made, {"sampler": str(reason)}


def _program(module: nn.Module, inputs: Tensors) -> Program:
    return Program(module.eval(), inputs, module(**inputs))


def _half(backbone: Backbone, other: str) -> Backbone:
    """The backbone without its other network: the file would hold those weights, too."""
    half = deepcopy(backbone)
    delattr(half, other)
    return half
