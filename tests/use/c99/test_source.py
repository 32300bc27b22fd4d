"""C is compiled with all warnings and checks, and set beside torch on 200 images."""

import re
import subprocess

import numpy as np
import pytest
import torch
from c_models import MODELS, a_c_model, built, needs_cc, run, some_images
from exported import a_model
from scipy.stats import kstest

from vae.model.distributions import DiagonalNormal, from_noise, kl

PHILOX = """
#include "model.c"
#include <stdio.h>
int main(void)
{
    uint32_t zeros[4] = {0}, digits[4] = {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344};
    philox(zeros, 0, 0);
    philox(digits, 0xa4093822, 0x299f31d0);
    for (int i = 0; i < 4; i++)
        printf("%08x %08x\\n", (unsigned)zeros[i], (unsigned)digits[i]);
    return 0;
}
"""

NOISE = """
#include "model.h"
#include <stdio.h>
int main(void)
{
    float noise[VAE_LATENTS], z[VAE_LATENTS];
    for (uint32_t seed = 0; seed < 2; seed++)
        for (uint32_t index = 0; index < 20000; index++) {
            vae_noise(seed, index, noise);
            vae_sample(seed, index, z);
            fwrite(noise, sizeof(float), VAE_LATENTS, stdout);
            fwrite(z, sizeof(float), VAE_LATENTS, stdout);
        }
    return 0;
}
"""


def minus_elbo(model, images, q, z):
    with torch.no_grad():
        return kl(q, model.vae.prior(), z) - model.vae.decode(z).log_prob(images)


@needs_cc
@pytest.mark.parametrize("name", MODELS)
def test_floats_compute_what_torch_does(name, tmp_path):
    model, code = a_c_model(name, False, tmp_path)
    images = some_images(model)
    made = run(code, images, 3)
    q = model.encode(images)
    torch.testing.assert_close(made.mean, q.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((made.log_var / 2).exp(), q.stddev, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        p = model.vae.decode(q.mean)
        parameters = model.vae.backbone.decoder(q.mean).flatten(1)
    torch.testing.assert_close(made.parameters, parameters, rtol=1e-4, atol=1e-4)
    assert ((255 * p.mean.flatten(1) - made.decoded).abs() <= 0.501).all()
    for score, z in zip(made.scores.T, (q.mean, from_noise(q, made.noise)), strict=True):
        torch.testing.assert_close(score, minus_elbo(model, images / 255, q, z), rtol=1e-4, atol=1e-3)
    assert made.scores.std(0).min() > 0.1  # else agreement would say little


@needs_cc
@pytest.mark.parametrize("name", ["dense", "conv"])
def test_8_bits_are_near_to_torch(name, tmp_path):
    model, code = a_c_model(name, True, tmp_path)
    images = some_images(model)
    made = run(code, images, 3)
    q = model.encode(images)
    assert (made.mean - q.mean).abs().max() < 0.1 * q.mean.std(0).min() + 0.05
    own = DiagonalNormal(made.mean, (made.log_var / 2).exp())  # of the codes that it has, the score is the exact one
    recon = -model.vae.likelihood(made.parameters.view_as(images)).log_prob(images / 255)
    torch.testing.assert_close(made.scores[:, 0], recon + kl(own, model.vae.prior(), made.mean), rtol=1e-4, atol=1e-3)
    expected = minus_elbo(model, images / 255, q, q.mean)
    assert 0 < (made.scores[:, 0] - expected).abs().mean() < 0.02 * expected.abs().mean()


@needs_cc
def test_the_generator_is_philox(tmp_path):
    """Known answers of its authors, kat_vectors of Random123."""
    _, code = a_c_model("dense", False, tmp_path)
    # Of the model in the same file nothing else is called.
    told = subprocess.run([built(code, PHILOX)], capture_output=True, text=True, check=True).stdout.split()
    assert told[::2] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    assert told[1::2] == ["d16cfe09", "94fdcceb", "5001e420", "24126ea1"]


@needs_cc
def test_noise_is_normal_and_repeats_by_seed(tmp_path):
    model, code = a_c_model("conv", False, tmp_path)
    program = built(code, NOISE, str(code))
    said, again = (subprocess.run([program], capture_output=True, check=True).stdout for _ in range(2))
    assert said == again
    noise, z = np.frombuffer(said, np.float32).reshape(2, 20000, 2, 3).transpose(2, 0, 1, 3)
    assert not np.isclose(noise[0], noise[1]).any(1).all()
    for dimension in range(3):
        assert kstest(noise[..., dimension].ravel(), "norm").pvalue > 1e-3
    correlations = np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)
    assert abs(correlations).max() < 6 / 40000**0.5
    beside = np.corrcoef(noise[0, :-1, 0], noise[0, 1:, 0])[0, 1]  # one index and the next
    assert abs(beside) < 6 / 20000**0.5
    prior = model.vae.prior()
    torch.testing.assert_close(torch.tensor(z[0]), from_noise(prior, torch.tensor(noise[0])), rtol=1e-5, atol=1e-6)


def test_the_header_says_what_there_is(tmp_path):
    _, code = a_c_model("conv", False, tmp_path)
    header, text = code.with_suffix(".h").read_text(), code.read_text()
    defined = dict(re.findall(r"#define (VAE_\w+) (\d+)", header))
    sides = [int(defined[f"VAE_{name}"]) for name in ("CHANNELS", "HEIGHT", "WIDTH", "PIXELS", "LATENTS")]
    assert sides == [2, 9, 8, 144, 3]
    buffers = re.findall(r"^static float \w+\[(\w+)\];", text, re.MULTILINE)
    assert 4 * sum(int(defined.get(size, size)) for size in buffers) == int(defined["VAE_RAM"])
    arrays = re.findall(r"^static const float (?:\w+)\[(\d+)\]", text, re.MULTILINE)
    assert 4 * (sum(map(int, arrays)) + 1) == int(defined["VAE_CONSTANTS"])
    assert not re.search(r"\b(malloc|calloc|fopen|printf)\b", text)


@needs_cc
def test_the_header_s_five_lines_work(tmp_path):
    _, code = a_c_model("dense", False, tmp_path)
    lines = re.findall(r"^ \*     (.+)$", code.with_suffix(".h").read_text(), re.MULTILINE)
    assert len(lines) == 5
    body = "\n    ".join(lines)
    main = f'#include "model.h"\n#include <stdio.h>\nint main(void)\n{{\n    {body}\n    printf("%g", anomaly);\n}}\n'
    done = subprocess.run([built(code, main, str(code))], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 0


def test_a_run_s_name_cannot_end_the_comment(tmp_path):
    from vae.use.export import write_c

    made = write_c(a_model(), tmp_path / "model.c", {"run": "a */ b", "data": "insects"}, None)
    assert made.code.splitlines()[0].count("*/") == 1 == made.header.split("#ifndef")[0].count("*/")
