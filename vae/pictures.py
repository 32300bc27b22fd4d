"""Every picture by its tag: from a model and test images to a figure. Used while training and afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from vae.data.loader import BatchLoader
from vae.evaluation import grids, latents
from vae.evaluation.geometry import Geometry, ellipse
from vae.figures import curves, images, latent, manifold, solid
from vae.figures.style import axis_name
from vae.model import VAE
from vae.seeding import derive

History = Sequence[Mapping[str, float]]  # rows of the `Scalars` callback


def select(names: Sequence[str] | None, key: str = "only") -> tuple[str, ...]:
    """The tags of names such as `manifold` or `latent/manifold`, in the order of `TAGS`; None means all."""
    if names is None:
        return TAGS
    short = {tag.partition("/")[2]: tag for tag in TAGS}
    chosen = {short.get(name, name) for name in names}
    for name in names:
        if short.get(name, name) not in TAGS:
            raise ValueError(f"{key}={name}: must be one of {', '.join(short)}")
    return tuple(tag for tag in TAGS if tag in chosen)


class Scene:
    """A model and the test images as the pictures see them: encoded once, when the first picture asks.

    `about` is what a checkpoint says of itself, see `vae.checkpoints.about`.
    """

    def __init__(
        self,
        vae: VAE,
        loader: BatchLoader,
        about: Mapping[str, Any],
        epoch: int,
        grid: str = "whitened",
        history: History = (),
    ):
        self.vae = vae
        self.loader = loader
        self.classes: Sequence[str] = about["classes"]
        self.grid = grid
        self.history = history
        self.note = small_print(about, epoch)

    @property
    def tags(self) -> tuple[str, ...]:
        """The pictures that apply: a single dimension has no pairs, and curves need epochs."""
        left_out = {"latent/pairs" if self.latent_dim == 1 else "", "" if self.history else "curves/losses"}
        return tuple(tag for tag in TAGS if tag not in left_out)

    def draw(self, tag: str) -> Figure:
        """One picture. The same model gives the same picture, and the caller's random numbers stay as they were."""
        with self._quietly():
            return _DRAW[tag](self)

    def turning(self) -> Iterator[Any]:
        """The frames of the clusters of three dimensions turning once around."""
        with self._quietly():
            figure = _clusters_3d(self, points=2000)
        return solid.turning(figure)

    # What several pictures ask for ------------------------------------------------------------------------------------

    @cached_property
    def codes(self) -> latents.Codes:
        return latents.encode(self.vae, self.loader)

    @cached_property
    def prior(self) -> Geometry:
        return Geometry.of(self.vae.prior())

    @cached_property
    def aggregate(self) -> Tensor:
        """Covariance of the aggregate posterior, (latent_dim, latent_dim)."""
        return latents.aggregate_covariance(self.codes)

    @property
    def latent_dim(self) -> int:
        return len(self.prior.mean)

    def active(self, count: int) -> list[int]:
        return latents.most_active(self.codes, self.prior, count)

    def decode(self, z: Tensor) -> Tensor:
        """E[x|z] of latents (…, latent_dim) as (…, channels, height, width) on the CPU, in one batch."""
        weight = next(self.vae.parameters())
        decoded = self.vae.decode(z.reshape(-1, z.shape[-1]).to(weight)).mean.cpu()
        return decoded.reshape(*z.shape[:-1], *decoded.shape[1:])

    def test_images(self, index: Sequence[int]) -> Tensor:
        """Some test images as the model sees them, on its device."""
        chosen = self.loader.images[list(index)] / 255
        return torch.bernoulli(chosen) if self.loader.dynamic else chosen

    def examples(self, count: int) -> list[int]:
        """Positions of `count` test images of classes in turn: the first of each class, the second of each, …"""
        labels = self.loader.labels.cpu()
        members = [(labels == label).nonzero().flatten()[:count].tolist() for label in labels.unique().tolist()]
        turns = range(max(map(len, members)))
        in_turn = [member[turn] for turn in turns for member in members if turn < len(member)]
        return in_turn[:count]

    def class_of(self, position: int) -> str:
        """The class of a test image, or nothing."""
        return self.classes[int(self.loader.labels[position])] if self.classes else ""

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        training = self.vae.training
        with torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(derive("pictures"))
            try:
                self.vae.eval()
                yield
            finally:
                self.vae.train(training)


def small_print(about: Mapping[str, Any], epoch: int) -> str:
    """A run's essentials in one line."""
    config = about["config"]
    prior = str(config["prior"]["_target_"]).rpartition(".")[2].lower()
    return f"{about['data']} · latent_dim {config['latent_dim']} · {prior} prior · β {config['beta']:g} · epoch {epoch}"


def _manifold(scene: Scene) -> Figure:
    dims = scene.active(2)
    sheets = grids.manifold(scene.prior, scene.grid, dims)
    decoded = scene.decode(torch.stack([sheet.z for sheet in sheets]))
    titles = []
    for sheet in sheets:
        if sheet.cut is not None:
            dim, value, sigmas = sheet.cut
            titles.append(
                f"{axis_name(dim)} = {_signed(value)}" + ("" if value == sigmas else f" ({_signed(sigmas)} σ)")
            )
        elif scene.latent_dim > 2:
            titles.append("all other dimensions at the prior's mean")
    places = [sheet.z[..., list(sheet.dims)] for sheet in sheets]
    names = [axis_name(dim) for dim in sheets[0].dims]
    return manifold.manifold(list(decoded), places, names, titles, scene.note)


def _clusters(scene: Scene) -> Figure:
    if scene.latent_dim == 1:
        x = _coordinates(scene, 0)
        densities = scene.prior.density(x), latents.aggregate_density(scene.codes, 0, x)
        return latent.clusters_1d(scene.codes.means, scene.codes.labels, scene.classes, x, *densities, scene.note)
    if scene.latent_dim == 3:
        return _clusters_3d(scene)
    views = [_view(scene, scene.active(2))]
    if scene.latent_dim > 3:
        views.append(_principal_view(scene))
    return latent.clusters(views, scene.codes.labels, scene.classes, scene.note)


def _clusters_3d(scene: Scene, points: int = latent.POINTS) -> Figure:
    walls: solid.Walls = {}
    for i, j in ((0, 1), (0, 2), (1, 2)):
        view = _view(scene, (i, j))
        walls[i, j] = (view.prior, view.aggregate)
    return solid.clusters_3d(scene.codes.means, scene.codes.labels, scene.classes, walls, points, scene.note)


def _pairs(scene: Scene) -> Figure:
    dims = scene.active(6)
    views = [[_view(scene, (j, i)) if j < i else None for j in dims] for i in dims]
    densities = []
    for i in dims:
        x = _coordinates(scene, i)
        densities.append((x, scene.prior.marginal([i]).density(x), latents.aggregate_density(scene.codes, i, x)))
    means, names = scene.codes.means[:, dims], [axis_name(i) for i in dims]
    return latent.pairs(means, scene.codes.labels, scene.classes, views, densities, names, scene.note)


def _covariance(scene: Scene) -> Figure:
    names = [axis_name(i) for i in range(scene.latent_dim)]
    means = latents.covariance(scene.codes.means)
    return latent.covariance(scene.prior.covariance, means, scene.aggregate, names, scene.note)


def _activity(scene: Scene) -> Figure:
    codes, prior = scene.codes, scene.prior
    kl = latents.kl_per_dimension(codes, prior)
    return latent.activity(
        kl,
        latents.covariance(codes.means).diagonal(),
        latents.principal(codes.means).shares,
        latents.active_units(codes.means),
        latents.ACTIVE,
        f"sum: {kl.sum():.2f}" if latents.adds_up(codes, prior) else "of the marginals: these do not add up to kl",
        scene.note,
    )


def _reconstructions(scene: Scene) -> Figure:
    chosen = scene.examples(min(len(scene.classes) or 10, 12))
    originals = scene.test_images(chosen)
    decoded = scene.decode(scene.vae.encode(originals).mean)
    return images.reconstructions(originals.cpu(), decoded, [scene.class_of(i) for i in chosen], scene.note)


def _samples(scene: Scene) -> Figure:
    z = scene.vae.prior().sample(torch.Size([8, 12]))
    return images.samples(scene.decode(z), scene.note)


def _interpolation(scene: Scene) -> Figure:
    chosen = scene.examples(9)
    starts, ends = chosen[:-1], chosen[1:]  # neighbours in turn are of different classes
    originals = scene.test_images(chosen)
    means = scene.vae.encode(originals).mean
    decoded = scene.decode(grids.interpolation(means[:-1], means[1:], 11))
    names = [(scene.class_of(a), scene.class_of(b)) for a, b in zip(starts, ends, strict=True)]
    pixels = originals.cpu()
    return images.interpolation(decoded, pixels[:-1], pixels[1:], names if scene.classes else (), scene.note)


def _traversal(scene: Scene) -> Figure:
    dims, offsets = scene.active(10), torch.linspace(-grids.SPAN, grids.SPAN, 11)
    original = scene.test_images(scene.examples(1))
    code = scene.vae.encode(original).mean[0]
    decoded = scene.decode(grids.traversal(code, scene.prior.scale, dims, offsets))
    return images.traversal(decoded, original[0].cpu(), offsets, [axis_name(i) for i in dims], scene.note)


def _losses(scene: Scene) -> Figure:
    return curves.losses(scene.history, scene.note)


_DRAW: dict[str, Callable[[Scene], Figure]] = {
    "latent/manifold": _manifold,
    "latent/clusters": _clusters,
    "latent/pairs": _pairs,
    "latent/covariance": _covariance,
    "latent/activity": _activity,
    "images/reconstructions": _reconstructions,
    "images/samples": _samples,
    "images/interpolation": _interpolation,
    "images/traversal": _traversal,
    "curves/losses": _losses,
}
TAGS = tuple(_DRAW)


def _view(scene: Scene, dims: Sequence[int]) -> latent.View:
    """Codes, prior and aggregate posterior in the plane of two dimensions."""
    chosen = list(dims)
    means = scene.codes.means[:, chosen]
    around = ellipse(means.double().mean(0), scene.aggregate[chosen][:, chosen], 2)
    prior = scene.prior.marginal(chosen)
    return latent.View(means, [prior.outline(k) for k in (1, 2, 3)], around, [axis_name(i) for i in chosen])


def _principal_view(scene: Scene) -> latent.View:
    """The same in the plane of the first two principal components of the means."""
    axes, origin, shares = latents.principal(scene.codes.means)
    plane = axes[:2]
    points = (scene.codes.means.double() - origin) @ plane.T
    around = ellipse(torch.zeros(2, dtype=points.dtype), plane @ scene.aggregate @ plane.T, 2)
    prior = scene.prior.along(plane, origin)
    names = [f"principal component {i + 1} ({share:.0%})" for i, share in enumerate(shares[:2].tolist())]
    return latent.View(points, [prior.outline(k) for k in (1, 2, 3)], around, names)


def _coordinates(scene: Scene, dim: int) -> Tensor:
    """Coordinates (points,) that cover the prior and all codes in one dimension."""
    middle, reach = scene.prior.mean[dim].item(), 3.5 * scene.prior.scale[dim].item()
    means = scene.codes.means[:, dim]
    low, high = min(middle - reach, means.min().item()), max(middle + reach, means.max().item())
    return torch.linspace(low, high, 150, dtype=torch.float64)


def _signed(value: float) -> str:
    return f"{value:.2f}".removesuffix(".00").replace("-", "−")
