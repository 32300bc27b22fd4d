"""Image files that are decoded once."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vae.data import decoded
from vae.data.base import Dataset
from vae.data.images import ImageFolder, decode

Read = Callable[..., Dataset]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where images are kept, also so few."""
    monkeypatch.setattr(decoded, "FEW", 3)
    monkeypatch.setenv("VAE_DATA", str(tmp_path / "store"))
    return tmp_path / "store" / "decoded"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (8, 6, 5, 3), np.uint8)):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was decoded."""
    names: list[str] = []
    monkeypatch.setattr("vae.data.images.decode", lambda path, *rest: names.append(path.name) or decode(path, *rest))
    return names


def read(folder: Path, **others: Any) -> Dataset:
    arguments: dict[str, Any] = {"size": [6, 5], "crop": None, "channels": 3, "test_fraction": 0.25}
    return ImageFolder(folder, 8, 0.25, **arguments | others).read()


def same(one: Dataset, other: Dataset) -> bool:
    return torch.equal(one.train.images, other.train.images) and torch.equal(one.test.images, other.test.images)


def test_files_are_decoded_once(folder: Path, files: list[str], place: Path) -> None:
    first = read(folder)
    assert sorted(files) == [f"{i}.png" for i in range(8)]
    assert same(first, read(folder)) and len(files) == 8
    assert len(list(place.glob("*.npz"))) == 1


def test_few_are_not_kept(folder: Path, files: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "FEW", 8)
    assert same(read(folder), read(folder)) and len(files) == 16 and not place.exists()


def replaced(folder: Path) -> None:
    Image.new("RGB", (5, 6), "white").save(folder / "3.png")


def touched(folder: Path) -> None:
    os.utime(folder / "3.png", (0, 0))


def added(folder: Path) -> None:
    Image.new("RGB", (5, 6), "white").save(folder / "8.png")


def removed(folder: Path) -> None:
    (folder / "3.png").unlink()


def renamed(folder: Path) -> None:
    (folder / "3.png").rename(folder / "33.png")


@pytest.mark.parametrize("change", [replaced, touched, added, removed, renamed])
def test_other_files_are_decoded_in_their_place(
    folder: Path,
    files: list[str],
    place: Path,
    change: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    read(folder)
    change(folder)
    count = len(list(folder.iterdir()))
    found = read(folder)
    assert len(files) == 8 + count and len(list(place.glob("*.npz"))) == 1 and not caplog.records
    assert same(found, read(folder)) and len(files) == 8 + count
    monkeypatch.setattr(decoded, "FEW", 100)
    assert same(found, read(folder))


@pytest.mark.parametrize("others", [{"size": [3, 3]}, {"crop": 4}, {"channels": 1}, {"limit": 2}])
def test_other_options_are_kept_beside(folder: Path, files: list[str], place: Path, others: dict[str, Any]) -> None:
    first = read(folder)
    found = read(folder, **others)
    assert same(first, read(folder)) and same(found, read(folder, **others)) and not same(first, found)
    assert len(files) == 8 + len(found.train) + len(found.test) and len(list(place.glob("*.npz"))) == 2


def test_another_way_of_decoding_is_no_longer_that(
    folder: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read(folder)
    monkeypatch.setattr(decoded, "VERSION", decoded.VERSION + 1)
    read(folder)
    assert len(files) == 16


def halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize("spoil", [halved, flipped, lambda _: b"", lambda _: b"nothing"])
def test_what_is_damaged_is_made_again(
    folder: Path, files: list[str], place: Path, spoil: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    first = read(folder)
    (path,) = place.glob("*.npz")
    path.write_bytes(spoil(path.read_bytes()))
    assert same(first, read(folder)) and len(files) == 16 and "is made again" in caplog.text
    assert same(first, read(folder)) and len(files) == 16


def test_what_cannot_be_read_is_named_each_time(
    folder: Path, files: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "3.png").write_bytes(b"no image")
    first = read(folder)
    assert same(first, read(folder)) and len(files) == 8 and len(first.train) + len(first.test) == 7
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert caplog.text.count("1 of 8 image files") == 2


def test_a_place_that_cannot_be_written_to_costs_time_alone(
    folder: Path, files: list[str], place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place.parent.write_text("no folder")
    assert same(read(folder), read(folder)) and len(files) == 16
    assert caplog.text.count("cannot be kept") == 2
