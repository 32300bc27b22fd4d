"""A trained model in use: images in, images out, from Python or by the programs in scripts/."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.distributions import Distribution

from vae.common.seeding import apart
from vae.data.inputs import Images, as_batch, to_unit
from vae.evaluation import grids
from vae.evaluation.geometry import Geometry
from vae.evaluation.likelihood import importance_likelihood, mean_recon
from vae.model import checkpoints, restored
from vae.model.codes import Coded, Coding, from_maps
from vae.model.draws import draws
from vae.model.joint import of_noise
from vae.model.vae import VAE, evaluating
from vae.settings.config import is_at_mean

AT_ONCE = 2**20  # numbers of images encoded or decoded at once, to bound the memory whatever their count
BLOCK = 500  # latents drawn at once
KINDS = ("total", "nll", "recon")

Labels = ArrayLike | Tensor  # names of classes or their positions: one for all, or one for each image


class Trained:
    """A model with what its checkpoint says of it, ready for images of any kind and number.

    Images are of numpy, torch or PIL, one or several, see `vae.data.inputs.as_batch`: bytes from 0 to 255 or floats
    from 0 to 1. Nothing is binarised: give a model that was trained on binary images such images.

    The model `vae` is on the CPU, until `vae.to(device)` moves it; images that come back are on the CPU. Results
    depend on arguments and seed alone, and the caller's random numbers stay as they were. A conditional model
    wants `labels`: names of classes or their positions, one for all images or one for each.
    """

    def __init__(self, vae: VAE, about: Mapping[str, Any], epoch: int | None = None):
        self.vae = vae
        self.epoch = epoch  # of the training, that the weights are from
        self.config: Mapping[str, Any] = about["config"]
        self.data: str = about["data"]  # the name of the data it was trained on
        self.classes: tuple[str, ...] = tuple(about["classes"])  # empty where the data has none
        channels, height, width = about["shape"]
        self.shape = (channels, height, width)

    def __repr__(self) -> str:
        size = "×".join(map(str, self.shape))
        told = f", {len(self.vae.levels)} levels" if len(self.vae.levels) > 1 else ""
        told += f", {self.coding.said}" if self.coding else ""
        told += ", conditional" if self.conditional else ""
        epoch = "" if self.epoch is None else f", epoch {self.epoch}"
        return f"Trained({self.data}, images of {size}, latent_dim {self.latent_dim}{told}{epoch})"

    @property
    def conditional(self) -> bool:
        """Whether the model takes the class of every image."""
        return self.config["conditional"]

    @property
    def coding(self) -> Coding | None:
        """What makes codes of images, in a model that has them."""
        return self.vae.posterior if isinstance(self.vae.posterior, Coding) else None

    @property
    def latent_dim(self) -> int:
        return self.config["latent_dim"]

    @torch.no_grad()
    def encode(self, images: Images, labels: Labels | None = None) -> Distribution:
        """q(z|x) of n images, with batch shape (n,) and event shape (numbers,), on the model's device.

        The numbers are those of all levels beside each other, the top one's first: of one level, latent_dim. Of a model
        of codes, `.codes` are integers (n, height, width), and `.mean` their vectors as maps, flattened.
        """
        with evaluating(self.vae):
            # Features are joined, because posteriors of any class can be made of them.
            parts = [(self.vae.backbone.encode(x, classes), classes) for x, classes in self.batches(images, labels)]
            features, classes = zip(*parts, strict=True)
            return self.vae.q_of([torch.cat(each) for each in zip(*features, strict=True)], torch.cat(classes))

    @torch.no_grad()
    def decode(self, z: ArrayLike | Tensor, labels: Labels | None = None) -> Tensor:
        """E[x|z] of latents (…, numbers), with labels that broadcast to (…): images (…, channels, height, width).

        Of a model of several levels z may be the upper levels' alone; those below are at their prior's mean. Of a model
        of codes z may be these: integers (…, height, width), with the stages last where there are several.
        """
        z = torch.as_tensor(z)
        if self.coding and not z.is_floating_point():
            z = self._vectors(self.coding, z)
        of_upper = [*itertools.accumulate(level.numbers for level in self.vae.levels)]
        if not z.dim() or z.shape[-1] not in of_upper or not z.isfinite().all():
            what = f"of shape {tuple(z.shape)}" if z.isfinite().all() else "with NaN or infinity"
            allowed = " or ".join(f"(…, {numbers})" for numbers in of_upper)
            raise ValueError(f"z {what}: must be finite numbers of shape {allowed}")
        flat = z.reshape(-1, z.shape[-1]).to(next(self.vae.parameters()))
        classes = self._positions(labels, z.shape[:-1]).flatten()
        with evaluating(self.vae):
            images = [
                self.vae.decode(*part).mean.cpu() for part in zip(*map(self._split, (flat, classes)), strict=True)
            ]
        return torch.cat(images).reshape(*z.shape[:-1], *self.shape)

    @torch.no_grad()
    def _vectors(self, coding: Coding, codes: Tensor) -> Tensor:
        """The z of codes."""
        shape = [*coding.grid, *([coding.stages] if coding.stages > 1 else [])]
        if [*codes.shape[codes.dim() - len(shape) :]] != shape:
            allowed = ", ".join(map(str, shape))
            raise ValueError(f"codes of shape {tuple(codes.shape)}: must be integers of shape (…, {allowed})")
        wrong = codes[(codes < 0) | (codes >= coding.codes)]
        if len(wrong):
            raise ValueError(f"codes with {int(wrong[0])}: must be from 0 to {coding.codes - 1}")
        index = from_maps(codes, coding.stages).to(next(self.vae.parameters()).device)
        return coding.z_of(index.long())

    def sample(self, n: int, seed: int = 0, labels: Labels | None = None, temperature: float = 1.0) -> Tensor:
        """E[x|z] of n draws of z from the prior, (n, channels, height, width); more draws begin with the same.

        All standard deviations of the prior are multiplied by a temperature; the logits of codes are divided by it.
        """
        return torch.cat(list(self.samples(n, seed, labels, temperature)))

    def samples(
        self, n: int, seed: int = 0, labels: Labels | None = None, temperature: float = 1.0
    ) -> Iterator[Tensor]:
        """What `sample` gives, some hundred images at a time: for more than memory holds."""
        if n < 1:
            raise ValueError(f"n={n}: must be a positive integer")
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature={temperature}: must be a number from 0 on")
        classes = self._positions(labels, (n,)) if labels is not None or self.conditional else None
        for start in range(0, n, BLOCK):
            part = None if classes is None else classes[start : start + BLOCK]
            with torch.no_grad(), evaluating(self.vae), apart("sample", int(seed), start):
                z = self._drawn(n - start, part, temperature)
            yield self.decode(z, part)

    def _drawn(self, most: int, classes: Tensor | None, temperature: float) -> Tensor:
        """At most `BLOCK` draws of z from the prior."""
        if classes is not None:  # as many as draws
            classes = torch.cat([classes, classes.new_zeros(BLOCK - len(classes))])
        p = self.vae.p(classes)
        if isinstance(p, Coded):
            p = p.at(temperature)
        if temperature == 1 or isinstance(p, Coded):
            return draws(p, BLOCK)[:most]
        like = next(self.vae.parameters())
        noise = temperature * torch.randn(BLOCK, self.vae.numbers)
        return of_noise(p, noise.to(like), torch.rand(BLOCK).to(like))[:most]

    def reconstruct(self, images: Images, labels: Labels | None = None) -> Tensor:
        """E[x|z] at z = E[z|x], (n, channels, height, width)."""
        with torch.no_grad(), evaluating(self.vae):
            parts = [self.vae.q(x, classes).mean.cpu() for x, classes in self.batches(images, labels)]
        return self.decode(torch.cat(parts), labels)

    def batches(self, images: Images, labels: Labels | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of images as the model takes them, with the positions of their classes."""
        array = as_batch(images, self.shape)
        classes = self._positions(labels, (len(array),))
        for part, labels_of_part in zip(self._split(array), self._split(classes), strict=True):
            yield to_unit(part).to(next(self.vae.parameters())), labels_of_part

    def _split(self, values: Any) -> list[Any]:
        """Batches of values that each image has one of."""
        at_once = max(1, AT_ONCE // math.prod(self.shape))
        return [values[start : start + at_once] for start in range(0, len(values), at_once)]

    def _positions(self, labels: Labels | None, shape: Sequence[int]) -> Tensor:
        """The classes' positions of that shape; zeros for a model that asks for no classes."""
        if not self.conditional:
            if labels is not None:
                raise ValueError("labels: must be left out, because this model is not conditional")
            return torch.zeros(tuple(shape), dtype=torch.int64)
        names = ", ".join(self.classes[:12]) + (", …" if len(self.classes) > 12 else "")
        allowed = f"classes ({names}) or their positions from 0 to {len(self.classes) - 1}"
        if labels is None:
            raise ValueError(f"labels: must be given, because this model is conditional: {allowed}")
        given = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
        positions = given if given.dtype.kind in "iu" else np.full(given.shape, -1)
        if given.dtype.kind == "U":
            known = {name: position for position, name in enumerate(self.classes)}
            positions = np.array([known.get(name, -1) for name in given.flat]).reshape(given.shape)
        wrong = given[(positions < 0) | (positions >= len(self.classes))]
        if len(wrong):
            raise ValueError(f"labels={wrong[0]}: must be {allowed}")
        try:
            return torch.from_numpy(np.broadcast_to(positions, tuple(shape)).astype(np.int64))
        except ValueError:
            raise ValueError(f"labels of shape {given.shape}: must be one, or of shape {tuple(shape)}") from None


def load(path: str | Path, trust: bool = False) -> Trained:
    """The trained model of a run folder (its reported weights) or of a file of weights, ready for use on the CPU.

    That is a checkpoint, or what `scripts/export.py` makes of one, such as model.safetensors. A folder without
    checkpoints may hold a weights.ckpt, as examples do.

    Never runs code from the file. Only classes of this package are built, unless `trust` allows others.
    """
    checkpoint = checkpoints.read(checkpoints.file_of(Path(path)))
    return Trained(restored.model_of(checkpoint, trust), checkpoint["vae"], checkpoint["epoch"] + 1)


def interpolate(model: Trained, a: Images, b: Images, steps: int = 8, label: Labels | None = None) -> Tensor:
    """Images decoded along the line from one image's code E[z|a] to another's, (steps, channels, height, width).

    Where z is made of codes, each step takes those nearest to the line.
    """
    _refuse_fewer_than_two(steps)
    start, end = _code(model, a, label, "a"), _code(model, b, label, "b")
    z = grids.interpolation(start, end, steps)[0]
    if model.coding:
        with torch.no_grad():
            z = model.coding.snapped(z)
    return model.decode(z, label)


def traverse(
    model: Trained, image: Images, dim: int = 0, steps: int = 8, label: Labels | None = None, walk: str = "axis"
) -> Tensor:
    """Images decoded along one dimension through an image's code, (steps, channels, height, width).

    From −3 to +3 of the prior's standard deviations away from E[z|x], evenly spaced. The other dimensions stay as they
    are; with walk="conditional" they follow at the mean that a correlated prior has for them.
    """
    _refuse_fewer_than_two(steps)
    if model.coding:
        raise ValueError("traverse: must be of a model whose z is a vector, and this one's is made of codes")
    if not 0 <= dim < model.latent_dim:
        raise ValueError(f"dim={dim}: must be from 0 to {model.latent_dim - 1}")
    code = _code(model, image, label, "image")[0, : model.latent_dim]
    with torch.no_grad(), evaluating(model.vae), apart("traverse"):
        prior = Geometry.of(model.vae.prior())
    offsets = torch.linspace(-grids.SPAN, grids.SPAN, steps)
    return model.decode(grids.traversal(code, prior, [dim], offsets, walk)[0], label)


def score(
    model: Trained,
    images: Images,
    labels: Labels | None = None,
    kind: str = "total",
    samples: int = 16,
    seed: int = 0,
) -> Tensor:
    """How unlike the training data each image is, (n,) in nats, float64; the higher, the more anomalous.

    `total` is −ELBO, `nll` the estimate of −log p(x) by importance sampling, which falls towards it with `samples`;
    both are means over that many draws of z and are the same whenever images, their order and the seed are. `recon` is
    −log p(x|z) at the posterior's mean, the only one that an autoencoder has.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind}: must be one of {', '.join(KINDS)}")
    if kind == "recon":
        return mean_recon(model.vae, model.batches(images, labels))
    if is_at_mean(model.config):
        raise ValueError(f"kind={kind}: must be recon, because an autoencoder has no posterior")
    if samples < 1:
        raise ValueError(f"samples={samples}: must be a positive integer")
    with apart("score", int(seed)):
        found = importance_likelihood(model.vae, model.batches(images, labels), samples)
    return -(found.elbo if kind == "total" else found.log_p)


def _code(model: Trained, image: Images, label: Labels | None, name: str) -> Tensor:
    """E[z|x] of a single image, (1, latent_dim)."""
    array = as_batch(image, model.shape, name)
    if len(array) != 1:
        raise ValueError(f"{name}: must be a single image, not {len(array)}")
    return model.encode(array, label).mean


def _refuse_fewer_than_two(steps: int) -> None:
    if steps < 2:
        raise ValueError(f"steps={steps}: must be at least 2")
