import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vae.model.backbones import ChannelsLast, Conv, ConvTranspose2d, Dense
from vae.model.levels import Level
from vae.model.likelihoods import Bernoulli
from vae.model.posteriors import Diagonal
from vae.model.priors import Isotropic
from vae.model.resnet import Resnet
from vae.model.vae import VAE

SHAPES = [(1, 28, 28), (3, 20, 28), (1, 17, 13), (3, 64, 48), (1, 1, 2)]
BACKBONES = [  # constructor, width of the features
    (lambda shape, latent_dim: Dense(shape, latent_dim, hidden=[32, 24]), 24),
    (lambda shape, latent_dim: Dense(shape, latent_dim, hidden=[8]), 8),
    (lambda shape, latent_dim: Conv(shape, latent_dim, channels=[4, 6], hidden=16), 16),
    (lambda shape, latent_dim: Conv(shape, latent_dim, channels=[4], hidden=5), 5),
    (lambda shape, latent_dim: Conv(shape, latent_dim, channels=[8, 9, 10], hidden=7), 7),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("make", "features"), BACKBONES)
def test_shapes_out_are_shapes_in_and_every_weight_learns(make, features, shape):
    for latent_dim in (1, 2, 10):
        backbone = make(shape, latent_dim)
        encoded = backbone.encoder(torch.rand(3, *shape))
        decoded = backbone.decoder(torch.randn(3, latent_dim))
        assert backbone.features == features and encoded.shape == (3, features) and decoded.shape == (3, *shape)
        (encoded.square().sum() + decoded.square().sum()).backward()
        for name, weight in backbone.named_parameters():
            assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name


def layers(network: nn.Module) -> list[tuple]:
    """What each layer with weights is, in order."""
    found: list[tuple] = []
    for module in network.modules():
        if isinstance(module, nn.Linear):
            found.append(("linear", module.in_features, module.out_features))
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            kind = "conv" if isinstance(module, nn.Conv2d) else "transpose"
            found.append((kind, module.in_channels, module.out_channels, module.kernel_size, module.stride))
    return found


def test_dense_is_the_tutorial_s():
    backbone = Dense((1, 28, 28), 2, hidden=[512, 256])
    assert layers(backbone.encoder) == [("linear", 784, 512), ("linear", 512, 256)]
    assert layers(backbone.decoder) == [("linear", 2, 256), ("linear", 256, 512), ("linear", 512, 784)]
    weights = 784 * 512 + 512 + 512 * 256 + 256 + 2 * 256 + 256 + 256 * 512 + 512 + 512 * 784 + 784
    assert sum(weight.numel() for weight in backbone.parameters()) == weights


def test_conv_is_the_tutorial_s():
    backbone = Conv((1, 28, 28), 2, channels=[32, 64], hidden=16)
    by_two, by_one = ((3, 3), (2, 2)), ((3, 3), (1, 1))
    assert layers(backbone.encoder) == [("conv", 1, 32, *by_two), ("conv", 32, 64, *by_two), ("linear", 3136, 16)]
    assert layers(backbone.decoder) == [
        ("linear", 2, 3136),
        ("transpose", 64, 64, *by_two),
        ("transpose", 64, 32, *by_two),
        ("transpose", 32, 1, *by_one),
    ]
    encoder = 9 * 32 + 32 + 9 * 32 * 64 + 64 + 3136 * 16 + 16
    decoder = 2 * 3136 + 3136 + 9 * 64 * 64 + 64 + 9 * 64 * 32 + 32 + 9 * 32 + 1
    assert sum(weight.numel() for weight in backbone.parameters()) == encoder + decoder


@pytest.mark.parametrize(("make", "features"), BACKBONES)
def test_rectifiers_stand_between_the_layers_but_not_behind_the_last(make, features):
    backbone = make((1, 9, 8), 2)
    for network, at_the_end in ((backbone.encoder, 0), (backbone.decoder, 1)):
        rectifiers = sum(isinstance(module, nn.ReLU) for module in network.modules())
        assert rectifiers == len(layers(network)) - at_the_end
    assert (backbone.encoder(torch.randn(20, 1, 9, 8)) >= 0).all()
    latents, last = torch.randn(20, 2), [module for module in backbone.decoder if list(module.parameters())][-1]
    params = backbone.decoder(latents)
    for weight in last.parameters():
        weight.data.neg_()
    assert torch.equal(backbone.decoder(latents), -params)  # the last layer is linear: its values may be negative


def of_torch(layer: nn.Module) -> nn.Module:
    """The layer, or torch's own with its weights where it is one of ours."""
    layer = copy.copy(layer)
    if isinstance(layer, ConvTranspose2d):
        layer.__class__ = nn.ConvTranspose2d  # type: ignore[assignment]
    return layer


@pytest.mark.parametrize(
    "arguments",
    [
        {"padding": 1},
        {"stride": 2, "padding": 1, "output_padding": (1, 0)},
        {"groups": 2, "dilation": (2, 1)},
    ],
)
def test_the_transposed_convolution_is_torch_s(arguments):
    layer = ConvTranspose2d(2, 4, 3, **arguments).double()
    x = torch.randn(5, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    inputs = [x, *layer.parameters()]
    outputs = [each(x) for each in (layer, of_torch(layer))]
    assert torch.allclose(*outputs)
    upstream = torch.randn_like(outputs[0])
    gradients = [torch.autograd.grad(output, inputs, upstream) for output in outputs]
    assert all(torch.allclose(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_memory_layout_changes_no_numbers(shape):
    backbone = Conv(shape, 2, channels=[4, 6], hidden=16).double()
    images, latents = torch.rand(5, *shape, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    networks: tuple[Any, ...] = (backbone.encoder, backbone.decoder)
    plain_layers = [
        nn.Sequential(*(of_torch(module) for module in network if not isinstance(module, ChannelsLast)))
        for network in networks
    ]
    assert all(len(plain) < len(network) for plain, network in zip(plain_layers, networks, strict=True))
    fast = backbone.encoder(images), backbone.decoder(latents)
    other = backbone.encoder(images.to(memory_format=torch.channels_last))
    backbone.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    plain = plain_layers[0](images), plain_layers[1](latents)
    for a, b in ((fast[0], plain[0]), (fast[1], plain[1]), (other, plain[0])):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("make", "features"), BACKBONES)
def test_images_of_a_batch_do_not_mix(make, features):
    backbone = make((1, 17, 13), 2).double()
    images, latents = torch.rand(4, 1, 17, 13, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    assert torch.allclose(backbone.encoder(images)[1:2], backbone.encoder(images[1:2]))
    assert torch.allclose(backbone.decoder(latents)[1:2], backbone.decoder(latents[1:2]))


def test_training_begins_around_the_mean_image():
    mean = torch.rand(3, 20, 28) * 0.9 + 0.05
    mean[:, 0, 0] = 0.0  # always black, like the rim of MNIST's digits
    images = torch.stack([0.5 * mean, 1.5 * mean])
    shape, pixels, channels = (3, 20, 28), mean.clamp(min=1e-3), mean.mean((1, 2), keepdim=True).expand_as(mean)
    dense, conv = Dense(shape, 2, hidden=[16]), Conv(shape, 2, channels=[4], hidden=5)
    resnet = Resnet(shape, 2, [4, 6], depth=1, groups=2, attention=[])
    for backbone, expected in ((dense, pixels), (conv, channels), (resnet, channels)):
        before = [weight.clone() for weight in backbone.parameters()]
        VAE(backbone, [Level(Isotropic(2), Diagonal(backbone.features, 2), 2)], Bernoulli())
        backbone.start_at(images, torch.zeros(2), 1e-3)
        assert all(torch.equal(a, b) for a, b in zip(before[:-1], list(backbone.parameters())[:-1], strict=True))
        list(backbone.decoder.parameters())[-2].data.zero_()  # what is left is the bias
        assert torch.allclose(backbone.decoder(torch.randn(1, 2)).sigmoid()[0], expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "make",
    [
        lambda shape, classes: Dense(shape, 2, hidden=[8, 6], classes=classes),
        lambda shape, classes: Conv(shape, 2, channels=[4, 6], hidden=6, classes=classes),
        lambda shape, classes: Resnet(shape, 2, [4, 6], depth=1, groups=2, attention=[], classes=classes),
    ],
)
def test_a_conditional_backbone_is_told_the_class_and_no_other_one(make, shape):
    told, other = make(shape, 3), make(shape, 0)
    x, z, labels = torch.rand(4, *shape), torch.randn(4, 2), torch.tensor([0, 1, 2, 0])

    def image(z: Tensor, labels: Tensor | None = None) -> Tensor:
        return told.image(Level(Isotropic(2), Diagonal(6, 2), 2).merge(told.begin(labels, z), z))

    for network, argument in ((lambda *given: told.encode(*given)[0], x), (image, z)):
        same = network(argument[:1].expand_as(argument), labels)
        assert torch.allclose(same[0], same[3]) and not torch.allclose(same[0], same[1])
        with pytest.raises(ValueError, match=r"^labels: a conditional model needs a class from 0 to 2 for each image"):
            network(argument)
    (features,) = other.encode(x, labels)
    assert torch.equal(features, other.encoder(x)) and torch.equal(other.image(z), other.decoder(z))
    # The class stands beside the image: the first layer has so many inputs more, and each is used.
    first, last = next(told.encoder.parameters()), next(told.decoder.parameters())
    (told.encode(x, labels)[0].sum() + image(z, labels).sum()).backward()
    assert first.shape[1] == next(other.encoder.parameters()).shape[1] + 3 and last.shape[1] == 5
    assert last.grad[:, 2:].abs().sum(0).all()


def test_gated_layers_are_products_with_sigmoids():
    torch.manual_seed(0)
    network = Dense((1, 2, 3), latent_dim=2, hidden=[5, 4], gated=True)
    x = torch.rand(7, 1, 2, 3)
    h = x.flatten(1)
    for layer in (network.encoder[1], network.encoder[3]):
        value, gate = layer.weight.chunk(2), layer.bias.chunk(2)
        h = (h @ value[0].T + gate[0]) * torch.sigmoid(h @ value[1].T + gate[1])
    assert h.shape == (7, network.features) == (7, 4)
    torch.testing.assert_close(network.encode(x), (h,))
    assert not any(isinstance(module, torch.nn.ReLU) for module in network.modules())
    assert network.image(torch.randn(7, 2)).shape == x.shape
