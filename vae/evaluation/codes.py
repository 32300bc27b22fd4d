"""The use of codes over a whole part."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from vae.evaluation.doubles import doubles
from vae.model.codes import Coding, counts, usage
from vae.model.vae import VAE

Batches = Iterable[tuple[Tensor, Tensor]]


def count(vae: VAE, batches: Batches) -> Tensor:
    """How often each code stands for a place of these images, at each stage: (stages, codes), float64."""
    return _survey(vae, batches)[0]


def use_of_codes(vae: VAE, batches: Batches, nats: Mapping[str, float]) -> dict[str, float]:
    """`perplexity`, `codes_used` and the `code_bits` of an image, of a model that has codes; else nothing.

    With the means of its penalties, which are no nats, and `codes_revived` in all of training.
    """
    if not isinstance(vae.posterior, Coding):
        return {}
    total, parts = _survey(vae, batches)
    used = {name: value.item() for name, value in usage(total).items()}
    return parts | used | {"code_bits": nats["kl"] / math.log(2)}


@torch.inference_mode()
def _survey(vae: VAE, batches: Batches) -> tuple[Tensor, dict[str, float]]:
    """The counts of all images, and means over them of what is logged of each batch."""
    coding, dtype = vae.posterior, next(vae.parameters()).dtype
    assert isinstance(coding, Coding)
    total, images_seen = torch.zeros(coding.stages, coding.codes, dtype=torch.float64), 0
    sums: dict[str, float] = {}
    for images, labels in batches:
        latent = vae(images.to(dtype), labels).latent
        assert latent.codes is not None
        total += doubles(counts(latent.codes.chosen, coding.codes))
        images_seen += len(images)
        for name, value in latent.parts.items():
            sums[name] = sums.get(name, 0.0) + value.item() * len(images)
    return total, {name: value / images_seen for name, value in sums.items()}
