import numpy as np
import pytest
import torch

from vae.data.base import Dataset, Split
from vae.data.loader import BatchLoader
from vae.model.build import build_model
from vae.model.checkpoints import about
from vae.study import film
from vae.study.scene import Scene


@pytest.fixture
def scene(compose):
    """Makes a scene of an untrained model and noise."""

    def make(*overrides, shape=(1, 12, 10), classes=("a", "b", "c")):
        config = compose("data=strokes", *overrides)
        part = Split(torch.randint(0, 256, (40, *shape), dtype=torch.uint8), torch.arange(40) % max(1, len(classes)))
        data = Dataset("noise", part, part, part, classes)
        torch.manual_seed(0)
        return Scene(build_model(config, shape, len(classes)), BatchLoader(part, 16), about(config, data), 7)

    return make


def test_a_frame_is_of_the_model_that_it_was_taken_of(scene):
    view = scene("prior=correlated")
    frame = film.frame(view, film.dimensions(view))
    with torch.inference_mode():
        images = view.vae.decode(torch.from_numpy(frame.places)).mean
        codes = view.vae.encode(view.loader.images / 255, view.loader.labels).mean
    assert np.abs(frame.tiles / 255 - images.numpy()).max() < 0.5 / 255 + 1e-6
    assert np.allclose(frame.codes, codes, atol=1e-6)
    # 2 σ of the prior: zᵀ Σ⁻¹ z = 4
    inverse = np.linalg.inv([[1.0, 0.4], [0.4, 0.5]])
    assert np.allclose(np.einsum("ni,ij,nj->n", frame.prior, inverse, frame.prior), 4, atol=1e-3)


@pytest.mark.parametrize(
    ("overrides", "shape", "tiles", "places"),
    [
        (["latent_dim=1"], (1, 12, 10), (1, 24, 1, 12, 10), 1),
        (["latent_dim=2", "figures.grid=quantile"], (3, 12, 10), (12, 12, 3, 12, 10), 2),
        (["latent_dim=3"], (1, 56, 28), (12, 12, 1, 28, 14), 2),
        (["latent_dim=5", "prior=mixture"], (3, 28, 100), (12, 12, 3, 7, 28), 2),
        (["latent_dim=2", "prior=flow"], (1, 12, 10), (12, 12, 1, 12, 10), 2),
        (["latent_dim=4", "conditional=true"], (1, 12, 10), (3, 12, 1, 12, 10), 1),
        (["latent_dim=1", "conditional=true", "data.binarize=dynamic"], (1, 12, 10), (3, 12, 1, 12, 10), 1),
    ],
)
def test_frames_of_any_model_are_small(scene, overrides, shape, tiles, places):
    view = scene(*overrides, shape=shape)
    before = torch.get_rng_state()
    dims = film.dimensions(view)
    frame = film.frame(view, dims)
    assert frame.tiles.shape == tiles and frame.tiles.dtype == np.uint8
    assert frame.places.shape == (*tiles[:2], places)
    assert frame.codes.shape == (40, len(dims)) and frame.prior.shape[1] == len(dims) == min(2, view.latent_dim)
    assert torch.equal(torch.get_rng_state(), before) and view.vae.training


def test_of_many_dimensions_the_most_active_are_shown(scene):
    view = scene("latent_dim=6")
    with torch.no_grad():
        mean = view.vae.posterior.mean
        mean.weight[[0, 1, 2, 5]] *= 0.01
        mean.weight[[3, 4]] *= 20
    assert film.dimensions(view) == [3, 4]


def test_a_frame_of_a_conditional_model_has_a_row_for_each_class(scene):
    view = scene("conditional=true")
    frame = film.frame(view, [0, 1])
    with torch.inference_mode():
        z = torch.zeros(12, 2)
        z[:, 0] = torch.linspace(-3, 3, 12)
        second = view.vae.decode(z, torch.ones(12, dtype=torch.int64)).mean
    assert np.abs(frame.tiles[1] / 255 - second.numpy()).max() < 0.5 / 255 + 1e-6


def test_some_images_are_evenly_chosen():
    part = Split(torch.arange(2000, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(2000))
    some = film.some_images(BatchLoader(part, 64))
    assert some.labels.tolist() == list(range(0, 2000, 4)) and sum(len(x) for x, _ in some) == 500
