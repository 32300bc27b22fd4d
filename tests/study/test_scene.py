"""A scene itself; what its pictures show is tested with the callback that draws them."""

import subprocess
import sys
import textwrap

import pytest
import torch

from vae.data.base import Dataset, Split
from vae.data.loader import BatchLoader
from vae.model.build import build_model
from vae.model.checkpoints import about
from vae.settings.ranges import PICTURES
from vae.study.pictures import TAGS
from vae.study.scene import Scene


@pytest.fixture
def scene(compose):
    """Makes a scene of an untrained model and noise."""

    def make(*overrides):
        config = compose("data=strokes", *overrides)
        part = Split(torch.randint(0, 256, (40, 1, 12, 10), dtype=torch.uint8), torch.arange(40) % 2)
        data = Dataset("noise", part, part, part, ("a", "b"))
        torch.manual_seed(0)
        return Scene(build_model(config, (1, 12, 10), 2), BatchLoader(part, 16), about(config, data), 7)

    return make


def test_asking_which_pictures_there_are_draws_no_random_numbers(scene):
    view = scene("prior=mixture", "latent_dim=3")
    before = torch.get_rng_state()
    assert "latent/pairs" in view.tags and view.latent_dim == 3
    assert torch.equal(torch.get_rng_state(), before)


def test_the_prior_is_the_same_whoever_asks_first(scene):
    first, second = scene("prior=mixture", "latent_dim=3"), scene("prior=mixture", "latent_dim=3")
    before = torch.get_rng_state()
    drawn = first.prior.samples
    assert torch.equal(torch.get_rng_state(), before) and not drawn.requires_grad
    second.draw("samples")
    second.draw("traversal")
    assert torch.equal(second.prior.samples, drawn)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([], "noise · latent_dim 2 · isotropic prior · β 1 · epoch 7"),
        (["backbone=conv"], "noise · latent_dim 2 · isotropic prior · conv backbone · β 1 · epoch 7"),
        (
            ["likelihood=continuous_bernoulli", "conditional=true", "beta=4"],
            "noise · latent_dim 2 · isotropic prior · continuous bernoulli likelihood · conditional · β 4 · epoch 7",
        ),
    ],
)
def test_the_small_print_names_what_is_not_the_default(scene, overrides, told):
    assert scene(*overrides).note == told


@pytest.mark.parametrize("objective", ["elbo", "autoencoder"])
def test_coordinates_reach_beyond_all_codes_and_what_they_are_spread(scene, objective):
    view = scene("latent_dim=1", f"objective={objective}")
    means, spread = view.codes.means[:, 0] + 5, view.codes.variances[:, 0].sqrt()
    view.codes = view.codes._replace(means=means[:, None])  # far from the prior
    x = view.coordinates(0)
    assert x[0] < -3.4 and x[-1] > means.max() + 0.09 and x[-1] >= (means + 3 * spread).max()


MEGABYTES = textwrap.dedent("""
    import resource, sys
    from pathlib import Path
    import torch
    from vae.model.build import build_model
    from vae.model.checkpoints import about
    from vae.settings.compose import composed
    from vae.settings.config import plain
    from vae.data.base import Dataset, Split
    from vae.data.loader import BatchLoader
    from vae.figures.style import rasterise
    from vae.training.speed.memory import keep_freed_memory
    from vae.study.scene import Scene

    config = plain(composed(*sys.argv[1:]))
    keep_freed_memory()  # as a run does
    part = Split(torch.randint(0, 256, (10_000, 1, 28, 28), dtype=torch.uint8), torch.arange(10_000) % 10)
    data = Dataset("noise", part, part, part, tuple("0123456789"))
    scene = Scene(build_model(config, (1, 28, 28), 10), BatchLoader(part, 512), about(config, data), 1)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    for tag in scene.tags:
        rasterise(scene.draw(tag))
    # Not ru_maxrss, which a process inherits from the one that started it.
    most = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    print((most - before) / 2**20)
""")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted by Linux")
@pytest.mark.parametrize(
    "overrides",
    [
        ["latent_dim=2000", "prior=correlated"],
        ["latent_dim=128", "prior=mixture"],
        ["latent_dim=64", "prior=vamp", "posterior=full"],
        ["latent_dim=200", "posterior=tied"],
    ],
    ids=" ".join,
)
def test_all_pictures_take_less_than_a_gigabyte(overrides):
    done = subprocess.run([sys.executable, "-c", MEGABYTES, *overrides], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1024


def test_the_settings_know_every_picture():
    assert TAGS == PICTURES
