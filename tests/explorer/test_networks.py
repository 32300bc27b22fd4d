import base64
import json
import shutil
import subprocess
from importlib.resources import files

import numpy as np
import pytest
import torch
from page_models import MODELS
from torch import nn

from vae.explorer.networks import networks, operations, packed
from vae.model.likelihoods import Likelihood
from vae.model.posteriors import Posterior

RUN = """
const { description, images, latents, labels } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const model = new Model(description);
console.log(JSON.stringify({
  codes: images.map((image, i) => model.encode(Float32Array.from(image), labels[i])),
  decoded: latents.map((z, i) => Array.from(model.decode(z, labels[i]))),
}));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("name", MODELS)
def test_the_page_computes_what_torch_does(scene_of, name, tmp_path):
    scene = scene_of(name)
    images, labels = scene.test_images(range(6)), scene.loader.labels[:6]
    latents = torch.randn(6, scene.latent_dim)
    question = {
        "description": networks(scene.vae, tuple(images.shape[1:])),
        "images": images.flatten(1).tolist(),
        "latents": latents.tolist(),
        "labels": labels.tolist(),
    }
    program = tmp_path / "program.js"
    program.write_text(files("vae.explorer").joinpath("networks.js").read_text() + RUN)
    done = subprocess.run(["node", program], input=json.dumps(question), capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    with torch.no_grad():
        q, decoded = scene.vae.encode(images, labels), scene.vae.decode(latents, labels).mean
        covariance = q.covariance_matrix
    means = torch.tensor([code["mean"] for code in answer["codes"]])
    factors = torch.tensor([code["factor"] for code in answer["codes"]])
    assert ((means - q.mean).abs() <= 1e-3 * q.stddev).all()
    torch.testing.assert_close(factors @ factors.mT, covariance, rtol=1e-3, atol=1e-3 * covariance.max().item())
    torch.testing.assert_close(torch.tensor(answer["decoded"]), decoded.flatten(1), rtol=0, atol=1e-3)
    assert decoded.std(0).max() > 0.02  # else agreement would say little


def test_numbers_in_three_bytes_are_exact_to_2_to_the_minus_16():
    values = torch.randn(1000) * torch.logspace(-6, 6, 1000)
    raw = np.frombuffer(base64.b64decode(packed(values, 3)), np.uint8).reshape(-1, 3)
    whole = np.concatenate([np.zeros((1000, 1), np.uint8), raw], 1).view("<f4")[:, 0]
    assert (np.abs(whole - values.numpy()) <= 2.0**-16 * np.abs(values.numpy())).all()


def test_layers_that_the_page_cannot_run_are_refused():
    with pytest.raises(ValueError, match=r"backbone: the page cannot run the layer Tanh\(\); it must be one of"):
        operations(nn.Sequential(nn.Linear(2, 3), nn.Tanh()), 4)
    with pytest.raises(ValueError, match="convolutions without groups"):
        operations(nn.Conv2d(2, 2, 3, groups=2), 4)


@pytest.mark.parametrize("part", ["posterior", "likelihood"])
def test_other_parts_that_the_page_cannot_run_are_refused(scene_of, part):
    vae = scene_of("dense").vae
    if part == "posterior":
        vae.levels[0].encoding = Posterior()
    else:
        vae.likelihood = Likelihood()
    with pytest.raises(ValueError, match=f"(?i){part}={part}: must "):
        networks(vae, (1, 10, 12))
