"""Exported programs beside the model in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily
from torch.nn.functional import cross_entropy

from vae.common.seeding import apart
from vae.common.types import TERMS
from vae.model.codes import Coding, from_maps
from vae.model.distributions import DiagonalNormal, FullNormal, from_noise, kl
from vae.use.portable import Tensors
from vae.use.trained import Trained

Runnable = Callable[..., Tensors]  # by the names of the inputs, to tensors by the names of the outputs


class Parity(NamedTuple):
    """Over all images; in nats with the same draw of z for both."""

    images: int
    torch: dict[str, float]  # mean total, recon and kl
    exported: dict[str, float]
    errors: dict[str, float]  # the largest absolute one of every output

    @property
    def loss(self) -> dict[str, float]:
        """What exporting cost."""
        return {term: self.exported[term] - self.torch[term] for term in TERMS}


@torch.no_grad()
def parity(
    model: Trained,
    ours: Mapping[str, Runnable],
    theirs: Mapping[str, Runnable],
    batches: Iterable[tuple[Tensor, Tensor]],
) -> Parity:
    """The programs of `ours` and `theirs` compared on images; a sampler may be missing among `theirs`."""
    errors: dict[str, Tensor] = {}
    sums = torch.zeros(2, len(TERMS), dtype=torch.float64)
    count = 0
    with apart("parity"):
        for images, labels in batches:
            noise, choice = torch.randn(len(images), model.vae.numbers), torch.rand(len(images))
            found = [_outputs(model, programs, images, labels, noise, choice) for programs in (ours, theirs)]
            sums += torch.tensor([[each.pop(term).double().sum() for term in TERMS] for each in found])
            count += len(images)
            for name in found[1]:
                error = (found[0][name] - found[1][name]).abs().max()
                errors[name] = torch.maximum(errors.get(name, error), error)  # which a NaN does not pass unseen
    mine, exported = (dict(zip(TERMS, each, strict=True)) for each in (sums / count).tolist())
    return Parity(count, mine, exported, {name: error.item() for name, error in errors.items()})


def _outputs(
    model: Trained, programs: Mapping[str, Runnable], images: Tensor, labels: Tensor, noise: Tensor, choice: Tensor
) -> Tensors:
    """All that the programs say about images, and the terms of −ELBO of each, (batch,)."""
    told = {"labels": labels} if model.conditional else {}
    if model.coding:
        return _outputs_of_codes(model, model.coding, programs, images, told)
    drawn = {"noise": noise} if len(model.vae.levels) > 1 else {}
    coded = programs["encoder"](images=images, **drawn, **told)
    full = "scale_tril" in coded
    q = FullNormal(coded["mean"], coded["scale_tril"]) if full else DiagonalNormal(coded["mean"], coded["scale"])
    prior = model.vae.p(labels)
    z = coded.get("z", from_noise(q, noise))
    decoded = programs["decoder"](z=z, **told)
    recon = -model.vae.likelihood(decoded["logits"]).log_prob(images)
    found = coded | {"images": decoded["images"]} | _terms(recon, kl(q, prior, z))
    if "sampler" in programs:
        chosen = {"choice": choice} if isinstance(model.vae.prior(), MixtureSameFamily) else {}
        found["samples"] = programs["sampler"](noise=noise, **chosen, **told)["images"]
    return found


def _outputs_of_codes(
    model: Trained, coding: Coding, programs: Mapping[str, Runnable], images: Tensor, told: Tensors
) -> Tensors:
    """The same of a model of codes; the terms are those of the codes that the encoder gives."""
    coded = programs["encoder"](images=images, **told)
    decoded = programs["decoder"](codes=coded["codes"], **told)
    index = from_maps(coded["codes"], coding.stages)
    found = {"z": coded["z"], "images": decoded["images"]}
    if "prior" in programs:
        codes = index.flatten(1)
        found["prior"] = programs["prior"](codes=codes, **told)["logits"]
        length = cross_entropy(found["prior"].mT, codes, reduction="none").sum(1)
    else:
        length = -model.vae.prior().log_prob(index)
    return found | _terms(-model.vae.likelihood(decoded["logits"]).log_prob(images), length)


def _terms(recon: Tensor, kl: Tensor) -> Tensors:
    return {"total": recon + kl, "recon": recon, "kl": kl}
