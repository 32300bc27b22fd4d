"""The plain terms of −ELBO and the loss over a whole data set, to compare runs by."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from vae.evaluation.doubles import doubles
from vae.model.objectives import ELBO, Batch, Objective
from vae.model.vae import VAE

Batches = Iterable[tuple[Tensor, Tensor]]
PLAIN = ELBO(beta=1.0)


@torch.inference_mode()
def mean_terms(vae: VAE, batches: Batches, objective: Objective = PLAIN) -> dict[str, float]:
    """`total`, `recon`, `kl` and `loss`, each the mean over all images of the batches, in nats.

    z is drawn as the objective draws it, by default once for each image, and terms that do not apply to it are left
    out. All that is annealed in its loss has its final value.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    count = 0
    dtype = next(vae.parameters()).dtype  # trainer.precision=64-true makes it double
    for images, labels in batches:
        (loss, _), terms = objective(vae, Batch(images.to(dtype), labels), objective.steps)
        means = torch.stack([_of_image(terms.recon).sum(), _of_image(terms.kl).sum(), loss * len(images)])
        sums += doubles(means)
        count += len(images)
    recon, kl, loss = (sums / count).tolist()
    found = {"total": recon + kl, "recon": recon, "kl": kl}
    return {name: value for name, value in found.items() if name in objective.terms} | {"loss": loss}


@torch.inference_mode()
def error_of_draws(vae: VAE, batches: Batches, objective: Objective, images: int) -> float:
    """Standard error of the mean total of `images` images from their draws of z, in nats.

    √(½ E[(t − t′)²] / images), with two totals t, t′ of each image of these batches by draws of their own.
    """
    dtype = next(vae.parameters()).dtype
    differences = []
    for x, labels in batches:
        first, second = (objective(vae, Batch(x.to(dtype), labels), objective.steps)[1].total for _ in range(2))
        differences.append(_of_image(first - second))
    return (torch.cat(differences).square().mean() / 2 / images).sqrt().item()


def _of_image(values: Tensor) -> Tensor:
    """The mean over samples, (batch,) of (batch,) or (samples, batch)."""
    return values.mean(0) if values.dim() > 1 else values
