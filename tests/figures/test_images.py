import numpy as np
import pytest
import torch

from vae.figures import images

NOTE = "images · latent_dim 2 · correlated prior · β 1 · epoch 10"
BYTE = 0.5 / 255 + 1e-6  # as near as a byte can be
SHAPES = [(1, 28, 28), (3, 20, 28), (1, 40, 16)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("names", [(), ("Ankle boot", "T-shirt/top", "Bag", "Dress")])
def test_reconstructions_show_originals_decoded_and_their_difference(check, shown, shape, names):
    originals, decoded = torch.rand(4, *shape), torch.rand(4, *shape)
    figure = check(images.reconstructions(originals, decoded, names, NOTE))
    axes, bar = figure.axes
    top, error = axes.images
    _, height, width = shape
    pixels = shown(top)
    assert np.allclose(pixels[:, :height, :width], originals[0], atol=BYTE)
    assert np.allclose(pixels[:, height + images.GAP :, :width], decoded[0], atol=BYTE)
    assert np.allclose(error.get_array()[:, :width], (decoded - originals)[0].mean(0), atol=1e-6)
    assert error.get_clim() == (-1, 1) and error.get_cmap().name == "RdBu_r"
    assert [label.get_text() for label in axes.get_xticklabels()] == list(names)[:4] or not names
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows[:2] == ["original", "reconstruction"] and rows[2].startswith("difference")
    assert [label.get_text() for label in bar.get_yticklabels()] == ["−1 too dark", "0", "+1 too bright"]


@pytest.mark.parametrize("shape", SHAPES)
def test_samples_fill_a_grid(check, shape):
    (axes,) = check(images.samples(torch.rand(3, 5, *shape), note=NOTE)).axes
    assert axes.images[0].get_array().shape[:2] == (3 * shape[1] + 2 * images.GAP, 5 * shape[2] + 4 * images.GAP)
    assert "prior" in axes.get_title()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("names", [(), (("T-shirt/top", "Ankle boot"), ("Bag", "Sneaker"))])
def test_interpolations_go_from_image_to_image(check, shown, shape, names):
    starts, ends = torch.rand(2, *shape), torch.rand(2, *shape)
    figure = check(images.interpolation(torch.rand(2, 5, *shape), starts, ends, names, NOTE))
    (axes,) = figure.axes
    columns = [label.get_text() for label in axes.get_xticklabels()]
    assert columns == ["image a", "0.0", "0.2", "0.5", "0.8", "1.0", "image b"]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"{a} → {b}" for a, b in names]
    assert np.allclose(shown(axes.images[0])[:, : shape[1], -shape[2] :], ends[0], atol=BYTE)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_traversal_has_a_row_for_each_dimension(check, shown, shape):
    offsets, names = torch.linspace(-3, 3, 5), ["z₉", "z₀", "z₁"]
    decoded, originals = torch.rand(2, 3, 5, *shape), torch.rand(2, *shape)
    figure = check(images.traversal(decoded, originals, offsets, names, [True, True, False], "stay", NOTE))
    (axes,) = figure.axes
    assert axes.get_xlabel().endswith(";\nall other dimensions stay")
    columns = [label.get_text() for label in axes.get_xticklabels()]
    assert columns == ["image", "−3", "−1.5", "0", "+1.5", "+3"] * 2
    labels = {label.get_text(): label.get_color() for label in axes.get_yticklabels()}
    assert list(labels) == ["z₉", "z₀", "z₁, inactive"] and labels["z₀"] == "black" != labels["z₁, inactive"]
    _, height, width = shape
    for block, first, row in zip(axes.images, originals, decoded, strict=True):
        pixels = shown(block)
        assert np.allclose(pixels[:, :height, :width], first, atol=BYTE)
        used, unused = pixels[:, :height, -width:], pixels[:, -height:, -width:]
        assert np.allclose(used, row[0, -1], atol=BYTE) and unused.min() > 0.6
        assert np.allclose(unused, 0.65 + 0.35 * row[2, -1], atol=BYTE)
    one, other = (image.get_extent() for image in axes.images)
    assert one[1] < other[0]  # the images' blocks stand apart
