"""Every picture by its tag: from a model and test images to a figure. Used while training and afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from vae.common.seeding import apart
from vae.data.loader import BatchLoader
from vae.evaluation import grids, latents
from vae.evaluation.geometry import Geometry, contours, coordinates, covariance, ellipse, mean
from vae.evaluation.true_posterior import true_posterior
from vae.figures import curves, images, latent, manifold, posterior, solid
from vae.figures.style import axis_name
from vae.model.draws import draws
from vae.model.vae import VAE, evaluating
from vae.settings.config import is_at_mean, kind, objective_name

CLASSES = 12  # that a picture has rows for
OTHERS = {"axis": "stay", "conditional": "follow at the prior's conditional mean"}  # dimensions, in a traversal
SINGLES = 3  # images drawn with their true posterior; each takes a twentieth of a second

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

    `about` is what a checkpoint says of itself, see `vae.model.checkpoints.about`.
    """

    def __init__(
        self,
        vae: VAE,
        loader: BatchLoader,
        about: Mapping[str, Any],
        epoch: int,
        grid: str = "whitened",
        walk: str = "axis",
        history: History = (),
    ):
        self.vae = vae
        self.loader = loader
        self.classes: Sequence[str] = about["classes"]
        self.grid = grid
        self.walk = walk
        self.history = history
        self.epoch = epoch
        self.at_mean = is_at_mean(about["config"])
        self.latent_dim: int = about["config"]["latent_dim"]
        self.note = small_print(about, epoch)

    @property
    def tags(self) -> tuple[str, ...]:
        """The pictures that apply: curves need epochs, others a number of dimensions or a posterior."""
        applies = {
            "latent/pairs": self.latent_dim > 1,
            "latent/true_posterior": self.latent_dim <= 2 and not self.at_mean,
            "latent/activity": not self.at_mean,  # it shows a kl
            "images/interpolation": bool(self.pairs),
            "curves/losses": bool(self.history),
        }
        return tuple(tag for tag in TAGS if applies.get(tag, True))

    def draw(self, name: str) -> Figure:
        """Draw one picture by its tag or the tag's end; the same model always gives the same picture.

        The caller's random numbers stay as they were.
        """
        (tag,) = select([name], "picture")
        with self._quietly():
            if tag not in self.tags:
                raise ValueError(f"picture={tag}: there is none of this run")
            return _DRAW[tag](self)

    def turning(self) -> Iterator[Any]:
        """The frames of the clusters of three dimensions turning once around."""
        with self._quietly():
            figure = _clusters_3d(self, points=2000)
        return solid.turning(figure)

    # What several pictures ask for, and the same whichever asks first -------------------------------------------------

    @cached_property
    def codes(self) -> latents.Codes:
        with self._quietly():
            return latents.encode(self.vae, self.loader, self.at_mean)

    @cached_property
    def prior(self) -> Geometry:
        with self._quietly():
            return Geometry.of(self.vae.prior())

    @cached_property
    def between(self) -> Tensor:
        """Covariance of the posterior means, (latent_dim, latent_dim)."""
        return covariance(self.codes.means)

    @cached_property
    def aggregate(self) -> Tensor:
        """Covariance of the aggregate posterior, (latent_dim, latent_dim)."""
        return self.between + self.codes.noise

    @cached_property
    def principal(self) -> latents.Principal:
        """Principal axes of the posterior means."""
        return latents.principal(self.between)

    @cached_property
    def ranking(self) -> list[int]:
        return latents.ranking(self.codes, self.prior)

    def active(self, count: int) -> list[int]:
        """The dimensions that say most about the image, at most `count`, in rising order."""
        return sorted(self.ranking[:count])

    def coordinates(self, dim: int) -> Tensor:
        """Coordinates (points,) that cover the prior and all codes in one dimension."""
        middle, reach = self.prior.mean[dim].item(), 3.5 * self.prior.scale[dim].item()
        means = self.codes.means[:, dim]
        low, high = min(middle - reach, means.min().item()), max(middle + reach, means.max().item())
        return torch.linspace(low, high, 150, dtype=torch.float64)

    @property
    def rows(self) -> list[int]:
        """The classes that pictures of a conditional model have a row for; none of any other model."""
        return list(range(min(self.vae.backbone.classes, CLASSES)))

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """E[x|z] of latents (…, latent_dim) as (…, channels, height, width) on the CPU, in one batch.

        Labels, which broadcast to (…,), matter to a conditional model only.
        """
        return self.vae.decode(z.to(next(self.vae.parameters())), labels).mean.cpu()

    def encoded(self, index: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Some test images as the model sees them, their posterior means and their labels."""
        originals, labels = self.test_images(index), self.loader.labels[list(index)]
        return originals, self.vae.encode(originals, labels).mean, labels

    def test_images(self, index: Sequence[int]) -> Tensor:
        """Some test images as the model sees them, on its device."""
        chosen = self.loader.images[list(index)] / 255
        return torch.bernoulli(chosen) if self.loader.dynamic else chosen

    def examples(self, count: int) -> list[int]:
        """Positions of `count` test images of classes in turn: the first of each class, the second of each, …"""
        members = [self.members(label, count) for label in self.loader.labels.unique().tolist()]
        turns = range(max(map(len, members)))
        in_turn = [member[turn] for turn in turns for member in members if turn < len(member)]
        return in_turn[:count]

    def members(self, label: int, count: int) -> list[int]:
        """Positions of the first `count` test images of a class."""
        return (self.loader.labels == label).nonzero().flatten()[:count].tolist()

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Positions of test images to interpolate between: of different classes, or of each where there are rows."""
        if self.rows:
            return [(members[0], members[-1]) for label in self.rows if (members := self.members(label, 2))]
        return list(itertools.pairwise(self.examples(9)))  # neighbours in turn are of different classes

    def class_of(self, position: int) -> str:
        """The class of a test image, or nothing."""
        return self.classes[int(self.loader.labels[position])] if self.classes else ""

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        with torch.inference_mode(), apart("pictures"), evaluating(self.vae):
            yield


def small_print(about: Mapping[str, Any], epoch: int) -> str:
    """A run's essentials in one line."""
    config = about["config"]
    told = " · conditional" if config.get("conditional") else ""
    model = f"latent_dim {config['latent_dim']} · {kind(config['prior'])} prior{told} · {objective_name(config)}"
    return f"{about['data']} · {model} · epoch {epoch}"


def _manifold(scene: Scene) -> Figure:
    dims = scene.active(2)
    sheets = grids.manifold(scene.prior, scene.grid, dims)
    if scene.rows:
        return _manifold_by_class(scene, sheets[len(sheets) // 2])
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


def _manifold_by_class(scene: Scene, sheet: grids.Sheet) -> Figure:
    decoded = scene.decode(sheet.z.expand(len(scene.rows), *sheet.z.shape), torch.tensor(scene.rows)[:, None, None])
    place = sheet.z[..., list(sheet.dims)]
    names, titles = [axis_name(dim) for dim in sheet.dims], [scene.classes[label] for label in scene.rows]
    return manifold.manifold(list(decoded), [place] * len(scene.rows), names, titles, scene.note)


def _clusters(scene: Scene) -> Figure:
    if scene.latent_dim == 1:
        x = scene.coordinates(0)
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
        x = scene.coordinates(i)
        densities.append((x, scene.prior.marginal([i]).density(x), latents.aggregate_density(scene.codes, i, x)))
    means, names = scene.codes.means[:, dims], [axis_name(i) for i in dims]
    return latent.pairs(means, scene.codes.labels, scene.classes, views, densities, names, scene.note)


def _covariance(scene: Scene) -> Figure:
    names = [axis_name(i) for i in range(scene.latent_dim)]
    return latent.covariance(scene.prior.covariance, scene.between, scene.aggregate, names, scene.note)


def _activity(scene: Scene) -> Figure:
    codes, prior = scene.codes, scene.prior
    kl = latents.kl_per_dimension(codes, prior)
    return latent.activity(
        kl,
        scene.between.diagonal(),
        scene.principal.shares,
        latents.active_units(codes.means),
        latents.ACTIVE,
        f"sum: {kl.sum():.2f}" if latents.adds_up(codes, prior) else "of the marginals: these do not add up to kl",
        scene.note,
    )


def _true_posterior(scene: Scene) -> Figure:
    chosen = scene.examples(SINGLES)
    ends = torch.stack([scene.coordinates(i)[[0, -1]] for i in range(scene.latent_dim)], 1)
    originals, labels = scene.test_images(chosen), scene.loader.labels[chosen]
    found = true_posterior(scene.vae, originals, labels, *ends)
    singles = []
    for i, original in enumerate(originals.cpu()):
        title = f"KL(q‖p) = {found.kl[i]:.2f} nats\nlog p(x) = {found.log_p[i]:.1f}".replace("-", "−")
        axes, density = found.q.axes[i], found.q.density[i]
        if scene.latent_dim == 1:
            q = [[torch.stack([axes[0], density], 1)]]
        else:
            q = [contours(axes[0], axes[1], density, sigmas) for sigmas in (1, 2)]
        singles.append(posterior.Single(original, title, list(found.p.axes[i]), found.p.density[i], q))
    if scene.latent_dim == 1:
        return posterior.lines(singles, axis_name(0), scene.note)
    return posterior.planes(singles, [axis_name(0), axis_name(1)], scene.note)


def _reconstructions(scene: Scene) -> Figure:
    chosen = scene.examples(min(len(scene.classes) or 10, 12))
    originals, means, labels = scene.encoded(chosen)
    decoded = scene.decode(means, labels)
    return images.reconstructions(originals.cpu(), decoded, [scene.class_of(i) for i in chosen], scene.note)


def _samples(scene: Scene) -> Figure:
    if not scene.rows:
        z = draws(scene.vae.prior(), 8 * 12).unflatten(0, (8, 12))
        return images.samples(scene.decode(z), note=scene.note)
    z = draws(scene.vae.prior(), 12)
    decoded = scene.decode(z.expand(len(scene.rows), *z.shape), torch.tensor(scene.rows)[:, None])
    return images.samples(decoded, [scene.classes[label] for label in scene.rows], scene.note)


def _interpolation(scene: Scene) -> Figure:
    pairs = scene.pairs
    (starts, start_means, labels), (ends, end_means, _) = (scene.encoded(side) for side in zip(*pairs, strict=True))
    decoded = scene.decode(grids.interpolation(start_means, end_means, 11), labels[:, None])
    names = [(scene.class_of(a), scene.class_of(b)) for a, b in pairs] if scene.classes else ()
    return images.interpolation(decoded, starts.cpu(), ends.cpu(), names, scene.note)


def _traversal(scene: Scene) -> Figure:
    dims, offsets = scene.active(10), torch.linspace(-grids.SPAN, grids.SPAN, 11)
    original, code, label = scene.encoded(scene.examples(1))
    decoded = scene.decode(grids.traversal(code[0], scene.prior, dims, offsets, scene.walk), label)
    names, others = [axis_name(i) for i in dims], OTHERS[scene.walk]
    return images.traversal(decoded, original[0].cpu(), offsets, names, others, scene.note)


def _losses(scene: Scene) -> Figure:
    return curves.losses(scene.history, scene.epoch, scene.note)


_DRAW: dict[str, Callable[[Scene], Figure]] = {
    "latent/manifold": _manifold,
    "latent/clusters": _clusters,
    "latent/pairs": _pairs,
    "latent/covariance": _covariance,
    "latent/activity": _activity,
    "latent/true_posterior": _true_posterior,
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
    axes, shares = scene.principal
    plane, origin = axes[:2], mean(scene.codes.means)
    points = coordinates(scene.codes.means, plane, origin)
    around = ellipse(torch.zeros(2, dtype=points.dtype), plane @ scene.aggregate @ plane.T, 2)
    prior = scene.prior.along(plane, origin)
    names = [f"principal component {i + 1} ({share:.0%})" for i, share in enumerate(shares[:2].tolist())]
    return latent.View(points, [prior.outline(k) for k in (1, 2, 3)], around, names)


def _signed(value: float) -> str:
    return f"{value:.2f}".removesuffix(".00").replace("-", "−")
