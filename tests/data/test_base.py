import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vae.data.base import DataError, Dataset, DataSource, Split, from_home, one_line


class Counting(DataSource):
    """40 training and 20 test images; every pixel, the label and the factor of image i are i."""

    def read(self) -> Dataset:
        train, test = (
            Split(i.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 3), i, i.float().view(-1, 1))
            for i in (torch.arange(100, 140), torch.arange(20))
        )
        return Dataset("counting", train, test)


class Parted(Counting):
    """The same with 6 images of its own for validation, 200 to 205."""

    def read(self) -> Dataset:
        i = torch.arange(200, 206)
        return replace(super().read(), val=Split(i.byte().view(-1, 1, 1, 1).expand(-1, 1, 2, 3), i))


def test_a_source_s_own_part_for_validation_is_kept() -> None:
    data = Parted(Path("nowhere")).load()
    assert data.val is not None
    assert data.train.labels.tolist() == list(range(100, 140)) and data.val.labels.tolist() == list(range(200, 206))
    few = Parted(Path("nowhere"), limit=5, binarize="threshold").load()
    assert few.val is not None
    assert few.train.labels.tolist() == list(range(100, 105)) and few.val.labels.tolist() == list(range(200, 205))
    assert few.test.labels.tolist() == list(range(5)) and few.val.images.unique().tolist() == [255]


def load(val_fraction: float = 0.1, binarize: str = "none", limit: int | None = None) -> Dataset:
    return Counting(Path("~/nowhere"), 128, val_fraction, binarize, limit).load()


def test_the_split_is_disjoint_complete_and_always_the_same() -> None:
    data, again = load(), load()
    assert data.val is not None and again.val is not None
    assert (len(data.train), len(data.val), len(data.test)) == (36, 4, 20)
    assert sorted([*data.train.labels.tolist(), *data.val.labels.tolist()]) == list(range(100, 140))
    assert data.val.labels.tolist() != list(range(136, 140))  # spread over the set, not its end
    assert torch.equal(data.val.labels, again.val.labels) and torch.equal(data.train.images, again.train.images)
    torch.manual_seed(1)
    assert torch.equal(data.val.labels, load().val.labels)
    assert data.shape == (1, 2, 3)


def test_images_labels_and_factors_stay_together() -> None:
    data = load()
    for part in (data.train, data.val, data.test):
        assert part is not None and part.factors is not None
        assert part.images[:, 0, 0, 0].tolist() == part.labels.tolist() == part.factors[:, 0].tolist()


def test_limit_counts_training_and_validation_together() -> None:
    data = load(limit=10)
    assert data.val is not None
    assert (len(data.train), len(data.val), len(data.test)) == (9, 1, 10)
    assert sorted([*data.train.labels.tolist(), *data.val.labels.tolist()]) == list(range(100, 110))


def test_threshold_makes_pixels_black_or_white_and_changes_nothing_else() -> None:
    data = load(binarize="threshold")
    assert data.train.images.dtype == torch.uint8
    assert torch.equal(data.train.images[:, 0, 0, 0] == 255, data.train.labels >= 128)
    assert set(data.train.images.unique().tolist()) == {0, 255}
    assert not data.test.images.any()
    assert data.train.factors is not None and torch.equal(data.train.labels, load().train.labels)
    assert load(binarize="dynamic").train.images.unique().numel() > 2  # drawn anew for every batch, not here


@pytest.mark.parametrize("val_fraction", [0.0, 0.001, 0.999, 1.0])
def test_a_split_without_images_is_refused(val_fraction: float) -> None:
    with pytest.raises(ValueError, match=f"data.val_fraction={val_fraction}.*at least 1") as error:
        load(val_fraction)
    assert "\n" not in str(error.value)


def test_a_user_without_a_home_folder_is_told_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # whom no list of users has
    with pytest.raises(ValueError, match=r"^~/nowhere: this user has no known home folder; set VAE_DATA or data\.root"):
        load()
    assert from_home(tmp_path) == tmp_path


def test_messages_of_data_errors_are_one_line_whatever_they_quote() -> None:
    assert str(DataError("a\nb \x1b[2J \udcff Žluťoučký kůň")) == r"a\nb \x1b[2J \udcff Žluťoučký kůň"
    assert one_line(ValueError("a\rb")) == r"a\rb"
