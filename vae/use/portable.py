"""A trained model as three programs that need nothing of this package: tensors in and out, all by name."""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import MixtureSameFamily

from vae.model.codes import Chosen, Coding, from_maps
from vae.model.distributions import DiagonalNormal, FullNormal, parameters
from vae.model.joint import Joint, of_noise
from vae.model.sequences import Autoregressive
from vae.model.vae import VAE, only
from vae.use.trained import Trained

Tensors = dict[str, Tensor]


class Program(NamedTuple):
    """A module that takes tensors by the names of its inputs and returns tensors by the names of its outputs."""

    module: nn.Module
    inputs: Tensors  # examples with a batch of two, which exporters follow through the module
    outputs: Tensors  # what it makes of them


class Encoder(nn.Module):
    """Images, and labels where the model is conditional → `mean` and `scale` or `scale_tril` of q(z|x).

    With several levels each one's are given those above, so that it also takes `noise` (batch, numbers) and returns the
    draw `z` that they are along; noise of zeros leads along the means.
    """

    def __init__(self, vae: VAE):
        super().__init__()
        self.vae = _without(vae, "backbone.decoder", *(["levels.0.prior"] if len(vae.levels) == 1 else []))
        self.prior = vae.prior()  # as it is now: not to be computed again for every batch

    def forward(self, images: Tensor, noise: Tensor | None = None, labels: Tensor | None = None) -> Tensors:
        if noise is not None:
            joint = self.vae.q(images, labels)
            assert isinstance(joint, Joint)
            z = joint.of_noise(noise)
            mean, scale = joint.along(z)
            return {"mean": mean, "scale": scale, "z": z}
        q = self.vae.posterior.q(only(self.vae.backbone.encode(images, labels)), self.prior)
        if not isinstance(q, DiagonalNormal | FullNormal):
            raise ValueError(f"posterior {type(self.vae.posterior).__name__}: must be Gaussian to be exported")
        mean, scale = parameters(q)
        return {"mean": mean, "scale" if isinstance(q, DiagonalNormal) else "scale_tril": scale}


class Decoder(nn.Module):
    """Latents `z` (batch, numbers) of all levels → `images`, E[x|z], and `logits`, the parameters of p(x|z)."""

    def __init__(self, vae: VAE):
        super().__init__()
        self.vae = _without(vae, "backbone.encoder", *_parts(vae, "encoding"), *_parts(vae, "prior"))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensors:
        logits = self.vae.backbone.image(self.vae.state(z, labels))
        return {"images": self.vae.likelihood(logits).mean, "logits": logits}


class Sampler(nn.Module):
    """Standard-normal `noise` (batch, numbers), and `choice` (batch,) in [0, 1) for mixtures → `images`.

    They are E[x|z] of draws z from the prior.
    """

    def __init__(self, vae: VAE):
        super().__init__()
        self.vae = _without(vae, "backbone.encoder", *_parts(vae, "encoding"), "levels.0.prior")
        self.prior = vae.prior()  # as it is now: a VampPrior's needs the encoder

    def forward(self, noise: Tensor, choice: Tensor | None = None, labels: Tensor | None = None) -> Tensors:
        p = self.vae.p_below(self.prior, labels)
        logits = self.vae.backbone.image(self.vae.state(of_noise(p, noise, choice), labels))
        return {"images": self.vae.likelihood(logits).mean}


class CodeEncoder(nn.Module):
    """Images, and labels where the model is conditional → `codes` (batch, height, width) and their vectors `z`.

    Of codes that are drawn, the likeliest.
    """

    def __init__(self, vae: VAE):
        super().__init__()
        self.vae = _without(vae, "backbone.decoder", "levels.0.prior")

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensors:
        q = self.vae.posterior.q(only(self.vae.backbone.encode(images, labels)), None)
        assert isinstance(q, Chosen)
        return {"codes": q.codes, "z": q.mean}


class CodeDecoder(nn.Module):
    """`codes` (batch, height, width) → `images`, E[x|z], and `logits`, the parameters of p(x|z)."""

    def __init__(self, vae: VAE):
        super().__init__()
        self.vae = _without(vae, "backbone.encoder", "levels.0.prior", "levels.0.encoding.read")

    def forward(self, codes: Tensor, labels: Tensor | None = None) -> Tensors:
        coding = self.vae.posterior
        assert isinstance(coding, Coding)
        z = coding.z_of(from_maps(codes, coding.stages))
        logits = self.vae.backbone.image(self.vae.state(z, labels))
        return {"images": self.vae.likelihood(logits).mean, "logits": logits}


class NextCode(nn.Module):
    """A sequence of `codes` (batch, length), row by row → `logits` (batch, length, K) of each given those before.

    To sample, draw the first by its logits, put it into the sequence, and so on; codes that are still to come have no
    say.
    """

    def __init__(self, prior: Autoregressive):
        super().__init__()
        self.prior = prior

    def forward(self, codes: Tensor, labels: Tensor | None = None) -> Tensors:
        state = None if labels is None else nn.functional.one_hot(labels, self.prior.begin.in_features)
        return {"logits": self.prior.after(codes, self.prior.starts(state, codes.shape[:1]))}


@torch.no_grad()
def programs_of(model: Trained) -> tuple[dict[str, Program], dict[str, str]]:
    """Encoder, decoder and sampler by their names, as they compute now, and the reason for any that cannot be had.

    Of a model of codes, the prior takes the sampler's place, if it is learned.
    """
    vae = deepcopy(model.vae).cpu().requires_grad_(False).eval()
    labels = {"labels": torch.zeros(2, dtype=torch.int64)} if model.conditional else {}
    if isinstance(vae.posterior, Coding):
        return _programs_of_codes(vae, model, labels), {}
    noise = {"noise": torch.zeros(2, vae.numbers)}
    choice = {"choice": torch.zeros(2)} if isinstance(vae.prior(), MixtureSameFamily) else {}
    drawn = noise if len(vae.levels) > 1 else {}
    made = {
        "encoder": _program(Encoder(vae), {"images": torch.zeros(2, *model.shape)} | drawn | labels),
        "decoder": _program(Decoder(vae), {"z": torch.zeros(2, vae.numbers)} | labels),
    }
    try:
        return made | {"sampler": _program(Sampler(vae), noise | choice | labels)}, {}
    except ValueError as reason:
        return made, {"sampler": str(reason)}


def _programs_of_codes(vae: VAE, model: Trained, labels: Tensors) -> dict[str, Program]:
    encoder = _program(CodeEncoder(vae), {"images": torch.zeros(2, *model.shape)} | labels)
    made = {"encoder": encoder, "decoder": _program(CodeDecoder(vae), {"codes": encoder.outputs["codes"]} | labels)}
    if isinstance(vae.prior, Autoregressive):
        codes = torch.zeros(2, vae.prior.length, dtype=torch.int64)
        made["prior"] = _program(NextCode(vae.prior), {"codes": codes} | (labels if vae.prior.conditional else {}))
    return made


def _program(module: nn.Module, inputs: Tensors) -> Program:
    return Program(module.eval(), inputs, module(**inputs))


def _parts(vae: VAE, name: str) -> list[str]:
    """The part of this name of every level."""
    return [f"levels.{place}.{name}" for place in range(len(vae.levels))]


def _without(vae: VAE, *names: str) -> VAE:
    """The model without some of its parts: the file would hold their weights, too."""
    rest = deepcopy(vae)
    for name in names:
        whole, _, part = name.rpartition(".")
        delattr(rest.get_submodule(whole), part)
    return rest
