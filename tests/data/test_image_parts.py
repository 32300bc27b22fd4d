"""Folders of images with a split of their own, and images of which the middle is kept."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vae.data.base import DataError
from vae.data.images import ImageFolder, decode


def source(root: Path, **others: Any) -> ImageFolder:
    arguments: dict[str, Any] = {"size": None, "crop": None, "channels": 1, "test_fraction": 0.25}
    return ImageFolder(root, 8, 0.25, **arguments | others)


def paint(path: Path, grey: int, size: tuple[int, int] = (6, 4)) -> None:
    """An image of one grey, of (height, width) `size`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size[::-1], grey).save(path)


def values(images: torch.Tensor) -> list[int]:
    return sorted(images[:, 0, 0, 0].tolist())


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """12 training, 4 test and 3 validation images in two classes, each with its number as its grey."""
    for i in range(19):
        part = "train" if i < 12 else "test" if i < 16 else "val"
        paint(tmp_path / part / "ab"[i % 2] / f"{i:02}.png", i)
    return tmp_path


def test_folders_of_parts_are_kept_with_their_classes(parts: Path) -> None:
    data = source(parts).load()
    assert data.val is not None and data.classes == ("a", "b")
    assert values(data.train.images) == list(range(12))
    assert values(data.test.images) == [12, 13, 14, 15] and values(data.val.images) == [16, 17, 18]
    for part in (data.train, data.test, data.val):
        assert part.labels.tolist() == [int(grey) % 2 for grey in part.images[:, 0, 0, 0]]


def test_without_images_for_validation_some_of_the_training_images_are_taken(parts: Path) -> None:
    shutil.rmtree(parts / "val" / "a")
    shutil.rmtree(parts / "val" / "b")
    data = source(parts).load()
    assert data.val is not None and len(data.val) == 3 and len(data.train) == 9
    assert values(torch.cat([data.train.images, data.val.images])) == list(range(12))
    assert values(data.test.images) == [12, 13, 14, 15]


def test_a_limit_is_of_each_part_and_takes_the_same_images_always(parts: Path) -> None:
    first, second = (source(parts, limit=4).load() for _ in range(2))
    assert first.val is not None and (len(first.train), len(first.val), len(first.test)) == (4, 3, 4)
    assert torch.equal(first.train.images, second.train.images)
    assert values(first.train.images) != values(source(parts).load().train.images[:4])


def test_parts_need_no_classes_and_may_have_others(tmp_path: Path) -> None:
    for i in range(8):
        paint(tmp_path / ("train" if i < 5 else "test") / f"{i}.png", i)
    data = source(tmp_path).read()
    assert data.classes == () and data.val is None and not data.train.labels.any()
    paint(tmp_path / "test" / "z" / "8.png", 8)
    data = source(tmp_path).read()
    assert data.classes == (".", "z") and data.test.labels.tolist() == [0, 0, 0, 1]


def test_images_beside_the_parts_are_left_out_with_a_warning(parts: Path, caplog: pytest.LogCaptureFixture) -> None:
    paint(parts / "extra" / "99.png", 99)
    paint(parts / "98.png", 98)
    data = source(parts).load()
    assert data.val is not None
    assert values(torch.cat([data.train.images, data.val.images, data.test.images])) == list(range(19))
    assert f"2 of 21 image files in {parts} lie in none of train, test, val and are left out" in caplog.text


def test_a_part_without_images_is_refused(parts: Path) -> None:
    shutil.rmtree(parts / "test")
    (parts / "test").mkdir()
    with pytest.raises(DataError, match=r"^images: 12 training and 0 test and 3 validation images in .* can be read$"):
        source(parts).read()


def test_one_of_both_alone_is_a_class(tmp_path: Path) -> None:
    for i in range(8):
        paint(tmp_path / ("test" if i % 2 else "dogs") / f"{i}.png", i)
    data = source(tmp_path).read()
    assert data.classes == ("dogs", "test") and (len(data.train), len(data.test)) == (6, 2)


# Cropped.


@pytest.fixture
def pixels(tmp_path: Path) -> np.ndarray:
    """The pixels of `tmp_path/a.png`, each of another grey."""
    pixels = np.arange(63, dtype=np.uint8).reshape(7, 9) * 4
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return pixels


def test_the_middle_is_kept(tmp_path: Path, pixels: np.ndarray) -> None:
    cases: list[tuple[tuple[int, int], Any, Any]] = [
        ((3, 4), slice(2, 5), slice(2, 6)),
        ((7, 9), slice(None), slice(None)),
        ((1, 1), [3], [4]),
    ]
    for crop, rows, columns in cases:
        assert np.array_equal(decode(tmp_path / "a.png", 1, crop, crop)[:, :, 0], pixels[rows][:, columns])


def test_and_scaled_then(tmp_path: Path, pixels: np.ndarray) -> None:
    expected = Image.fromarray(pixels[1:6, 2:7]).resize((3, 2), Image.Resampling.LANCZOS)
    assert np.array_equal(decode(tmp_path / "a.png", 1, (2, 3), (5, 5))[:, :, 0], np.asarray(expected))


def test_a_large_jpeg_is_cropped_in_its_own_pixels(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 512).astype(np.uint8)[None].repeat(400, 0)
    Image.fromarray(ramp).save(tmp_path / "ramp.jpg", quality=95)
    small = decode(tmp_path / "ramp.jpg", 1, (16, 16), (16, 16))[:, :, 0].astype(float)
    assert abs(small - ramp[:16, 248:264]).max() < 5


@pytest.mark.parametrize(("crop", "shape"), [(4, (1, 4, 4)), ([5, 3], (1, 5, 3))])
def test_the_crop_is_the_size_where_none_is_given(parts: Path, crop: Any, shape: tuple[int, ...]) -> None:
    assert source(parts, crop=crop).read().shape == shape
    assert source(parts, crop=crop, size=[2, 3]).read().shape == (1, 2, 3)


def test_a_smaller_image_is_refused_in_one_line(parts: Path) -> None:
    paint(parts / "train" / "a" / "20.png", 20, (5, 4))
    assert source(parts, crop=[5, 4]).read().shape == (1, 5, 4)
    with pytest.raises(DataError) as error:
        source(parts, crop=[6, 4]).read()
    assert str(error.value) == (
        "data.crop=[6, 4]: must fit into all images, but is more than the 5×4 pixels of "
        f"{parts / 'train' / 'a' / '20.png'}"
    )
