"""The plain terms of −ELBO over a whole data set: what two runs are compared by."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from vae.model import VAE


@torch.inference_mode()
def mean_terms(vae: VAE, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """`total`, `recon` and `kl`, each the mean over all images of the batches, in nats; one sample of z an image."""
    sums = torch.zeros(2, dtype=torch.float64)
    count = 0
    dtype = next(vae.parameters()).dtype  # trainer.precision=64-true makes it double
    for images, labels in batches:
        terms = vae(images.to(dtype), labels)
        # First to the host: not every device has doubles.
        sums += torch.stack([terms.recon.sum(), terms.kl.sum()]).cpu().double()
        count += len(images)
    recon, kl = (sums / count).tolist()
    return {"total": recon + kl, "recon": recon, "kl": kl}
