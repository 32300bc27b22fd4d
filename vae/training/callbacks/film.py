"""The film of the latent space as it is learned."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytorch_lightning as pl

from vae.common.files import replacing
from vae.common.signals import unmasked
from vae.data.loader import BatchLoader
from vae.figures.evolution import Frame, evolution
from vae.figures.style import axis_name
from vae.study import film
from vae.study.scene import small_print
from vae.training.callbacks.scalars import Scalars
from vae.training.films import write_gif, write_mp4
from vae.training.module import VAEModule

log = logging.getLogger(__name__)

SECONDS = 0.25  # an epoch is shown
PAUSE = 6  # such times more, the last one


class Film:
    """Keeps what a frame needs after each epoch, and draws all frames at the end, when the axes that fit are known.

    Each epoch has a file in the run's folder, written before the epoch's checkpoint. So the film of a resumed run is
    that of an uninterrupted one, and a frame that fails is skipped.
    """

    def __init__(self, folder: Path, loader: BatchLoader, scalars: Scalars, grid: str):
        self.kept = folder / "film"
        self.file = folder / "figures" / "latent" / "evolution.gif"
        self.loader = loader
        self.scalars = scalars
        self.grid = grid

    def begin(self, pl_module: pl.LightningModule) -> None:
        """Keep the untrained model, where it need not say which dimensions are worth a look."""
        assert isinstance(pl_module, VAEModule)
        if pl_module.steps_taken == 0 and not film.needs_choice(pl_module.about["config"]["latent_dim"]):
            self.keep(pl_module, 0)

    def keep(self, pl_module: pl.LightningModule, epoch: int, is_last: bool = False) -> None:
        """Keep a frame of an epoch that is due."""
        assert isinstance(pl_module, VAEModule)
        if not (is_due(epoch) or is_last):
            return
        try:
            with unmasked():
                scene = film.scene_of(pl_module.vae, self.loader, pl_module.about, epoch, self.grid)
                dims = self._dimensions(epoch)
                dims = film.dimensions(scene) if dims is None else dims
                frame = film.frame(scene, dims)
                with replacing(self._of(epoch)) as temporary:
                    np.savez_compressed(temporary, dims=dims, **frame._asdict())
        except Exception:
            log.exception("the film's frame of epoch %d failed and is left out", epoch)

    def draw(self, pl_module: pl.LightningModule, epochs: int) -> None:
        """Draw the film of the epochs up to this one, as GIF and, where there is ffmpeg, as MP4."""
        assert isinstance(pl_module, VAEModule)
        try:
            there = [epoch for epoch in self._epochs() if epoch <= epochs and (is_due(epoch) or epoch == epochs)]
            frames, dims = [], [0]
            for epoch in there:
                with np.load(self._of(epoch)) as kept:
                    frames.append(Frame(*(kept[name] for name in Frame._fields)))
                    dims = kept["dims"].tolist()
            rows = {int(row["epoch"]): row for row in self.scalars.history}
            pixels = list(
                evolution(
                    frames,
                    [caption(epoch, epochs, rows.get(epoch, {})) for epoch in there],
                    film.some_images(self.loader).labels.cpu(),
                    pl_module.about["classes"],
                    [axis_name(dim) for dim in dims],
                    small_print(pl_module.about),
                )
            )
            pixels += [pixels[-1]] * PAUSE
            write_gif(self.file, pixels, SECONDS * len(pixels))
            write_mp4(self.file.with_suffix(".mp4"), pixels, SECONDS * len(pixels))
        except Exception:
            log.exception("the film failed and is left out")

    def _dimensions(self, epoch: int) -> list[int] | None:
        """Those that the first frame chose; None before there is one."""
        before = [each for each in self._epochs() if each < epoch]
        if not before:
            return None
        with np.load(self._of(before[0])) as kept:
            return kept["dims"].tolist()

    def _epochs(self) -> list[int]:
        return sorted(int(path.stem) for path in self.kept.glob("[0-9]*.npz"))

    def _of(self, epoch: int) -> Path:
        return self.kept / f"{epoch:04}.npz"


def is_due(epoch: int) -> bool:
    """Every epoch to 50, every second one to 100, every fourth one to 200, …: a film of any length is short."""
    return epoch % 2 ** max(0, (epoch // 25).bit_length() - 1) == 0


def caption(epoch: int, epochs: int, row: Mapping[str, float]) -> str:
    """The epoch and its losses, total = recon + kl, as far as there are any."""
    parts = [f"epoch {_padded(epoch, len(str(epochs)))}"]
    for name, part in (("train", "train"), ("validation", "val")):
        recon, kl, total = (row.get(f"{part}/{term}") for term in ("recon", "kl", "total"))
        if recon is not None:
            sums = f"recon {recon:.1f}" if total is None else f"{total:.1f} = {recon:.1f} + {kl:.1f}"
            parts.append(f"{name} {sums}")
    return "   ".join(parts) + (" nats" if row else "   before training" if epoch == 0 else "")


def _padded(number: int, width: int) -> str:
    return f"{number:>{width}}".replace(" ", "\u2007")  # a space as wide as a digit
