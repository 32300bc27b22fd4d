"""The use of codes over a whole part."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from vae.evaluation.doubles import doubles
from vae.model.codes import Chosen, Coding, counts, usage
from vae.model.vae import VAE


@torch.inference_mode()
def count(vae: VAE, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """How often each code stands for a place of these images, at each stage: (stages, codes), float64."""
    coding, dtype = vae.posterior, next(vae.parameters()).dtype
    assert isinstance(coding, Coding)
    total = torch.zeros(coding.stages, coding.codes, dtype=torch.float64)
    for images, labels in batches:
        q = vae.q(images.to(dtype), labels)
        assert isinstance(q, Chosen)
        total += doubles(counts(q.index, coding.codes))
    return total


def use_of_codes(vae: VAE, batches: Iterable[tuple[Tensor, Tensor]], nats: Mapping[str, float]) -> dict[str, float]:
    """`perplexity`, `codes_used` and the `code_bits` of an image, of a model that has codes; else nothing."""
    if not isinstance(vae.posterior, Coding):
        return {}
    found = {name: value.item() for name, value in usage(count(vae, batches)).items()}
    return found | ({"code_bits": nats["kl"] / math.log(2)} if "kl" in nats else {})
