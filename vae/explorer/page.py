"""One HTML file that holds everything: trained networks, codes, prior, and the program that shows them."""

from __future__ import annotations

import base64
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
from vae.explorer.networks import DECODER, networks, packed
from vae.figures import style
from vae.model.vae import evaluating
from vae.study.scene import Scene

SCRIPTS = (
    "networks.js",
    "latent.js",
    "plane.js",
    "marks.js",
    "pad.js",
    "sheet.js",
    "controls.js",
    "panel.js",
    "app.js",
)
POINTS = 3000  # codes in the plane
DRAWS = 600  # of a prior that the page has no formula for
IMAGES = 60  # of the test set, to be encoded in the page


def page(runs: Sequence[dict[str, Any]]) -> str:
    """The whole file: a page that asks for nothing from elsewhere and shows the described runs side by side."""
    title = " and ".join(run["name"] for run in runs)
    content = {
        "title": html.escape(title),
        "style": _part("style.css"),
        # A browser reads a script to the first "</script", even in a string.
        "runs": json.dumps(runs, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        "scripts": "\n".join(map(_part, SCRIPTS)),
    }
    return re.sub(r"{{ (\w+) }}", lambda found: content[found[1]], _part("page.html"))


def describe(scene: Scene, name: str) -> dict[str, Any]:
    """The page's knowledge of one run, in plain types. The same model gives the same page."""
    with torch.inference_mode(), apart("explorer"), evaluating(scene.vae):
        channels, height, width = scene.loader.images.shape[1:]
        dims = scene.active(2)
        chosen = style.spread(len(scene.codes.means), POINTS)
        return {
            "name": name,
            "note": scene.note,
            "classes": list(scene.classes),
            "colours": style.colours(len(scene.classes)) if scene.classes else [style.CODES],
            "dims": dims,
            "names": [style.axis_name(dim) for dim in range(scene.latent_dim)],
            "networks": networks(scene.vae, (channels, height, width)),
            "prior": prior(scene.prior),
            "outlines": outlines(scene.prior, dims),
            "density": density(scene) if scene.latent_dim == 1 else None,
            "codes": {
                "means": packed(scene.codes.means[chosen], DECODER),
                "labels": scene.codes.labels[chosen].tolist(),
            },
            "images": examples(scene),
        }


def prior(p: Geometry) -> dict[str, Any]:
    """Mean and Cholesky factor of a Gaussian prior, else draws from it beside its mean and scale."""
    told = {"mean": p.mean.tolist(), "scale": p.scale.tolist()}
    if p.samples is None:
        return told | {"factor": torch.linalg.cholesky(p.covariance).tolist()}
    return told | {"draws": packed(p.samples[:DRAWS], DECODER)}


def outlines(p: Geometry, dims: Sequence[int]) -> list[list[Any]]:
    """The closed lines at 1, 2 and 3 σ of the prior in the plane of two dimensions; none of a single dimension."""
    if len(dims) == 1:
        return []
    plane = p.marginal(dims)
    return [[_rounded(line) for line in plane.outline(sigmas)] for sigmas in (1, 2, 3)]


def density(scene: Scene) -> dict[str, Any]:
    """The densities of the prior and of the aggregate posterior where there is one dimension."""
    x = scene.coordinates(0)
    return {
        "x": _rounded(x),
        "prior": _rounded(scene.prior.density(x)),
        "aggregate": _rounded(latents.aggregate_density(scene.codes, 0, x)),
    }


def examples(scene: Scene) -> dict[str, Any]:
    """Test images of all classes in turn, one byte a value, and their labels."""
    chosen = scene.examples(IMAGES)
    values = (scene.test_images(chosen) * 255).round().byte().cpu().numpy()
    return {
        "values": base64.b64encode(values.tobytes()).decode(),
        "labels": scene.loader.labels[chosen].tolist(),
    }


def _rounded(values: Tensor) -> Any:
    return np.round(values.double().cpu().numpy(), 4).tolist()


def _part(name: str) -> str:
    return files("vae.explorer").joinpath(name).read_text(encoding="utf-8")
