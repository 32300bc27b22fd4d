"""Models in C, compiled with all warnings and checks, and what they make of images."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from exported import CONV, CORRELATED, DENSE, a_model
from torch import Tensor

from vae.use.export import write_c
from vae.use.trained import Trained

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

GAUSSIAN = {"_target_": "vae.model.likelihoods.Gaussian", "sigma": 0.3}
LEARNED = {"_target_": "vae.model.priors.Learned", "latent_dim": 3}

MODELS: dict[str, dict[str, Any]] = {
    "dense": {},
    "conv": {"shape": (2, 9, 8), "backbone": CONV, "prior": CORRELATED, "likelihood": GAUSSIAN},
    "one layer": {
        "backbone": DENSE | {"hidden": [9]},
        "prior": LEARNED,
    },
}

DRIVER = """
#include "model.h"
#include <stdio.h>
int main(void)
{
    uint8_t image[VAE_PIXELS];
    float noise[VAE_LATENTS], mean[VAE_LATENTS], log_var[VAE_LATENTS], parameters[VAE_PIXELS], scores[2];
    for (uint32_t index = 0; fread(image, 1, VAE_PIXELS, stdin) == VAE_PIXELS; index++) {
        vae_noise(7, index, noise);
        vae_encode(image, mean, log_var);
        vae_parameters(mean, parameters);
        scores[0] = vae_score(image, NULL);
        scores[1] = vae_score(image, noise);
        vae_decode(mean, image);
        fwrite(noise, sizeof(float), VAE_LATENTS, stdout);
        fwrite(mean, sizeof(float), VAE_LATENTS, stdout);
        fwrite(log_var, sizeof(float), VAE_LATENTS, stdout);
        fwrite(scores, sizeof(float), 2, stdout);
        fwrite(parameters, sizeof(float), VAE_PIXELS, stdout);
        fwrite(image, 1, VAE_PIXELS, stdout);
    }
    return 0;
}
"""


class Made(NamedTuple):
    """What the program says of images."""

    noise: Tensor  # (n, latents)
    mean: Tensor  # (n, latents)
    log_var: Tensor  # (n, latents)
    scores: Tensor  # (n, 2): at the mean, and by the noise
    parameters: Tensor  # (n, pixels)
    decoded: Tensor  # (n, pixels), bytes


def some_images(model: Trained, n: int = 200) -> Tensor:
    """Bytes (n, channels, height, width)."""
    return torch.randint(256, (n, *model.shape), dtype=torch.uint8)


def a_c_model(name: str, int8: bool, folder: Path, hidden: Sequence[int] = (), **changed: Any) -> tuple[Trained, Path]:
    """One of the models, maybe with other hidden layers or parts, and its C file."""
    model = a_model(**(MODELS[name] | ({"backbone": DENSE | {"hidden": [*hidden]}} if hidden else {}) | changed))
    code = folder / "model.c"
    write_c(model, code, {"run": "a run", "data": "insects"}, some_images(model) / 255 if int8 else None)
    return model, code


def built(code: Path, main: str, *options: str) -> Path:
    """The program of a C file and a main function, with all warnings and checks."""
    (code.parent / "main.c").write_text(main)
    program = code.parent / "program"
    command = ["cc", *STRICT, *options, str(code.parent / "main.c"), "-lm", "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return program


def run(code: Path, images: Tensor, latents: int) -> Made:
    """What the program says of images of bytes."""
    program = built(code, DRIVER, str(code))
    done = subprocess.run([program], input=images.numpy().tobytes(), capture_output=True)
    assert not done.returncode, done.stderr.decode()
    pixels = images[0].numel()
    floats = 3 * latents + 2 + pixels
    rows = np.frombuffer(done.stdout, np.uint8).reshape(len(images), 4 * floats + pixels)
    numbers = torch.from_numpy(np.ascontiguousarray(rows[:, : 4 * floats]).view(np.float32))
    noise, mean, log_var, scores, parameters = numbers.split([latents, latents, latents, 2, pixels], 1)
    return Made(noise, mean, log_var, scores, parameters, torch.from_numpy(rows[:, 4 * floats :].copy()))
