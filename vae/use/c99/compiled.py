"""A model in C on this machine: compiled, and called from Python."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vae.common.types import Shape
from vae.use.parity import Runnable
from vae.use.portable import Tensors

COMPILER = "cc"


def is_possible() -> bool:
    """Whether this machine can compile C."""
    return shutil.which(COMPILER) is not None


def library(code: Path, *options: str) -> ctypes.CDLL:
    """The C file as a library of this process."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.so"
        command = [COMPILER, "-std=c99", "-O2", "-shared", "-fPIC", *options, str(code), "-lm", "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"{code}: cannot be compiled ({' '.join(done.stderr.split())[:200]})")
        return ctypes.CDLL(str(made))


def runnables(code: Path, shape: Shape, latents: int) -> dict[str, Runnable]:
    """The encoder and the decoder of a C file; the latter's images are bytes, as it makes them."""
    called = library(code)

    def encoder(images: Tensor) -> Tensors:
        pixels = np.ascontiguousarray((images * 255).round().numpy(), np.uint8)
        mean, log_var = (np.empty((len(pixels), latents), np.float32) for _ in range(2))
        for place in range(len(pixels)):
            called.vae_encode(*(_address(each[place]) for each in (pixels, mean, log_var)))
        return {"mean": torch.from_numpy(mean), "scale": torch.from_numpy(np.exp(0.5 * log_var))}

    def decoder(z: Tensor) -> Tensors:
        given = np.ascontiguousarray(z.numpy(), np.float32)
        logits, images = np.empty((len(given), *shape), np.float32), np.empty((len(given), *shape), np.uint8)
        for place in range(len(given)):
            called.vae_parameters(_address(given[place]), _address(logits[place]))
            called.vae_decode(_address(given[place]), _address(images[place]))
        return {"images": torch.from_numpy(images) / 255, "logits": torch.from_numpy(logits)}

    return {"encoder": encoder, "decoder": decoder}


def _address(values: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.ctypes.data)
