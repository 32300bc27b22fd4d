"""The regularised autoencoder, whose prior is fitted to its codes."""

from __future__ import annotations

import torch

from vae.model.annealing import Count
from vae.model.objectives import RECON, Batch, Entry, Loss, Needs, Objective
from vae.model.vae import VAE, Terms


class RAE(Objective):
    """loss = recon at the posterior's mean + λ_z ½ ‖z‖² + λ_d ½ ‖W‖², W the decoder's weights (Ghosh et al., 2020).

    Deterministic: the penalty of the decoder's weights makes it smooth, as noise does in a VAE, and that of z keeps z
    from growing instead. The prior has no part in the loss. It is fitted to the training images' z after each epoch,
    and so is a density to sample from.
    """

    needs = Needs(mean=True, fitted_prior=True)

    def __init__(self, codes: float, decoder: float):
        super().__init__()
        self.codes = codes
        self.decoder = decoder

    def attach(self, vae: VAE) -> None:
        self._decoder = [weight for weight in vae.backbone.decoder.parameters() if weight.dim() > 1]

    def loss(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        codes = 0.5 * terms.latent.z.square().sum(-1).mean()
        decoder = 0.5 * torch.stack([weight.square().sum() for weight in self._decoder]).sum()
        return Loss(
            terms.recon.mean() + self.codes * codes + self.decoder * decoder, {"codes": codes, "decoder": decoder}
        )

    def ledger(self) -> list[Entry]:
        return [
            RECON._replace(formula="−log p(x|z) at z = E[z|x]"),
            Entry("codes", "½ ‖z‖²", f"{self.codes:g}", unit="1"),
            Entry("decoder", "½ ‖W‖², W the decoder's weights", f"{self.decoder:g}", "summed over weights", "1"),
        ]
