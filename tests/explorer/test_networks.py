import json
import shutil
import subprocess
from importlib.resources import files

import pytest
import torch
from page_models import MODELS

from vae.explorer.networks import fewest_bits, networks, with_rounded_weights
from vae.model.build import build_model
from vae.model.discretized import DiscretizedLogistic, LogisticMixture
from vae.model.likelihoods import Likelihood
from vae.model.posteriors import Posterior
from vae.settings.compose import CONF
from vae.settings.config import is_explorable

RUN = """
const { description, images, latents, labels } = JSON.parse(require("fs").readFileSync(0, "utf8"));
unpacked(description).then((read) => {
  const model = new Model(read);
  console.log(JSON.stringify({
    codes: images.map((image, i) => model.encode(Float32Array.from(image), labels[i])),
    decoded: latents.map((z, i) => Array.from(model.decode(z, labels[i]))),
  }));
});
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("name", MODELS)
def test_the_page_computes_what_torch_does(scene_of, name, tmp_path):
    scene = scene_of(name)
    images, labels = scene.test_images(range(6)), scene.loader.labels[:6]
    latents = torch.randn(6, scene.latent_dim)
    question = {
        "description": networks(scene.vae, images, labels, latents),
        "images": images.flatten(1).tolist(),
        "latents": latents.tolist(),
        "labels": labels.tolist(),
    }
    program = tmp_path / "program.js"
    scripts = [files("vae.explorer").joinpath(name).read_text() for name in ("numbers.js", "networks.js")]
    program.write_text("\n".join([*scripts, RUN]))
    done = subprocess.run(["node", program], input=json.dumps(question), capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    with torch.no_grad():
        q, decoded = scene.vae.encode(images, labels), scene.vae.decode(latents, labels).mean
        covariance = q.covariance_matrix
    means = torch.tensor([code["mean"] for code in answer["codes"]])
    factors = torch.tensor([code["factor"] for code in answer["codes"]])
    assert ((means - q.mean).abs() <= 1.1e-2 * q.stddev).all()
    torch.testing.assert_close(factors @ factors.mT, covariance, rtol=5e-3, atol=5e-3 * covariance.max().item())
    torch.testing.assert_close(torch.tensor(answer["decoded"]), decoded.flatten(1), rtol=0, atol=1e-3)
    assert decoded.std(0).max() > 0.02  # else agreement would say little


@pytest.mark.parametrize("name", MODELS)
def test_weights_have_no_more_bits_than_images_need(scene_of, name):
    scene = scene_of(name)
    images, labels = scene.test_images(range(40)), scene.loader.labels
    latents = torch.randn(40, scene.latent_dim)
    found = fewest_bits(scene.vae, images, labels, latents)

    def worst(bits):
        with torch.no_grad():
            other, q = with_rounded_weights(scene.vae, bits), scene.vae.encode(images, labels)
            mean = other.encode(images, labels).mean
            decoded = [
                vae.decode(torch.cat([m, latents]), labels.repeat(2)).mean
                for vae, m in ((scene.vae, q.mean), (other, mean))
            ]
        image = (decoded[0] - decoded[1]).abs().max().item()
        return max(image / 5e-4, ((mean - q.mean).abs() / q.stddev).max().item() / 1e-2)

    assert worst(found) <= 1 < worst(found - 0.5)
    assert worst(found - 4) > 5  # it is the bits that count


@pytest.mark.parametrize("likelihood", [DiscretizedLogistic(), LogisticMixture(2)])
def test_likelihoods_of_levels_are_refused(scene_of, likelihood):
    scene = scene_of("dense")
    vae, images = scene.vae, scene.test_images(range(3))
    vae.likelihood = likelihood
    with pytest.raises(ValueError, match=r"^likelihood=\w+: must have a link of the page's: "):
        networks(vae, images, torch.zeros(3, dtype=torch.int64), torch.zeros(2, scene.latent_dim))


@pytest.mark.parametrize("part", ["posterior", "likelihood"])
def test_other_parts_that_the_page_cannot_run_are_refused(scene_of, part):
    scene = scene_of("dense")
    vae, images = scene.vae, scene.test_images(range(3))
    if part == "posterior":
        vae.levels[0].encoding = Posterior()
    else:
        vae.likelihood = Likelihood()
    with pytest.raises(ValueError, match=f"(?i){part}={part}: must "):
        networks(vae, images, scene.loader.labels[:3], torch.zeros(3, 2))


@pytest.mark.parametrize("words", ["dense", "conv", "resnet", "below"])
@pytest.mark.parametrize("likelihood", [path.stem for path in (CONF / "likelihood").glob("*.yaml")])
def test_what_a_run_says_of_the_page_is_what_the_page_does(compose, words, likelihood):
    small = {"resnet": ["backbone.channels=[8,8]"], "below": ["backbone=dense", "backbone.below=[2]"]}
    config = compose(
        *([] if words == "below" else [f"backbone={words}"]), *small.get(words, []), f"likelihood={likelihood}"
    )
    vae = build_model(config, (1, 8, 8), 0).eval()
    try:
        networks(vae, torch.rand(2, 1, 8, 8), torch.zeros(2).long(), torch.zeros(2, 2))
        runs = True
    except ValueError:
        runs = False
    assert is_explorable(config) == runs
