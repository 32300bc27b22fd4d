"""Files of images and classes, written here, by numpy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vae.data.arrays import ArrayFile
from vae.data.base import DataError

RNG = np.random.default_rng(0)
KERAS: dict[str, Any] = {
    "x_train": RNG.integers(0, 256, (30, 5, 4, 3), np.uint8),
    "y_train": RNG.integers(0, 3, (30, 1), np.uint8),
    "x_test": RNG.integers(0, 256, (12, 5, 4, 3), np.uint8),
    "y_test": RNG.integers(0, 3, (12, 1), np.uint8),
}
PLAIN: dict[str, Any] = {"images": KERAS["x_train"], "labels": KERAS["y_train"][:, 0].astype(np.int64)}
Write = Callable[..., ArrayFile]


@pytest.fixture
def source(tmp_path: Path) -> Write:
    """A source of a file with these arrays."""

    def write(arrays: dict[str, Any], **others: Any) -> ArrayFile:
        kept = {key: value for key, value in arrays.items() if value is not None}
        np.savez_compressed(tmp_path / "some.npz", **kept)
        return ArrayFile(tmp_path, 8, 0.2, file="some.npz", **{"test_fraction": 0.25} | others)

    return write


def test_the_split_of_a_file_is_kept_with_its_order(source: Write) -> None:
    data = source(KERAS).read()
    for part, name in ((data.train, "train"), (data.test, "test")):
        assert part.images.dtype == torch.uint8 and part.labels.dtype == torch.int64
        np.testing.assert_array_equal(part.images.permute(0, 2, 3, 1), KERAS[f"x_{name}"])
        np.testing.assert_array_equal(part.labels, KERAS[f"y_{name}"][:, 0])
    assert (data.name, data.shape, data.classes) == ("arrays", (3, 5, 4), ("0", "1", "2"))
    loaded = source(KERAS).load()
    assert loaded.val is not None and (len(loaded.train), len(loaded.val), len(loaded.test)) == (24, 6, 12)


def test_images_without_a_split_get_one(source: Write) -> None:
    data = source(PLAIN).read()
    assert (len(data.train), len(data.test)) == (22, 8)
    both = torch.cat([data.train.images, data.test.images]).permute(0, 2, 3, 1).flatten(1)
    labels = torch.cat([data.train.labels, data.test.labels])
    given = torch.from_numpy(PLAIN["images"]).flatten(1)
    place = [int((given == image).all(1).nonzero()) for image in both]
    assert sorted(place) == list(range(30)) and place != list(range(30))
    assert torch.equal(labels, torch.from_numpy(PLAIN["labels"])[place])


def test_names_of_classes_are_taken_where_they_are_there(source: Write) -> None:
    names = np.array(["aeroplane", "car", "bird", "unseen"])
    data = source(KERAS | {"classes": names}).read()
    assert data.classes == tuple(names)
    np.testing.assert_array_equal(data.train.labels, KERAS["y_train"][:, 0])
    words = source(PLAIN | {"labels": names[PLAIN["labels"]]}).read()
    assert words.classes == ("aeroplane", "bird", "car")


def test_labels_may_be_missing_and_grey_images_have_one_channel(source: Write) -> None:
    data = source({"x_train": KERAS["x_train"][..., 0], "x_test": KERAS["x_test"][..., :1]}).read()
    assert data.shape == (1, 5, 4) and data.classes == () and not data.train.labels.any()


def test_images_of_zeros_and_ones_are_black_and_white(source: Write) -> None:
    data = source({key: KERAS[key] % 2 for key in ("x_train", "x_test")}).read()
    assert data.train.images.unique().tolist() == data.test.images.unique().tolist() == [0, 255]
    dark = source({"x_train": KERAS["x_train"], "x_test": KERAS["x_test"] % 2}).read()
    assert dark.test.images.max() == 1  # the training images tell what 1 is


def test_a_limit_takes_images_at_random_and_always_the_same(source: Write) -> None:
    sorted_by_class = KERAS | {"y_train": np.sort(KERAS["y_train"], 0)}
    first, second = (source(sorted_by_class, limit=9).read() for _ in range(2))
    assert (len(first.train), len(first.test)) == (9, 9) and len(first.train.labels.unique()) == 3
    assert torch.equal(first.train.images, second.train.images)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (KERAS | {"x_test": None}, r"has no x_train with x_test and no images, only x_train, y_train, y_test$"),
        (KERAS | {"x_train": KERAS["x_train"] / 255}, r"x_train is float64; it must be uint8"),
        (KERAS | {"x_train": KERAS["x_train"][..., :2]}, r"x_train is of \(30, 5, 4, 2\); it must be \(n, height, "),
        (KERAS | {"x_test": KERAS["x_test"][..., 0]}, r"x_train and x_test are of 3×5×4 and 1×5×4 \(channels, "),
        (KERAS | {"x_test": KERAS["x_test"][:, :3]}, r"they must be of one size$"),
        (KERAS | {"y_test": None}, r"has no y_test, but labels for the other images$"),
        (KERAS | {"y_test": KERAS["y_test"][:5]}, r"y_test is uint8 of \(5, 1\); it must be an integer or a string"),
        (KERAS | {"y_test": KERAS["y_test"] / 2}, r"y_test is float64 of \(12,\); it must be an integer or"),
        (KERAS | {"y_test": KERAS["y_test"].astype(str)}, r"must both be integers or both be strings$"),
        (KERAS | {"classes": np.array(["a", "b"])}, r"labels must be integers from 0 to 1, of which classes has"),
        (KERAS | {"classes": np.array(["a", "b", "b"])}, r"it must be 1 to 1,000 different strings$"),
        (PLAIN | {"labels": np.array([{}] * 30)}, r"labels must be a plain array of numbers or strings"),
    ],
)
def test_anything_else_is_refused_in_one_line(source: Write, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=rf"^arrays: .*some\.npz: .*{said}") as raised:
        source(arrays).read()
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^arrays: there is no file .*/none\.npz; set data\.file to an "):
        ArrayFile(tmp_path, file="none.npz", test_fraction=0.1).read()
