"""Sizes, and the widths that they allow."""

import pytest
import torch
from c_models import MODELS
from exported import CONV, DENSE, MIXTURE, a_model

from vae.model.build import build_model
from vae.use.c99.layers import networks_of
from vae.use.compression import bytes_in_8_bits, bytes_of, narrowed, parameters_of, runs_in_c
from vae.use.trained import Trained


def test_sizes_as_they_are_typed():
    assert [bytes_of(text) for text in ("100kB", "0.5MB", "65536B")] == [100_000, 500_000, 65_536]
    for text in ("100", "100 kB", "kB", "1e5B", "-3kB", "100KB"):
        with pytest.raises(ValueError, match=f"^--to {text}: must be a size such as 100kB"):
            bytes_of(text)


@pytest.mark.parametrize("name", MODELS)
def test_bytes_are_those_of_all_layers(name):
    model = a_model(**MODELS[name])
    networks = networks_of(model, torch.rand(4, *model.shape))
    layers = [*networks.encoding, *networks.decoder]
    arrays = [array for layer in layers for array in (layer.weight, layer.bias, layer.scale) if array is not None]
    assert 0 < bytes_in_8_bits(model) - sum(array.size * array.itemsize for array in arrays) < 3000
    assert parameters_of(model) == sum(value.numel() for value in model.vae.parameters())


@pytest.mark.parametrize(
    "backbone", [DENSE | {"hidden": [40, 20]}, CONV | {"channels": [6, 9], "hidden": 12}], ids=["dense", "conv"]
)
@pytest.mark.parametrize("size", [parameters_of, bytes_in_8_bits])
def test_a_narrower_model_fits_closely(backbone, size):
    model = a_model(shape=(1, 9, 8), backbone=backbone)
    about = {"config": model.config, "shape": list(model.shape), "data": "insects", "classes": ["a", "b", "c"]}
    images, labels = torch.rand(30, *model.shape), torch.zeros(30).long()
    assert narrowed(model, about, images, labels, size(model), size) == backbone
    least = size(model) if size is parameters_of else size(model) - 2500
    most = size(model) - 0.5 * least
    config = {**model.config, "backbone": narrowed(model, about, images, labels, most, size)}
    found = size(Trained(build_model(config, model.shape, 3), {**about, "config": config}))
    assert most - 0.1 * least < found <= most


def test_a_layer_that_does_nothing_goes_first():
    model = a_model(backbone=DENSE | {"hidden": [20, 20]})
    with torch.no_grad():
        for made in (model.vae.backbone.encoder[3], model.vae.backbone.decoder[0]):  # of the second width
            made.weight[3:] = made.bias[3:] = 0
        for made in (model.vae.backbone.encoder[1], model.vae.backbone.decoder[2]):  # of the first: all do something
            made.bias += 5
    about = {"config": model.config, "shape": list(model.shape), "data": "insects", "classes": ["a", "b", "c"]}
    most = 0.75 * parameters_of(model)
    node = narrowed(model, about, torch.rand(30, *model.shape), torch.zeros(30).long(), most, parameters_of)
    assert node["hidden"][0] == 20 and 3 <= node["hidden"][1] < 20


def test_what_runs_in_c():
    assert runs_in_c(a_model()) and not runs_in_c(a_model(prior=MIXTURE))
