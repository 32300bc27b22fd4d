"""Every picture by its tag: from a scene to a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure

from vae.evaluation import grids, latents
from vae.evaluation.geometry import contours, coordinates, ellipse, mean
from vae.evaluation.true_posterior import true_posterior
from vae.figures import curves, dimensions, images, latent, manifold, posterior, solid
from vae.figures.style import axis_name
from vae.model.draws import draws
from vae.model.joint import of_noise
from vae.study import code_pictures

if TYPE_CHECKING:
    from vae.study.scene import Scene

OTHERS = {"axis": "stay", "conditional": "follow at the prior's conditional mean"}  # dimensions, in a traversal
CELLS = 10  # of a sheet along each side where every class has a sheet of its own
WALKED = 3  # images that traversals begin at
TEMPERATURES = (0.4, 0.6, 0.8, 1.0)
SINGLES = 3  # images drawn with their true posterior; each takes a twentieth of a second


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


def _manifold(scene: Scene) -> Figure:
    dims = scene.active(2)
    if scene.rows:
        return _manifold_by_class(scene, dims)
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


def _manifold_by_class(scene: Scene, dims: Sequence[int]) -> Figure:
    sheets = grids.manifold(scene.prior, scene.grid, dims, CELLS if scene.latent_dim > 1 else 2 * CELLS)
    sheet = sheets[len(sheets) // 2]
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
        return clusters_3d(scene)
    views = [_view(scene, scene.active(2))]
    if scene.latent_dim > 3:
        views.append(_principal_view(scene))
    return latent.clusters(views, scene.codes.labels, scene.classes, scene.note)


def clusters_3d(scene: Scene, points: int = latent.POINTS) -> Figure:
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
    return dimensions.covariance(scene.prior.covariance, scene.between, scene.aggregate, names, scene.note)


def _activity(scene: Scene) -> Figure:
    codes, prior = scene.codes, scene.prior
    kl = latents.kl_per_dimension(codes, prior)
    return dimensions.activity(
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
    if scene.is_coded:
        return code_pictures.samples(scene)
    if not scene.rows:
        z = draws(scene.vae.p(), 8 * 12).unflatten(0, (8, 12))
        return images.samples(scene.decode(z), note=scene.note)
    classes = torch.tensor(scene.rows)[:, None]
    if len(scene.vae.levels) == 1:
        z = draws(scene.vae.prior(), 12)
        decoded = scene.decode(z.expand(len(scene.rows), *z.shape), classes)
    else:  # the same noise, as what it becomes depends on the class
        decoded = _from_noise(scene, torch.randn(1, 12, scene.vae.numbers).expand(len(classes), -1, -1), classes)
    return images.samples(decoded, [scene.classes[label] for label in scene.rows], scene.note)


def _interpolation(scene: Scene) -> Figure:
    if scene.is_coded:
        return code_pictures.interpolation(scene)
    pairs = scene.pairs
    (starts, start_means, labels), (ends, end_means, _) = (scene.encoded(side) for side in zip(*pairs, strict=True))
    decoded = scene.decode(grids.interpolation(start_means, end_means, 11), labels[:, None])
    names = [(scene.class_of(a), scene.class_of(b)) for a, b in pairs] if scene.classes else ()
    return images.interpolation(decoded, starts.cpu(), ends.cpu(), names, scene.note)


def _traversal(scene: Scene) -> Figure:
    dims, offsets = scene.ranking[:10], torch.linspace(-grids.SPAN, grids.SPAN, 7)
    originals, codes, labels = scene.encoded(scene.examples(WALKED))
    codes = codes[:, : scene.latent_dim]
    z = torch.stack([grids.traversal(code, scene.prior, dims, offsets, scene.walk) for code in codes])
    decoded = scene.decode(z, labels[:, None, None])
    names, active = [axis_name(i) for i in dims], latents.active_units(scene.codes.means)[dims].tolist()
    return images.traversal(decoded, originals.cpu(), offsets, names, active, OTHERS[scene.walk], scene.note)


def _redrawn(scene: Scene) -> Figure:
    """Rows of samples that share the noise of the upper levels, one more in each row."""
    base, other = torch.randn(12, scene.vae.numbers), torch.randn(12, scene.vae.numbers)
    rows, names, fixed = [], [], 0
    for count, level in enumerate(scene.vae.levels):
        noise = torch.cat([base[:1, :fixed].expand(12, -1), other[:, fixed:]], 1)
        rows.append(torch.cat([base[:1], noise[1:]]))
        names.append("all redrawn" if not count else f"{'top level' if count == 1 else f'upper {count}'} kept")
        fixed += level.numbers
    return images.in_rows(_from_noise(scene, torch.stack(rows)), names, "the first sample, and redrawn", scene.note)


def _upper(scene: Scene) -> Figure:
    """Images beside what their upper levels alone make of them."""
    chosen = scene.examples(12)
    originals, means, labels = scene.encoded(chosen)
    rows, names, known = [originals.cpu()], ["original"], 0
    for count, level in enumerate(scene.vae.levels, 1):
        known += level.numbers
        rows.append(scene.decode(means[:, :known], labels))
        names.append("top level" if count == 1 else f"upper {count}")
    names[-1] = "all levels"
    title = "reconstructions from the upper levels, those below at their prior's mean"
    return images.in_rows(torch.stack(rows), names, title, scene.note)


def _temperature(scene: Scene) -> Figure:
    """The same draws with their noise scaled."""
    scales = torch.tensor(TEMPERATURES)
    noise = scales[:, None, None] * torch.randn(12, scene.vae.numbers)
    title = "the same draws with all standard deviations scaled by a temperature"
    return images.in_rows(_from_noise(scene, noise), [f"{each:g}" for each in TEMPERATURES], title, scene.note)


def _from_noise(scene: Scene, noise: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
    """Decoded draws (rows, columns, …) of noise (rows, columns, numbers); in a conditional model of classes in turn."""
    if classes is None and scene.rows:
        classes = torch.tensor(scene.rows)[torch.arange(noise.shape[1]) % len(scene.rows)]
    flat = None if classes is None else classes.expand(noise.shape[:-1]).flatten()
    noise_of_all = noise.flatten(0, 1).to(next(scene.vae.parameters()))
    choice = torch.rand(noise.shape[1]).expand(noise.shape[:-1]).flatten().to(noise_of_all)
    z = of_noise(scene.vae.p(flat), noise_of_all, choice)
    return scene.decode(z, flat).unflatten(0, noise.shape[:-1])


def _kl_of_levels(scene: Scene) -> Figure:
    return curves.levels(scene.history, len(scene.vae.levels), scene.epoch, scene.note)


def _losses(scene: Scene) -> Figure:
    return curves.losses(scene.history, scene.epoch, scene.note)


DRAW: dict[str, Callable[[Scene], Figure]] = {
    "latent/manifold": _manifold,
    "latent/clusters": _clusters,
    "latent/pairs": _pairs,
    "latent/covariance": _covariance,
    "latent/activity": _activity,
    "latent/true_posterior": _true_posterior,
    "latent/codebook": code_pictures.each_code,
    "latent/usage": code_pictures.use,
    "images/codes": code_pictures.code_maps,
    "images/reconstructions": _reconstructions,
    "images/samples": _samples,
    "images/interpolation": _interpolation,
    "images/traversal": _traversal,
    "images/redrawn": _redrawn,
    "images/upper": _upper,
    "images/temperature": _temperature,
    "curves/losses": _losses,
    "curves/levels": _kl_of_levels,
}
TAGS = tuple(DRAW)
CODES_ALONE = ("latent/codebook", "latent/usage", "images/codes")  # where z is made of codes
NOT_OF_CODES = (*(tag for tag in TAGS if tag.startswith("latent/") and tag not in CODES_ALONE), "images/traversal")
OF_LEVELS = ("images/redrawn", "images/upper", "images/temperature", "curves/levels")  # where there are several


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
