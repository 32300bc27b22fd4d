"""Draws the pictures while training, for TensorBoard and as PNGs."""

from __future__ import annotations

import gc
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import Tensor

from vae.common.files import replacing
from vae.common.signals import unmasked
from vae.common.terminal import bar
from vae.data.loader import BatchLoader
from vae.evaluation import latents
from vae.evaluation.grids import KINDS, WALKS
from vae.figures.solid import written
from vae.figures.style import as_image, label_colours, png_options, rasterise
from vae.study.pictures import select
from vae.study.scene import CLASSES, Scene
from vae.training.callbacks.film import Film
from vae.training.callbacks.scalars import Scalars
from vae.training.films import write_gif
from vae.training.module import VAEModule
from vae.training.tensorboard import run_logger

log = logging.getLogger(__name__)

DIMENSIONS = 20  # have a chart of their KL each; more would hide the other charts
CODES = 2000  # test images whose codes TensorBoard's projector gets


class Pictures(pl.Callback):
    """Draws after epochs 1, 2, 5, 10, 20, 50, …, or every so many, and in the end of the weights that are reported.

    A picture that fails is logged and skipped. `only=[]` draws none. With `film`, all epochs make one, see `Film`.
    """

    def __init__(
        self,
        folder: Path,
        loader: BatchLoader,
        scalars: Scalars,
        every_n_epochs: int | None = None,
        only: Sequence[str] | None = None,
        grid: str = "whitened",
        walk: str = "axis",
        film: bool = False,
    ):
        if grid not in KINDS:
            raise ValueError(f"figures.grid={grid}: must be one of {', '.join(KINDS)}")
        if walk not in WALKS:
            raise ValueError(f"figures.walk={walk}: must be one of {', '.join(WALKS)}")
        self.folder = folder / "figures"
        self.loader = loader
        self.scalars = scalars
        self.every_n_epochs = every_n_epochs
        self.tags = select(only, "figures.only")
        self.grid = grid
        self.walk = walk
        self.film = Film(folder, loader, scalars, grid) if film else None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.film is not None:
            self.film.begin(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        is_last = epoch == trainer.max_epochs  # that step's pictures are those of `close`
        if self.film is not None:
            self.film.keep(pl_module, epoch, is_last)
        if self.tags and self._is_due(epoch) and not is_last:
            self._draw(trainer, pl_module, epoch)

    def close(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        """Draw all pictures of the weights that the module now has, which are those of this epoch."""
        if self.tags:
            self._draw(trainer, pl_module, epoch, at_end=True)
        if self.film is not None:
            self.film.draw(pl_module, trainer.current_epoch)

    def _is_due(self, epoch: int) -> bool:
        if self.every_n_epochs is not None:
            return epoch % self.every_n_epochs == 0
        return str(epoch).rstrip("0") in ("1", "2", "5")

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int, at_end: bool = False) -> None:
        assert isinstance(pl_module, VAEModule)
        history = self.scalars.history if at_end else ()
        scene = Scene(pl_module.vae, self.loader, pl_module.about, epoch, self.grid, self.walk, history)
        kept: dict[str, Future[None]] = {}
        # One picture is compressed while the next one is drawn.
        with _no_garbage_collection(), ThreadPoolExecutor(1) as writer, bar("drawing", len(self.tags)) as drawing:
            for tag in self.tags:
                drawing.set_description_str(f"drawing {tag}")
                try:
                    with unmasked():
                        if tag in scene.tags:
                            figure = scene.draw(tag)
                            pixels, options = rasterise(figure), png_options(figure)
                            kept[tag] = writer.submit(self._keep, trainer, tag, pixels, options, pl_module.steps_taken)
                        if tag == "latent/clusters" and tag in scene.tags and at_end and scene.latent_dim == 3:
                            write_gif(self.folder / f"{tag}.gif", list(scene.turning()))
                except Exception:
                    log.exception("the picture %s of epoch %d failed and is left out", tag, epoch)
                drawing.update()
        for tag, future in kept.items():
            if error := future.exception():
                log.error("the picture %s of epoch %d could not be kept", tag, epoch, exc_info=error)
        if scene.is_coded:  # which have scalars of their own, and no few dimensions to be shown
            return
        try:
            with unmasked():
                self._tell_of_codes(trainer, scene, pl_module.steps_taken)
        except Exception:
            log.exception("the use of the latent space in epoch %d failed and is left out", epoch)
        if at_end:
            try:
                with unmasked():
                    self._hand_over_codes(trainer, scene)
            except Exception:
                log.exception("the codes for TensorBoard's projector failed and are left out")

    def _keep(self, trainer: pl.Trainer, tag: str, pixels: np.ndarray, options: Mapping[str, Any], step: int) -> None:
        # Encoded once for both: `add_image` would encode again, in twice the time.
        encoded = io.BytesIO()
        image = as_image(pixels)
        image.save(encoded, "png", compress_level=2, **options)
        with replacing(self.folder / f"{tag}.png") as temporary:
            temporary.write_bytes(encoded.getvalue())
        if not tag.startswith("curves/"):  # TensorBoard has curves of its own
            run_logger(trainer).image(tag, encoded.getvalue(), image, step)

    def _tell_of_codes(self, trainer: pl.Trainer, scene: Scene, step: int) -> None:
        """Write how the latent space is used, and the mesh of three dimensions."""
        run_logger(trainer).latents(*use_of(scene), step)
        if scene.latent_dim == 3:
            run_logger(trainer).mesh(*_mesh(scene), step)

    def _hand_over_codes(self, trainer: pl.Trainer, scene: Scene) -> None:
        """Write the last codes for TensorBoard's projector."""
        means, labels = scene.codes.means[:CODES], scene.codes.labels[:CODES]
        names = [scene.classes[label] if scene.classes else "image" for label in labels]
        run_logger(trainer).codes(means, names, label_colours(labels, scene.classes)[:, :3])


def _mesh(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Codes by class, and the names of the classes in their colours beside them, for want of a legend."""
    means, labels = scene.codes.means[:CODES].numpy(), scene.codes.labels[:CODES]
    names = written(scene.classes[:CLASSES], means)
    of_names = np.repeat(np.arange(len(names)), [len(name) for name in names])
    colours = label_colours(np.concatenate([labels, of_names]), scene.classes)[:, :3]
    return np.concatenate([means, *names]).astype(np.float32), colours


def use_of(scene: Scene) -> tuple[dict[str, float], dict[str, Tensor]]:
    """How test images use the latent space: active units and the KL of each dimension, and histograms of posteriors."""
    codes = scene.codes
    scalars = {"latent/active_units": float(latents.active_units(codes.means).sum())}
    histograms = {"latent/means": codes.means}
    if not scene.at_mean:
        kl = latents.kl_per_dimension(codes, scene.prior)
        histograms |= {"latent/scales": codes.variances.sqrt(), "latent/kl": kl}
        if len(kl) <= DIMENSIONS:
            scalars |= {f"latent/kl_{dim}": value for dim, value in enumerate(kl.tolist())}
    return scalars, histograms


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A figure's many small objects make Python look for garbage again and again, among a million others.

    Those others are set aside, so that the figures alone are looked at, once, at the end.
    """
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        gc.enable()
