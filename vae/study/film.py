"""One epoch of the film, out of a model that is still learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vae.data.base import Split
from vae.data.loader import BatchLoader
from vae.evaluation import grids
from vae.figures.evolution import Frame
from vae.model.vae import VAE
from vae.study.scene import Scene

SHOWN = 500  # test images
SIDE = 12  # tiles
STRIP = 24  # tiles where there is one dimension
DRAWS = 1000  # of a prior that has no formulas
PIXELS = 28  # of a tile's longer side, at most: as large as it is drawn


def scene_of(vae: VAE, loader: BatchLoader, about: Mapping[str, Any], epoch: int, grid: str) -> Scene:
    """A scene of the few images that a film is of, which takes hardly any time."""
    scene = Scene(vae, some_images(loader), about, epoch, grid)
    scene.prior_draws = DRAWS
    return scene


def some_images(loader: BatchLoader) -> BatchLoader:
    """Evenly chosen test images."""
    part = Split(loader.images, loader.labels).some(SHOWN)
    return BatchLoader(part, loader.batch_size, loader.seed, dynamic=loader.dynamic)


def needs_choice(latent_dim: int) -> bool:
    """Whether there are more dimensions than the first ones that a film shows, as `grids.manifold` does."""
    return latent_dim > 3


def dimensions(scene: Scene) -> list[int]:
    """The dimensions to show: the first two, or of more than three the most active two."""
    if needs_choice(scene.latent_dim):
        with scene.quietly():
            return scene.active(2)
    return list(range(min(2, scene.latent_dim)))


def frame(scene: Scene, dims: Sequence[int]) -> Frame:
    """What the scene's epoch shows in these dimensions."""
    with scene.quietly():
        tiles, places = _manifold(scene, dims)
        shown = replace(scene.prior.marginal(dims), log_prob=None)  # which a flow takes half a second for
        if len(dims) == 2:
            outline = _apart(shown.outline(2))
        else:
            outline = torch.stack([shown.mean - 2 * shown.scale, shown.mean + 2 * shown.scale])
        codes = scene.codes.means[:, list(dims)]
    return Frame(codes.float().numpy(), outline.float().numpy(), tiles, places.float().numpy())


def _manifold(scene: Scene, dims: Sequence[int]) -> tuple[np.ndarray, Tensor]:
    """The decoded tiles and their places; of a conditional model each class along the first dimension."""
    if scene.rows:
        line = grids.manifold(scene.prior.marginal(dims[:1]), count=SIDE)[0].z
        z = scene.prior.mean.expand(len(scene.rows), SIDE, -1).clone()
        z[..., dims[0]] = line[..., 0]
        return _bytes(scene.decode(z, torch.tensor(scene.rows)[:, None])), z[..., dims[:1]]
    if scene.latent_dim == 1:
        (strip,) = grids.manifold(scene.prior, count=STRIP)
        return _bytes(scene.decode(strip.z)), strip.z
    sheets = grids.manifold(scene.prior, scene.grid, dims, SIDE)
    middle = sheets[len(sheets) // 2]
    return _bytes(scene.decode(middle.z)), middle.z[..., list(middle.dims)]


def _bytes(images: Tensor) -> np.ndarray:
    """Images (rows, columns, channels, height, width), small."""
    flat, size = images.flatten(0, 1).float(), images.shape[-2:]
    if max(size) > PIXELS:
        flat = nn.functional.interpolate(flat, [max(1, PIXELS * each // max(size)) for each in size], mode="area")
    small = (255 * flat.clamp(0, 1)).round().byte()
    return small.unflatten(0, images.shape[:2]).numpy()


def _apart(lines: Sequence[Tensor]) -> Tensor:
    """The lines in one tensor, which a row of NaN parts."""
    gap = torch.full((1, 2), torch.nan, dtype=torch.float64)
    return torch.cat([row for line in lines for row in (line, gap)][:-1] or [gap])
