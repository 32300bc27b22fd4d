"""The residual backbone: its stages, their blocks and their attention, beside formulas written out by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from models import awake
from torch import Tensor, nn

from vae.model.resnet import MOST_PLACES, Residual, Resnet, SelfAttention, Stages

SHAPES = [(1, 28, 28), (3, 32, 32), (3, 20, 28), (1, 13, 9), (1, 1, 2)]


def made(shape: tuple[int, int, int], **changed: Any) -> Resnet:
    arguments: dict[str, Any] = {"latent_dim": 2, "channels": [4, 6, 8], "depth": 2, "groups": 2, "attention": []}
    return Resnet(shape, **arguments | changed)


@pytest.mark.parametrize("groups", [2, None])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_out_are_shapes_in_and_every_weight_learns(shape, groups):
    height, width = (math.ceil(side / 4) for side in shape[1:])
    for latent_dim in (1, 2, 10):
        backbone = awake(made(shape, latent_dim=latent_dim, groups=groups, attention=[min(height, width)]))
        encoded = backbone.encoder(torch.rand(3, *shape))
        decoded = backbone.decoder(torch.randn(3, latent_dim))
        assert backbone.features == 8 * height * width and encoded.shape == (3, backbone.features)
        assert decoded.shape == (3, *shape)
        (encoded.square().sum() + decoded.square().sum()).backward()
        for name, weight in backbone.named_parameters():
            assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name


def test_fresh_weights_all_learn_within_two_steps():
    """Layers that start at zero hide those before them from the first gradient."""
    backbone = made((1, 9, 8), attention=[4])
    images, latents = torch.rand(3, 1, 9, 8), torch.randn(3, 2)
    optimizer = torch.optim.Adam(backbone.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        (backbone.encoder(images).square().sum() + backbone.decoder(latents).square().sum()).backward()
        optimizer.step()
    assert not [name for name, weight in backbone.named_parameters() if not weight.grad.any()]


def test_stages_halve_any_size_and_go_back_to_it():
    backbone = made((1, 13, 9))
    maps: list[tuple[int, ...]] = []
    back: list[tuple[int, ...]] = []
    images, latents = torch.rand(2, 1, 13, 9), torch.randn(2, 2)
    for stage in backbone.encoder[:3]:
        images = stage(images)
        maps.append(tuple(images.shape[1:]))
    assert maps == [(4, 13, 9), (6, 7, 5), (8, 4, 3)]
    for stage in backbone.decoder[:3]:
        latents = stage(latents)
        back.append(tuple(latents.shape[1:]))
    assert back == maps[::-1]


@pytest.mark.parametrize("depth", [1, 4])
def test_branches_are_scaled_with_the_number_of_blocks(depth):
    backbone = made((1, 13, 9), depth=depth, attention=[9, 5, 3])
    assert all(
        module.scale == 1 / math.sqrt(3 * depth) for module in backbone.modules() if isinstance(module, Residual)
    )
    for network in (backbone.encoder, backbone.decoder):
        blocks = [module for module in network.modules() if isinstance(module, Residual)]
        attending = [module for module in network.modules() if isinstance(module, SelfAttention)]
        assert len(blocks) - len(attending) == 3 * depth


def test_fresh_blocks_return_what_they_are_given_and_learn():
    stages, x = Stages(1, 2, [], 0.5), torch.randn(3, 4, 5, 7)
    for block in (stages.convolutions(4), stages.look_around(4)):
        assert torch.equal(block(x), x)
        block(x).square().sum().backward()
        assert block.branch[-1].weight.grad.any()


def normalised(x: Tensor, groups: int | None) -> Tensor:
    if groups is None:
        return x
    parts = x.reshape(len(x), groups, -1)
    centred = parts - parts.mean(-1, keepdim=True)
    return (centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()).view_as(x)


@pytest.mark.parametrize("groups", [2, None])
def test_a_block_is_its_formula(groups):
    block, x = awake(Stages(1, groups, [], 0.3).convolutions(4)).double(), torch.randn(3, 4, 5, 7).double()
    first, second = (layer for layer in block.branch if isinstance(layer, nn.Conv2d))
    for layer in block.branch:
        if isinstance(layer, nn.GroupNorm):
            nn.init.zeros_(layer.bias)
    y = x
    for layer in (first, second):
        h = normalised(y, groups)
        y = nn.functional.conv2d(h * torch.sigmoid(h), layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(block(x), x + 0.3 * y)


def test_attention_is_a_softmax_over_all_places():
    layer, x = SelfAttention(3).double(), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    weight, bias = (each.detach().numpy().reshape(9, -1) for each in layer.parameters())
    found = layer(x).detach().flatten(2).numpy()
    for places, result in zip(x.flatten(2).numpy(), found, strict=True):
        q, k, v = np.split(weight @ places + bias, 3)
        for place in range(20):
            shares = np.exp(q[:, place] @ k / math.sqrt(3))
            np.testing.assert_allclose(result[:, place], v @ shares / shares.sum())


def test_attention_stands_at_the_resolutions_asked_for():
    backbone = made((1, 28, 30), attention=[7, 14])
    seen: list[tuple[int, ...]] = []
    for module in backbone.modules():
        if isinstance(module, SelfAttention):
            module.register_forward_hook(lambda _, given, __: seen.append(tuple(given[0].shape[2:])))
    backbone.encoder(torch.rand(1, 1, 28, 30))
    assert seen == [(14, 15), (14, 15), (7, 8), (7, 8)]
    seen.clear()
    backbone.decoder(torch.randn(1, 2))
    assert seen == [(7, 8), (7, 8), (14, 15), (14, 15)]


@pytest.mark.parametrize(
    ("shape", "attention", "allowed"),
    [((1, 28, 30), [14, 5], "14, 28"), ((1, 1, 4 * MOST_PLACES), [1], "none here")],
)
def test_attention_that_no_map_can_have_is_refused(shape, attention, allowed):
    with pytest.raises(ValueError, match=rf"^backbone\.attention=\[.*\]: must be shorter sides of maps .*: {allowed}$"):
        made(shape, attention=attention, channels=[4, 4])


def test_without_attention_maps_may_be_of_any_size():
    backbone = made((1, 300, 300), channels=[2], groups=1, depth=1)
    assert backbone.encoder(torch.rand(1, 1, 300, 300)).shape == (1, 2 * 300 * 300)
