"""The run's ledger: what exactly the loss is, term by term, so that nobody has to guess what β weighs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vae.common.tables import Table
from vae.model.codes import Coding
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
        entries = [
            entry._replace(formula=_kl(entry.formula, model, images, labels)) if "KL" in entry.formula else entry
            for entry in objective.ledger()
        ]
        entries += [Entry(*told) for level in model.levels for told in level.encoding.penalties()]
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


def _kl(formula: str, model: VAE, images: Tensor, labels: Tensor) -> str:
    """A formula with KL(q(z|x) ‖ p(z)), and how that is computed."""
    with torch.no_grad():
        if isinstance(model.posterior, Coding):
            length = "−log p(codes)" if model.is_certain else "−H(q) − log p(codes)"
            return formula.replace("KL(q(z|x) ‖ p(z))", length)
        is_known = is_exact(model.encode(images, labels), model.prior())
    return f"{formula}, {'exact' if is_known else 'at the sample of z'}"
