"""Every kind and layout of the same images must come out as the same numbers."""

import numpy as np
import pytest
import torch
from PIL import Image

from vae.data.inputs import as_batch, to_unit

GREY = np.random.default_rng(0).integers(0, 256, (4, 5, 7), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (4, 5, 7, 3), dtype=np.uint8)
FIRST = COLOUR.transpose(0, 3, 1, 2)  # channels first
SHAPES = {"grey": (1, 5, 7), "colour": (3, 5, 7)}
EXPECTED = {"grey": torch.tensor(GREY[:, None] / 255), "colour": torch.tensor(FIRST / 255)}


@pytest.mark.parametrize(
    ("colours", "images"),
    [
        ("grey", GREY),
        ("grey", GREY[:, None]),
        ("grey", torch.tensor(GREY)),
        ("grey", torch.tensor(GREY)[:, None]),
        ("grey", GREY / 255),
        ("grey", (GREY / 255).astype(np.float32)),
        ("grey", (GREY / 255).astype(">f8")),
        ("grey", (GREY / 255).tolist()),
        ("grey", torch.tensor(GREY / 255, requires_grad=True)),
        ("grey", list(GREY)),
        ("grey", tuple(torch.tensor(GREY) / 255)),
        ("grey", [Image.fromarray(image) for image in GREY]),
        ("grey", np.ascontiguousarray(GREY[:, :, ::-1])[:, :, ::-1]),  # a negative stride
        ("colour", COLOUR),
        ("colour", FIRST),
        ("colour", torch.tensor(COLOUR)),
        ("colour", torch.tensor(FIRST / 255)),
        ("colour", list(COLOUR)),
        ("colour", [Image.fromarray(image) for image in COLOUR]),
    ],
)
def test_all_kinds_of_the_same_images_are_the_same(colours, images):
    assert torch.allclose(to_unit(as_batch(images, SHAPES[colours])).double(), EXPECTED[colours], atol=1e-7)


@pytest.mark.parametrize(
    ("colours", "image"),
    [
        ("grey", GREY[2]),
        ("grey", GREY[2, None]),
        ("grey", Image.fromarray(GREY[2])),
        ("grey", [GREY[2]]),
        ("colour", COLOUR[2]),
        ("colour", FIRST[2]),
        ("colour", Image.fromarray(COLOUR[2])),
    ],
)
def test_a_single_image_is_a_batch_of_one(colours, image):
    assert torch.allclose(to_unit(as_batch(image, SHAPES[colours])).double(), EXPECTED[colours][2:3], atol=1e-7)


def test_a_picture_of_another_mode_is_converted():
    grey = Image.fromarray(GREY[0])
    assert torch.equal(to_unit(as_batch(grey, (3, 5, 7)))[0, 1].double(), (EXPECTED["grey"][0, 0]).float().double())
    assert as_batch(Image.fromarray(COLOUR[0]), (1, 5, 7)).shape == (1, 1, 5, 7)


def test_binary_and_half_precision_images():
    assert torch.equal(to_unit(as_batch(GREY > 99, (1, 5, 7))), torch.tensor(GREY > 99)[:, None].float())
    half = torch.rand(2, 1, 5, 7).bfloat16()
    assert torch.equal(to_unit(as_batch(half, (1, 5, 7))), half.float())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((4, 5, 6)),
            r"^images of shape \(4, 5, 6\): must be \(1, 5, 7\), \(n, 1, 5, 7\), \(5, 7\), \(n, 5, 7\)$",
        ),
        (np.zeros((2, 2, 1, 5, 7)), r"^images of shape \(2, 2, 1, 5, 7\): must be "),
        (np.zeros((4, 3, 5, 7)), r"^images of shape \(4, 3, 5, 7\): must be "),
        (np.zeros((4, 5, 7), int), "^images of int64: must be uint8 from 0 to 255, or floats from 0 to 1$"),
        (np.full((5, 7), "a"), "^images of <U1: must be uint8"),
        (np.zeros((0, 5, 7)), "^images: there are none$"),
        ([], r"^images of shape \(0\): must be "),
        ([GREY[0], GREY[0, :4]], r"^images of different shapes: \(4, 7\) and \(5, 7\)$"),
        (GREY.astype(float), "^images from 0 to 249: floats must lie between 0 and 1, or be uint8 up to 255$"),
        (0.5 - GREY / 255, "^images from -0.476471 to 0.5: floats must lie"),
        (np.full((5, 7), np.nan), "^images: contain NaN; floats must lie between 0 and 1$"),
        (np.full((5, 7), np.inf), "^images from inf to inf: floats must"),
        (Image.new("L", (5, 7)), r"^images of shape \(1, 7, 5\): must be"),
        ([[0.0, 1.0], [0.0]], "^images: must be numbers in rows of one length"),
        (None, "^images of shape"),
        ("photo.png", "^images of shape"),
    ],
)
def test_what_is_no_image_of_this_model_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        to_unit(as_batch(images, (1, 5, 7)))
