"""The run's ledger: what exactly the loss is, term by term, so that nobody has to guess what β weighs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vae.common.tables import Table
from vae.model.distributions import is_exact
from vae.model.objectives import Entry, Objective
from vae.model.vae import VAE


class Ledger(NamedTuple):
    """The terms of a loss, and the likelihood's noise level with what that makes of β."""

    entries: list[Entry]
    noise: str  # empty where the likelihood has none

    @classmethod
    def of(cls, objective: Objective, model: VAE, images: Tensor, labels: Tensor) -> Ledger:
        """What will be minimised; some images (n, channels, height, width) tell whether the KL has a formula."""
        with torch.no_grad():
            how = "exact" if is_exact(model.encode(images, labels), model.prior()) else "at the sample of z"
        entries = [
            entry._replace(formula=f"{entry.formula}, {how}") if "KL" in entry.formula else entry
            for entry in objective.ledger()
        ]
        return cls(entries, model.likelihood.noise(getattr(objective, "beta", None)))

    def lines(self) -> list[str]:
        """For the terminal."""
        return [*(f"{entry.weight} × {entry.term}: {entry.formula}" for entry in self.entries), self.noise]

    def flat(self) -> dict[str, str]:
        """For metrics.json."""
        named = {f"ledger/{entry.term}": f"{entry.weight} × {entry.formula}" for entry in self.entries}
        return named | ({"ledger/noise": self.noise} if self.noise else {})

    def markdown(self) -> str:
        """For TensorBoard's texts."""
        rows = [entry._asdict() for entry in self.entries]
        return Table([], Entry._fields, rows, [self.noise] if self.noise else []).markdown()
