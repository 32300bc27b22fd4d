"""CelebA, small: its folder, its list and its crop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faces import FOLDER, LIST, write_faces

from vae.data import celeba
from vae.data.base import DataError
from vae.data.celeba import CelebA
from vae.model.build import build

Compose = Callable[..., dict[str, Any]]


def part_of(i: int) -> int:
    return 0 if i < 20 else 1 if i < 26 else 2


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """30 images of CelebA's size; red says the row, green the column and blue the image's number."""
    row, column = np.indices((218, 178), np.uint8)
    write_faces(tmp_path, [np.stack([row, column, np.full_like(row, i)], 2) for i in range(30)], part_of, "png")
    return tmp_path


def source(root: Path, **others: Any) -> CelebA:
    arguments: dict[str, Any] = {"size": [140, 140], "crop": 140, "channels": 3}
    return CelebA(root, 8, **arguments | others)


def numbers(part: Any) -> list[int]:
    return part.images[:, 2, 0, 0].tolist()


def test_the_published_split_and_crop(faces: Path) -> None:
    data = source(faces).load()
    assert (data.name, data.classes, data.shape) == ("celeba", (), (3, 140, 140)) and data.val is not None
    assert numbers(data.train) == list(range(20)) and numbers(data.val) == list(range(20, 26))
    assert numbers(data.test) == list(range(26, 30))
    red, green = data.test.images[0, 0], data.test.images[0, 1]  # 218 − 140 = 2 × 39, 178 − 140 = 2 × 19
    assert red[:, 0].tolist() == list(range(39, 179)) and green[0].tolist() == list(range(19, 159))


def test_a_limit_is_of_each_part(faces: Path) -> None:
    data = source(faces, limit=5).load()
    assert data.val is not None and [len(part) for part in (data.train, data.val, data.test)] == [5, 5, 4]
    assert numbers(data.train) != list(range(5)) and numbers(data.train) == numbers(source(faces, limit=5).load().train)


def test_a_list_in_csv_and_a_folder_in_the_folder(faces: Path) -> None:
    lines = (faces / "celeba" / LIST).read_text().replace(" ", ",")
    (faces / "celeba" / LIST).unlink()
    (faces / "celeba" / "list_eval_partition.csv").write_text("image_id,partition\n" + lines)
    (faces / "celeba" / FOLDER).rename(faces / "celeba" / "inner")
    (faces / "celeba" / FOLDER).mkdir()
    (faces / "celeba" / "inner").rename(faces / "celeba" / FOLDER / FOLDER)
    assert numbers(source(faces).read().train) == list(range(20))


def test_the_root_may_be_the_folder_itself(faces: Path) -> None:
    assert numbers(source(faces / "celeba").read().train) == list(range(20))


@pytest.mark.parametrize("missing", [FOLDER, LIST])
def test_what_is_missing_is_told_with_where_to_get_it(faces: Path, missing: str) -> None:
    (faces / "celeba" / missing).rename(faces / "elsewhere")
    with pytest.raises(DataError) as error:
        source(faces).read()
    message = str(error.value)
    assert message.startswith(f"celeba: data.root={faces}: must be a folder in which celeba/{FOLDER}/ and ")
    assert "mmlab.ie.cuhk.edu.hk/projects/CelebA.html" in message and "\n" not in message


def test_images_that_are_missing_are_counted(faces: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("000001.jpg", "000030.jpg"):
        (faces / "celeba" / FOLDER / name).unlink()
    data = source(faces).read()
    assert numbers(data.train) == list(range(1, 20)) and numbers(data.test) == [26, 27, 28]
    assert "2 of the 30 images in" in caplog.text


@pytest.mark.parametrize("line", ["000001.jpg 3", "000001.jpg", "a b 0", "\x1b[2J 7", "image_id partition"])
def test_another_line_is_refused(faces: Path, line: str) -> None:
    with (faces / "celeba" / LIST).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(
        DataError, match=rf"^celeba: .*{LIST}, line 31: must be a file's name and 0, 1 or 2, not "
    ) as error:
        source(faces).read()
    assert str(error.value).isprintable()


def test_a_list_without_bounds_is_refused(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celeba, "MOST", 100)
    with pytest.raises(DataError, match="has more than 100 bytes"):
        source(faces).read()


def test_an_empty_part_is_refused(faces: Path) -> None:
    (faces / "celeba" / LIST).write_text("000001.jpg 0\n000002.jpg 1\n")
    with pytest.raises(DataError, match=r"^celeba: 1 training and 1 validation and 0 test images in"):
        source(faces).read()


def test_the_configuration_is_complete(faces: Path, compose: Compose) -> None:
    data = build(compose("data=celeba", f"data.root={faces}"), "data").load()
    assert data.shape == (3, 64, 64) and [len(part) for part in (data.train, data.val, data.test)] == [20, 6, 4]
