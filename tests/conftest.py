import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: small work on many threads, beside other tests, crawls

import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import NAMES, Browser
from PIL import Image
from torch import Tensor

from vae.settings.compose import composed
from vae.settings.config import check, plain


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stress", "tests/stress")
    group.addoption("--stress-minutes", type=float, default=3, help="how long all of them take, one after another")
    group.addoption("--stress-seed", type=int, default=0, help="of the cases")
    group.addoption("--stress-report", help="file to which each test appends what it did, as a line of JSON")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def handlers_are_left_as_they_were() -> Iterator[None]:
    """A program that a test runs in its own process listens to signals to its end, and the next test would too."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture
def mean_is() -> Callable[[Tensor, Tensor], None]:
    """Checks that the mean over the first dimension of samples is what was expected, within 6 standard errors."""

    def check(samples: Tensor, expected: Tensor) -> None:
        error = samples.std(0) / len(samples) ** 0.5
        distance = (samples.mean(0) - expected).abs()
        assert (distance <= 6 * error + 1e-12).all(), f"{distance} is more than 6 × {error}"

    return check


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 grey images of 10×12 in two classes."""
    root = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 10, 12), dtype=np.uint8)
    for i, image in enumerate(pixels):
        path = root / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    return root


@pytest.fixture(scope="session")
def sprites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small file of dSprites' name, layout and order: 240 squares and bars of 16×16 pixels."""
    grid: list[Any] = [[1.0], [1.0, 2.0], [0.5, 0.75, 1.0], [0.0, 1.6], np.linspace(0, 1, 5), np.linspace(0, 1, 4)]
    classes = np.stack(
        [axis.ravel() for axis in np.meshgrid(*(np.arange(len(axis)) for axis in grid), indexing="ij")], 1
    )
    values = np.stack([np.asarray(axis)[index] for axis, index in zip(grid, classes.T, strict=True)], 1)
    _, shape, scale, orientation, x, y = classes.T[:, :, None]
    short, long = 1 + 2 * scale, 1 + 2 * scale + 2 * shape
    wide, high = np.where(orientation, short, long), np.where(orientation, long, short)
    across, down = (abs(np.arange(16) - 3 - 2 * at) * 2 <= side for at, side in ((x, wide), (y, high)))
    images = down[:, :, None] & across[:, None, :]
    root = tmp_path_factory.mktemp("sprites")
    metadata = np.array({"latents_names": ("color", "shape")}, dtype=object)
    arrays = {"metadata": metadata, "imgs": images.astype(np.uint8)}
    name = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
    np.savez_compressed(root / name, **arrays, latents_values=values, latents_classes=classes)
    return root


@pytest.fixture(scope="session")
def compose() -> Callable[..., dict[str, Any]]:
    """Composes the plain configuration that the command line would, for the given overrides."""

    def compose_plain(*overrides: str) -> dict[str, Any]:
        cfg = composed(*overrides)
        check(cfg)
        return plain(cfg)

    return compose_plain


@pytest.fixture
def image_run(compose: Callable[..., dict[str, Any]], image_folder: Path) -> Callable[..., dict[str, Any]]:
    """Composes the same of a run on the few images, in batches of 8."""
    return partial(compose, "data=images", f"data.root={image_folder}", "data.channels=1", "data.batch_size=8")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip("no Chromium is installed")
    with Browser(executable, tmp_path_factory.mktemp("profile")) as started:
        yield started
