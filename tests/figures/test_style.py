import io
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from vae.figures import curves, manifold, style

# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def lab(rgb):
    xyz = rgb @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    f = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


@pytest.mark.parametrize("vision", VISIONS)
def test_classes_differ_to_every_eye(vision):
    srgb = np.array([mpl.colors.to_rgb(colour) for colour in style.PALETTE])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = lab((linear @ np.array(VISIONS[vision]).T).clip(0, 1))
    distance = np.linalg.norm(seen[:, None] - seen, axis=-1) + 1e3 * np.eye(len(seen))
    assert distance.min() > 20


@pytest.mark.parametrize("count", [0, 1, 10, 11, 47])
def test_every_class_has_a_colour_of_its_own(count):
    assert len(set(style.colours(count))) == count


def test_a_mosaic_puts_images_side_by_side():
    images = torch.arange(6).reshape(2, 3, 1, 1, 1).expand(2, 3, 1, 4, 5) / 10
    plain, spaced = style.mosaic(images), style.mosaic(images, gap=2)
    assert plain.shape == (8, 15) and spaced.shape == (2 * 4 + 2, 3 * 5 + 2 * 2)
    assert np.allclose(plain[5, 12], 0.5) and np.allclose(plain[0, 5:10], 0.1)
    assert (spaced[4:6] == 1).all() and (spaced[:, 5:7] == 1).all() and np.allclose(spaced[6:, 14:], 0.5)
    colour = style.mosaic(torch.rand(2, 3, 3, 4, 5), gap=1)
    assert colour.shape == (9, 17, 3) and (colour[4] == 1).all()


def test_pixels_have_the_figures_size_and_nothing_global_changes():
    before = dict(mpl.rcParams)
    figure = curves.losses(
        [{"epoch": 1, **{f"{p}/{t}": 1.0 for p in ("train", "val") for t in ("loss", "total", "recon", "kl")}}], 1
    )
    pixels = style.rasterise(figure)
    (width, height), half = figure.get_size_inches() * figure.dpi, figure.dpi / 2
    assert pixels.dtype == np.uint8 and pixels.shape == (int(height), int(width), 3)
    assert style.rasterise(figure, dpi=half).shape[0] == int(height / 2)
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("width", [1.0, 6.0, 14.0])
def test_pictures_are_sharp_enough_for_slides(width):
    figure = style.new_figure(width, 1.0, "")
    assert style.rasterise(figure).shape[1] >= 1200 and figure.dpi >= style.DPI


def test_a_file_says_where_its_legend_and_its_small_print_begin():
    handles = style.class_handles(["one class", "another class"])
    figure = style.new_figure(5.0, 2.0, "small print", right=style.BESIDE + style.legend_width(handles))
    figure.add_subplot()
    style.legend_beside(figure, handles)
    file = io.BytesIO()
    style.as_image(style.rasterise(figure)).save(file, "png", **style.png_options(figure))
    with Image.open(file) as image:
        right, bottom = map(int, image.info["panels"].split())
        assert image.info["dpi"][0] == pytest.approx(figure.dpi, abs=0.1)
    legend, small = figure.legends[0].get_window_extent(), figure.texts[0].get_window_extent()
    assert figure.axes[0].get_window_extent().x1 < right < legend.x0 < figure.bbox.x1 - 5
    assert small.y1 < figure.bbox.y1 - bottom < figure.axes[0].get_window_extent().y0


def test_the_small_print_fits_into_a_narrow_figure():
    figure = style.new_figure(1.0, 1.0, "mnist · latent_dim 2 · correlated prior · β 1 · epoch 10")
    (text,) = figure.texts
    box = text.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_panels_leave_the_gaps_asked_for():
    figure = style.new_figure(6.0, 4.0, "", left=1.0, right=0.5, top=0.5, bottom=1.0)
    grid = style.panels(figure, 2, 3, (0.5, 0.25))
    boxes = [[axes.get_window_extent() for axes in row] for row in grid]
    dpi = figure.dpi
    assert np.isclose(boxes[0][0].x0 / dpi, 1.0) and np.isclose(boxes[1][0].y0 / dpi, 1.0)
    assert np.isclose((boxes[0][1].x0 - boxes[0][0].x1) / dpi, 0.5)
    assert np.isclose((boxes[0][0].y0 - boxes[1][0].y1) / dpi, 0.25)
    assert np.isclose(boxes[0][2].x1 / dpi, 7.0) and np.isclose(boxes[0][0].y1 / dpi, 5.0)


def test_many_classes_make_a_legend_of_bounded_length():
    handles = style.class_handles([str(i) for i in range(100)])
    assert len(handles) == 21 and handles[-1].get_label() == "and 80 more"


def test_a_scatter_draws_the_same_points_every_time():
    assert (style.spread(10_000, 50) == style.spread(10_000, 50)).all() and len(style.spread(20, 50)) == 20


def test_pyplot_is_never_imported():
    names = ("anomaly", "comparison", "contact", "curves", "images", "latent", "manifold", "posterior", "solid")
    modules = ", ".join(f"vae.figures.{name}" for name in names)
    code = f"import sys, {modules}; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert Figure.__module__ == "matplotlib.figure"


@pytest.mark.parametrize(("channels", "off"), [(1, 0), (3, 60)])
def test_a_notebook_shows_the_same_pixels_in_few_colours(channels, off):
    images = torch.rand(3, 3, channels, 4, 4)
    figure = manifold.manifold([images], [np.stack(np.meshgrid([0, 1, 2], [0, 1, 2]), -1)])
    assert isinstance(figure, style.Picture)
    shown = Image.open(io.BytesIO(figure._repr_png_()))
    assert shown.mode == ("L" if channels == 1 else "P")
    difference = np.abs(np.asarray(shown.convert("RGB")).astype(int) - style.rasterise(figure))
    assert difference.max() <= off and difference.mean() < 0.5
