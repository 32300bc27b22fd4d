"""Layers for C: what they compute is set beside torch in NumPy, and what C cannot run is refused."""

import numpy as np
import pytest
import torch
from c_models import MODELS, some_images
from exported import CODED, CONV, DENSE, MIXTURE, RESNET, a_model, flow
from exported import MODELS as EXPORTED
from torch.nn.functional import conv2d, conv_transpose2d

from vae.use.c99.layers import Layer, networks_of


def computed(layer: Layer, x: np.ndarray) -> np.ndarray:
    """What a layer makes of x (n, numbers), in whole numbers where it has 8 bits."""
    weight, given = (torch.from_numpy(each.astype(np.float64)) for each in (layer.weight, x))
    if layer.sizes is None:
        sums = given @ weight.T
    else:
        s = layer.sizes
        maps = given.view(-1, s.channels, s.height, s.width)
        stride, padding = (s.stride_down, s.stride_across), (s.padding_down, s.padding_across)
        if layer.kind == "convolution":
            sums = conv2d(maps, weight, None, stride, padding).flatten(1)
        else:
            more = [
                size - ((n - 1) * step - 2 * pad + kernel)
                for size, n, step, pad, kernel in zip(
                    (s.rows, s.columns), (s.height, s.width), stride, padding, weight.shape[2:], strict=True
                )
            ]
            sums = conv_transpose2d(maps, weight.movedim(0, 1), None, stride, padding, more).flatten(1)
    each = sums.shape[1] // len(layer.bias)  # places of an output
    scale = np.ones_like(layer.bias) if layer.scale is None else layer.scale
    values = sums.numpy() * scale.repeat(each) + layer.bias.repeat(each)
    return {"floats": values, "rectified": values.clip(0), "bytes": np.floor(values.clip(0, 255) + 0.5)}[layer.writes]


def through(layers, x):
    for layer in layers:
        x = computed(layer, x)
    return x


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("int8", [False, True])
def test_layers_compute_what_torch_does(name, int8):
    model = a_model(**MODELS[name])
    images = some_images(model)
    networks = networks_of(model, images / 255 if int8 else None)
    features = through(networks.encoder, images.flatten(1).numpy())
    q, z = model.encode(images), 0.5 * torch.randn(200, 3)
    with torch.no_grad():
        expected = {"mean": q.mean, "log_var": 2 * q.stddev.log(), "decoder": model.vae.backbone.decoder(z)}
    found = {
        "mean": computed(networks.mean, features),
        "log_var": computed(networks.log_var, features),
        "decoder": through(networks.decoder, z.numpy()),
    }
    for key, values in expected.items():
        wrong = found[key] - values.flatten(1).numpy()
        typical = values.flatten(1).std(0).max().item()
        assert (abs(wrong).max() > 1e-4 and wrong.std() < 0.05 * typical) if int8 else abs(wrong).max() < 1e-4, key


@pytest.mark.parametrize("name", ["dense", "conv"])
def test_8_bits_are_of_weights_and_activations(name):
    model = a_model(**MODELS[name])
    images = some_images(model)
    networks = networks_of(model, images / 255)
    for layer in (*networks.encoder, *networks.decoder[1:]):
        few = name == "dense" and layer is networks.encoder[-1]  # next to the posterior, which rounding hurts most
        assert layer.weight.dtype == (np.int16 if few else np.int8) and layer.reads == "bytes"
        largest = abs(layer.weight.astype(int).reshape(len(layer.bias), -1)).max(1)
        assert (largest == (2**15 - 1 if few else 127)).all()  # each output has its own scale
    first, heads = networks.decoder[0], (networks.mean, networks.log_var)
    assert all(each.weight.dtype == np.float32 and each.reads == "floats" for each in (first, *heads))  # few, next to z
    assert [each.writes for each in networks.encoder] == ["bytes"] * (len(networks.encoder) - 1) + ["rectified"]
    assert [each.writes for each in (first, *heads, networks.decoder[-1])] == ["bytes", *["floats"] * 3]
    largest = through(networks.encoder[:1], images.flatten(1).numpy())
    assert largest.max() == 255  # the images by which it was calibrated use all of a byte


def test_many_weights_next_to_the_latents_have_8_bits():
    model = a_model(shape=(1, 6, 5), latent_dim=64, **{
        "backbone": DENSE | {"latent_dim": 64, "hidden": [7, 80]},
        "prior": {"_target_": "vae.model.priors.Isotropic", "latent_dim": 64},
        "posterior": {"_target_": "vae.model.posteriors.Diagonal", "latent_dim": 64},
    })  # fmt: skip
    first = networks_of(model, some_images(model) / 255).decoder[0]
    assert first.weight.dtype == np.int8 and first.reads == "floats"
    z = np.random.default_rng(0).standard_normal((50, 64))
    with torch.no_grad():
        expected = model.vae.backbone.decoder[:2](torch.tensor(z, dtype=torch.float32)).numpy()
    step = expected.max() / 255
    found = computed(first, z)
    assert abs(found * np.polyfit(found.ravel(), expected.ravel(), 1)[0] - expected).max() < 10 * step


def test_no_sum_overflows_32_bits():
    wide = a_model(shape=(1, 40, 40), backbone=DENSE | {"hidden": [900, 20]})
    last = networks_of(wide, some_images(wide, 4) / 255).encoder[-1]
    largest = abs(last.weight.astype(np.int64)).max().item()
    assert last.weight.dtype == np.int16 and 2**30 < 255 * 900 * largest < 2**31


def test_multiply_adds():
    networks = networks_of(a_model(shape=(1, 5, 7)))
    assert sum(layer.products for layer in networks.encoding) == 35 * 8 + 8 * 4 + 2 * 4 * 3
    conv = networks_of(a_model(shape=(2, 9, 8), backbone=CONV))
    assert conv.encoder[0].products == 4 * 2 * 9 * 5 * 4  # outputs × channels × kernel × places
    assert conv.decoder[-1].products == 2 * 4 * 9 * 9 * 8


ONLY_TORCH = "^backbone: only torch can run the layer Residual"
REFUSED = {
    "flow prior": ({"prior": flow("nsf")}, r"^prior=Flow: must be Gaussian \(isotropic, correlated or learned\)"),
    "mixture": ({"prior": MIXTURE}, "^prior=Mixture: must be Gaussian"),
    "vamp": (EXPORTED["vamp"], "^prior=Vamp: must be Gaussian"),
    "attention": (
        {"shape": (1, 9, 8), "backbone": RESNET | {"attention": [4]}},
        ONLY_TORCH,
    ),
    "residual": (
        {"shape": (1, 9, 8), "backbone": RESNET | {"attention": []}},
        ONLY_TORCH,
    ),
    "codes": (CODED["codes"], "^posterior=Codebook: must be Diagonal"),
    "tied": (EXPORTED["tied"], "^posterior=Tied: must be Diagonal"),
    "levels": (EXPORTED["two vectors"], "^a model of 3 levels of latents: this needs one of a single level$"),
    "gated": (EXPORTED["gated"], "^backbone.gated=true: must be false"),
    "conditional": ({"conditional": True}, "^conditional=true: must be false"),
    "likelihood": (EXPORTED["levels"], "^likelihood=DiscretizedLogistic: must be Bernoulli or Gaussian"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_c_cannot_run_is_refused_in_one_line(name):
    changed, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as refused:
        networks_of(a_model(**changed))
    assert "\n" not in str(refused.value)
