import numpy as np
import pytest

from vae.figures.evolution import Frame, evolution

CLASSES = ("one", "two", "three")
LABELS = np.arange(30) % 3
NAMES = ("z₀", "z₁")


def frame(seed, dims=2, rows=4, scale=1.0, shape=(1, 8, 8)):
    random = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*[np.linspace(-2, 2, 4)] * 2), -1)[:rows, :, :dims]
    places = np.broadcast_to(places[:1], (rows, 4, 1)) if dims == 1 else places
    t = np.linspace(0, 2 * np.pi, 50)
    prior = scale * np.array([[-2.0], [2.0]]) if dims == 1 else 2 * scale * np.stack([np.cos(t), np.sin(t)], 1)
    tiles = random.integers(0, 256, (rows, 4, *shape), dtype=np.uint8)
    return Frame(scale * random.normal(size=(30, dims)), prior, tiles, places)


def film(*frames, classes=CLASSES, captions=None):
    names = NAMES[: frames[0].codes.shape[1]]
    labels = LABELS if classes else 0 * LABELS
    return list(evolution(frames, captions or [""] * len(frames), labels, classes, names, "a note"))


@pytest.mark.parametrize(
    ("dims", "rows"), [(2, 4), (1, 1), (1, 3)], ids=["plane", "strip", "a row for each class of a conditional model"]
)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 10)])
def test_nothing_of_one_frame_is_left_in_the_next(dims, rows, shape):
    a, b = (frame(seed, dims, rows, shape=shape) for seed in (0, 1))
    first, second, third = film(a, b, a)
    assert first.dtype == np.uint8 and first.shape == second.shape and first.shape[2] == 3
    assert np.array_equal(first, third) and not np.array_equal(first, second)


def blue(pixels):
    """The places (n, 2) of codes that have no class, as rows and columns."""
    red, _, blue = np.moveaxis(pixels.astype(int), -1, 0)
    return np.argwhere(blue - red > 60)


@pytest.mark.parametrize("dims", [1, 2])
def test_the_axes_fit_all_frames(dims):
    small, large = (frame(0, dims, rows=4, scale=scale) for scale in (0.1, 10))
    alone, beside = film(small, classes=())[0], film(small, large, classes=())[0]
    assert np.ptp(blue(beside)[:, 1]) < np.ptp(blue(alone)[:, 1]) / 3


def test_a_code_and_a_tile_lie_where_the_axes_say():
    codes = np.tile([1.9, 0.0], (30, 1))
    white = np.zeros((4, 4, 1, 8, 8), np.uint8)
    white[3, 0] = 255  # the highest row of the first column
    (pixels,) = film(frame(0)._replace(codes=codes, tiles=white), classes=())
    height, width = pixels.shape[:2]
    row, column = blue(pixels).mean(0)
    assert 0.4 * width < column < 0.5 * width and 0.4 * height < row < 0.6 * height  # right in the left panel
    black = (pixels == 0).all(-1) & (np.arange(width) > width / 2)
    rows, columns = (np.flatnonzero(black.sum(axis) > 100) for axis in (1, 0))  # more than letters are
    sheet = black[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    side = len(sheet) // 4
    assert not sheet[: side - 2, : side - 2].any()
    sheet[: side + 2, : side + 2] = True
    assert sheet[1:-1, 1:-1].all()


def test_the_caption_changes_and_data_may_have_no_classes():
    a, b = film(frame(0), frame(0), classes=(), captions=["epoch 1", "epoch 2"])
    changed = (a != b).any(-1).nonzero()[0]
    assert len(changed) and changed.max() < 0.1 * len(a)
