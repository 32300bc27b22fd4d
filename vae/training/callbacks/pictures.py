"""Draws the pictures while training, for TensorBoard and as PNGs."""

from __future__ import annotations

import gc
import io
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image

from vae.common.files import replacing
from vae.data.loader import BatchLoader
from vae.evaluation.grids import KINDS, WALKS
from vae.figures.style import as_image, label_colours, rasterise
from vae.study.pictures import select
from vae.study.scene import Scene
from vae.training.callbacks.scalars import Scalars
from vae.training.module import VAEModule
from vae.training.tensorboard import run_logger

log = logging.getLogger(__name__)

CODES = 2000  # test images whose codes TensorBoard's projector gets

_BY_OCTREE = Image.Quantize.FASTOCTREE  # keeps rare colours apart, which a median cut of a mostly white picture mixes


class Pictures(pl.Callback):
    """Draws after epochs 1, 2, 5, 10, 20, 50, …, or every so many, and in the end of the weights that are reported.

    A picture that fails is logged and skipped. `only=[]` draws nothing.
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

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if self._is_due(epoch) and epoch != trainer.max_epochs:  # that step's pictures are those of `close`
            self._draw(trainer, pl_module, epoch)

    def close(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        """Draw all pictures of the weights that the module now has, which are those of this epoch."""
        if self.tags:
            self._draw(trainer, pl_module, epoch, at_end=True)

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
        with _no_garbage_collection(), ThreadPoolExecutor(1) as writer:
            for tag in self.tags:
                try:
                    if tag in scene.tags:
                        pixels = rasterise(scene.draw(tag))
                        kept[tag] = writer.submit(self._keep, trainer, tag, pixels, pl_module.steps_taken)
                    if tag == "latent/clusters" and at_end and scene.latent_dim == 3:
                        write_gif(self.folder / f"{tag}.gif", list(scene.turning()))
                except Exception:
                    log.exception("the picture %s of epoch %d failed and is left out", tag, epoch)
        for tag, future in kept.items():
            if error := future.exception():
                log.error("the picture %s of epoch %d could not be kept", tag, epoch, exc_info=error)
        if at_end:
            try:
                self._hand_over_codes(trainer, scene, pl_module.steps_taken)
            except Exception:
                log.exception("the codes for TensorBoard's projector failed and are left out")

    def _keep(self, trainer: pl.Trainer, tag: str, pixels: np.ndarray, step: int) -> None:
        # Encoded once for both: `add_image` would encode again, in twice the time.
        encoded = io.BytesIO()
        image = as_image(pixels)
        image.save(encoded, "png", compress_level=2)
        with replacing(self.folder / f"{tag}.png") as temporary:
            temporary.write_bytes(encoded.getvalue())
        run_logger(trainer).image(tag, encoded.getvalue(), image, step)

    def _hand_over_codes(self, trainer: pl.Trainer, scene: Scene, step: int) -> None:
        """The last codes for TensorBoard's own views: the projector, and the mesh of three dimensions."""
        codes = scene.codes
        means, labels = codes.means[:CODES], codes.labels[:CODES]
        names = [scene.classes[label] if scene.classes else "image" for label in labels]
        run_logger(trainer).codes(means, names, scene.test_images(range(len(means))).cpu())
        if scene.latent_dim == 3:
            rgb = torch.from_numpy(255 * label_colours(labels, scene.classes)[:, :3]).int()
            run_logger(trainer).mesh(means, rgb, step)


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


def write_gif(path: Path, frames: Sequence[np.ndarray], seconds: float = 8.0) -> None:
    """Write frames (height, width, 3) as a film that repeats."""
    # One palette for all frames, or the colours would flicker.
    palette = Image.fromarray(np.concatenate(frames[:: max(1, len(frames) // 4)])).quantize(128, _BY_OCTREE)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with replacing(path) as temporary:
        images[0].save(
            temporary, save_all=True, append_images=images[1:], duration=1000 * seconds / len(frames), loop=0
        )
