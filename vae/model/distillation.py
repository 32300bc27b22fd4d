"""Distillation: a model learns from a trained one, its teacher."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from vae.model import checkpoints, restored
from vae.model.annealing import Count
from vae.model.objectives import OVER_PIXELS, RECON, Batch, Entry, Loss, Objective
from vae.model.vae import VAE, Terms
from vae.settings.errors import in_one_line


class Distillation(Objective):
    """loss = recon + β kl + λ (KL(q_T(z|x) ‖ q(z|x)) + KL(p_T(x|z) ‖ p(x|z))), T the teacher (Hinton et al., 2015).

    Both divergences are exact; z is the student's own, so that its decoder is taught where it is used. λ falls from
    `weight` to 0 over the training: in the end the images know better. The teacher is read from its file when training
    begins and is no part of the student's.
    """

    def __init__(self, beta: float, teacher: str, weight: float):
        super().__init__()
        self.beta = beta
        self.file = teacher
        self.weight = weight

    def attach(self, vae: VAE) -> None:
        with in_one_line(f"objective.teacher={self.file}: "):
            about = checkpoints.read(checkpoints.file_of(Path(self.file)))
            teacher = restored.model_of(about).requires_grad_(False)
            (shape, numbers), wanted = (([*model.backbone.shape], model.numbers) for model in (teacher, vae))
            if (shape, numbers) != wanted:
                raise ValueError(f"must be of images {wanted[0]} and {wanted[1]} latents, not of {shape} and {numbers}")
            images, labels = torch.zeros(1, *vae.backbone.shape), torch.zeros(1, dtype=torch.int64)
            try:
                self._taught(teacher, vae(images, labels), Batch(images, labels))
            except NotImplementedError:
                raise ValueError("must have Gaussian posteriors and a likelihood whose KL is known") from None
        self._teacher = (teacher,)  # in a tuple, or its weights would be stored with the student's

    def loss(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        codes, images = (each.mean() for each in self._taught(self._teacher[0].to(batch.images), terms, batch))
        own = terms.recon.mean() + self.beta * terms.kl.mean()
        weight = self.weight * (1 - step / self.steps)
        return Loss(own + weight * (codes + images), {"taught_codes": codes, "taught_images": images})

    def annealed(self, step: int) -> float:
        return 1 - step / self.steps

    @staticmethod
    def _taught(teacher: VAE, terms: Terms, batch: Batch) -> tuple[Tensor, Tensor]:
        """How far q(z|x) and p(x|z) are from the teacher's, (batch,) each, nats."""
        latent = terms.latent
        if latent.q is None:
            raise NotImplementedError
        with torch.no_grad():
            q, p_x = teacher.encode(batch.images, batch.labels), teacher.decode(latent.z, batch.labels)
        return kl_divergence(q, latent.q), kl_divergence(p_x, terms.p_x)

    def ledger(self) -> list[Entry]:
        falling = f"{self.weight:g}, falling to 0"
        return [
            RECON,
            Entry("kl", "KL(q(z|x) ‖ p(z))", f"{self.beta:g}"),
            Entry("taught_codes", "KL(q_T(z|x) ‖ q(z|x)), T the teacher", falling),
            Entry("taught_images", "E_q[KL(p_T(x|z) ‖ p(x|z))], T the teacher", falling, OVER_PIXELS),
        ]
