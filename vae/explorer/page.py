"""One HTML file that holds everything: trained networks, codes, prior, and the program that shows them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae.common.seeding import apart
from vae.evaluation import latents
from vae.evaluation.geometry import Geometry
from vae.explorer.networks import networks
from vae.explorer.numbers import floats, small
from vae.figures import style
from vae.model.draws import draws
from vae.model.vae import evaluating
from vae.study.scene import Scene

SCRIPTS = tuple(
    f"{name}.js"
    for name in (
        *("numbers", "networks", "contours", "latent", "plane", "marks", "pad", "sheet"),
        *("axes", "drawing", "peek", "controls", "panel", "mirror", "explorer"),
    )
)
POINTS = 3000  # codes in the plane
DRAWS = 1500  # of a prior that the page has no formula for
IMAGES = 60  # of the test set, to be encoded in the page
COMPARED = 500  # test images, and draws from the prior, by which the weights are rounded


def page(runs: Sequence[dict[str, Any]]) -> str:
    """The whole file: a page that asks for nothing from elsewhere and shows the described runs side by side."""
    title = " and ".join(run["name"] for run in runs)
    content = {
        "title": html.escape(title),
        "style": _part("page.css") + panel_style(),
        "switch": switch(),
        # A browser reads a script to the first "</script", even in a string.
        "runs": json.dumps(runs, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        "scripts": program() + _part("app.js"),
    }
    return re.sub(r"{{ (\w+) }}", lambda found: content[found[1]], _part("page.html"))


def program() -> str:
    """What runs and shows the described runs in any page that holds an element for them: the class `Explorer`."""
    return "\n".join([*map(_part, SCRIPTS), f"const PANEL = {json.dumps(panel())};\n"])


def panel() -> str:
    """The HTML of one run in an `Explorer`, which it makes itself where the page does not have it yet."""
    return _part("panel.html")


def switch() -> str:
    """The HTML of the buttons that say how the other run follows."""
    return _part("switch.html")


def panel_style() -> str:
    """How the panels of an `Explorer` look, where 1rem is 10 pixels of an ordinary screen."""
    return _part("panel.css")


def describe(scene: Scene, name: str) -> dict[str, Any]:
    """The page's knowledge of one run, in plain types. The same model gives the same page."""
    if scene.is_coded:
        raise ValueError(f"{name}: its z is made of codes, and the page walks through vectors; see its figures instead")
    with torch.inference_mode(), apart("explorer"), evaluating(scene.vae):
        dims = scene.active(2)
        chosen = style.spread(len(scene.codes.means), POINTS)
        return {
            "name": name,
            "note": scene.note,
            "classes": list(scene.classes),
            "colours": style.colours(len(scene.classes)) if scene.classes else [style.CODES],
            "dims": dims,
            "names": [style.axis_name(dim) for dim in range(scene.latent_dim)],
            "kl": kl(scene),
            "networks": networks(scene.vae, *compared(scene)),
            "prior": prior(scene.prior, dims),
            "density": density(scene) if scene.latent_dim == 1 else None,
            "codes": {
                "means": floats(scene.codes.means[chosen]),
                "labels": scene.codes.labels[chosen].tolist(),
            },
            "images": examples(scene),
        }


def compared(scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """Test images of all classes, their labels, and as many draws from the prior."""
    chosen = scene.examples(COMPARED)
    images = scene.test_images(chosen)
    return images, scene.loader.labels[chosen].to(images.device), draws(scene.vae.prior(), len(chosen)).to(images)


def kl(scene: Scene) -> list[float] | None:
    """KL of each dimension in nats; none of an autoencoder, whose codes are points."""
    return None if scene.at_mean else _rounded(latents.kl_per_dimension(scene.codes, scene.prior))


def prior(p: Geometry, dims: Sequence[int]) -> dict[str, Any]:
    """Mean and Cholesky factor of a Gaussian prior, else draws from it beside its mean and scale.

    Draws come with the closed lines at 1, 2 and 3 σ in the plane of two dimensions, which are smoother than the page's.
    """
    told: dict[str, Any] = {"mean": p.mean.tolist(), "scale": p.scale.tolist()}
    if p.samples is None:
        return told | {"factor": torch.linalg.cholesky(p.covariance).tolist()}
    told["draws"] = floats(p.samples[:DRAWS])
    if len(dims) == 1:
        return told
    plane = p.marginal(dims)
    lines = [[_rounded(line) for line in plane.outline(sigmas)] for sigmas in (1, 2, 3)]
    return told | {"outlines": {"dims": list(dims), "lines": lines}}


def density(scene: Scene) -> dict[str, Any]:
    """The densities of the prior and of the aggregate posterior where there is one dimension."""
    x = scene.coordinates(0)
    return {
        "x": _rounded(x),
        "prior": _rounded(scene.prior.density(x)),
        "aggregate": _rounded(latents.aggregate_density(scene.codes, 0, x)),
    }


def examples(scene: Scene) -> dict[str, Any]:
    """Test images of all classes in turn, in bytes, and their labels."""
    chosen = scene.examples(IMAGES)
    values = (scene.test_images(chosen) * 255).round().byte()
    return {"values": small(values), "labels": scene.loader.labels[chosen].tolist()}


def _rounded(values: Tensor) -> Any:
    return np.round(values.double().cpu().numpy(), 4).tolist()


def _part(name: str) -> str:
    return files("vae.explorer").joinpath(name).read_text(encoding="utf-8")
