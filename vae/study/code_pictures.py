"""The pictures of models whose z is made of codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from torch import Tensor

from vae.evaluation import codes
from vae.evaluation.geometry import covariance
from vae.evaluation.latents import principal
from vae.figures import images, usage
from vae.model.codes import Chosen, Coding
from vae.model.draws import draws
from vae.model.noise import Draw
from vae.model.sequences import Uniform, UniformCodes

if TYPE_CHECKING:
    from vae.study.scene import Scene

COLUMNS = 12
UNIFORM = 3  # rows of samples under the uniform prior, where the model has learned another
LEARNED = 5
MOST = 240  # codes that are drawn one by one


def code_maps(scene: Scene) -> Figure:
    """Images, their codes in colours that are alike where the vectors are, and what is made of them."""
    chosen = scene.examples(COLUMNS)
    originals, labels = scene.test_images(chosen), scene.loader.labels[chosen]
    q = _coded(scene, originals, labels)
    coding = q.coding
    vectors = coding.vectors(q.index)  # (images, places, latent_dim)
    maps = _colours(vectors).unflatten(1, coding.grid).permute(0, 3, 1, 2)  # (images, 3, height, width)
    maps = torch.nn.functional.interpolate(maps, tuple(originals.shape[2:]), mode="nearest")
    rows = [each.cpu().expand(-1, 3, -1, -1) for each in (originals, maps, scene.decode(q.mean, labels))]
    height, width = coding.grid
    title = f"{height}×{width} codes of an image, coloured by their vectors"
    return images.in_rows(torch.stack(rows), ["original", "codes", "reconstruction"], title, scene.note)


def each_code(scene: Scene) -> Figure:
    """Each code in the middle of a map of the most used one, the most used first."""
    coding = _coding(scene)
    count = codes.count(scene.vae, scene.loader)
    order = count[0].argsort(descending=True, stable=True)[:MOST]
    index = count.argmax(-1).expand(len(order), coding.places, -1).clone()  # of each stage
    height, width = coding.grid
    index[:, (height // 2) * width + width // 2, 0] = order
    z = coding.z_of(index.to(next(scene.vae.parameters()).device))
    decoded = scene.decode(z, torch.zeros(len(z), dtype=torch.long))
    columns = 20
    blank = decoded.new_ones(-len(decoded) % columns, *decoded.shape[1:])
    rows = torch.cat([decoded, blank]).unflatten(0, (-1, columns))
    shown = "each code" if len(order) == coding.codes else f"the {MOST} most used of {coding.codes:,} codes"
    title = f"{shown} in the middle of a map of the most used one, by their use"
    return images.in_rows(rows, [], title, scene.note)


def use(scene: Scene) -> Figure:
    """How often each code stands for a place of the test images."""
    return usage.usage(codes.count(scene.vae, scene.loader), scene.note)


def samples(scene: Scene) -> Figure:
    """Draws from the uniform prior, and from the learned one where there is one."""
    vae, coding = scene.vae, _coding(scene)
    uniform = coding.over_z(UniformCodes(coding.codes, torch.Size([coding.places, coding.stages])))
    learned = not isinstance(vae.prior, Uniform)
    classes = torch.tensor(scene.rows) if scene.rows else None
    rows, names = [], []
    if classes is None or not learned:
        count = UNIFORM if learned else UNIFORM + LEARNED
        z = draws(uniform, count * COLUMNS).unflatten(0, (count, COLUMNS))
        rows.append(scene.decode(z, None if classes is None else classes[torch.arange(count) % len(classes)][:, None]))
        names += ["uniform prior"] + [""] * (count - 1)
    if learned:
        count = LEARNED if classes is None else len(classes)
        labels = None if classes is None else classes.repeat_interleave(COLUMNS)
        z = draws(vae.p(labels), count * COLUMNS)
        rows.append(scene.decode(z, labels).unflatten(0, (count, COLUMNS)))
        names += [scene.classes[label] for label in scene.rows] or ["learned prior"] + [""] * (LEARNED - 1)
    return images.in_rows(torch.cat(rows), names, "E[x|z] of codes drawn from the prior", scene.note)


def interpolation(scene: Scene) -> Figure:
    """Between the features of two images, coded at every step."""
    starts, ends = (list(side) for side in zip(*scene.pairs, strict=True))
    labels = scene.loader.labels[starts]
    made = [_made(scene, scene.test_images(side), labels) for side in (starts, ends)]
    t = torch.linspace(0, 1, 11).to(made[0])
    between = torch.lerp(made[0][:, None], made[1][:, None], t[:, None, None])  # (pairs, steps, places, outputs)
    coding = _coding(scene)
    index = coding.choose(between.flatten(0, 1), Draw(mean=True)).codes.chosen
    z = coding.z_of(index).unflatten(0, between.shape[:2])
    names = [(scene.class_of(a), scene.class_of(b)) for a, b in scene.pairs] if scene.classes else ()
    a, b = (scene.test_images(side).cpu() for side in (starts, ends))
    along = "t of features (1 − t) h(a) + t h(b), coded at every step"
    return images.interpolation(scene.decode(z, labels[:, None]), a, b, names, scene.note, along)


def _coding(scene: Scene) -> Coding:
    coding = scene.vae.posterior
    assert isinstance(coding, Coding)
    return coding


def _coded(scene: Scene, originals: Tensor, labels: Tensor) -> Chosen:
    q = scene.vae.q(originals, labels)
    assert isinstance(q, Chosen)
    return q


def _made(scene: Scene, originals: Tensor, labels: Tensor) -> Tensor:
    features, *_ = scene.vae.backbone.encode(originals, labels)
    return _coding(scene).made(features)


def _colours(vectors: Tensor) -> Tensor:
    """Vectors (…, latent_dim) → red, green and blue in [0, 1], (…, 3): their first principal components."""
    flat = vectors.flatten(0, -2).double().cpu()
    axes = principal(covariance(flat)).axes[:3]
    along = (flat - flat.mean(0)) @ axes.T
    along = torch.nn.functional.pad(along, (0, 3 - along.shape[1]))
    scale = along.abs().quantile(0.98, 0).clamp(min=1e-9)
    return (0.5 + 0.45 * (along / scale).clamp(-1, 1)).to(torch.float32).view(*vectors.shape[:-1], 3)
