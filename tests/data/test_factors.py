"""Files of images and factors, written here, by numpy."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vae.data import factors
from vae.data.base import DataError, Dataset
from vae.data.factors import FactorFile
from vae.model.build import build
from vae.model.checkpoints import file_of, read
from vae.model.restored import data_of, model_of
from vae.study.measures import measure
from vae.study.subject import NotApplicableError, Subject
from vae.training.run import train_run

N = 200
FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def good(**changed: Any) -> dict[str, Any]:
    """Arrays of which image i is all i, its factors are i // 10 and i % 10 / 3, and a third that does not vary."""
    i = np.arange(N)
    arrays = {
        "images": np.broadcast_to(i.astype(np.uint8)[:, None, None], (N, 5, 4)),
        "factors": np.stack([i // 10, np.full(N, 7), i % 10 / 3], 1),
    } | changed
    return {key: value for key, value in arrays.items() if value is not None}


def source(path: Path, **others: Any) -> FactorFile:
    return FactorFile(path.parent, 8, 0.2, file=path.name, **{"test_fraction": 0.25} | others)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(**changed: Any) -> Path:
        np.savez_compressed(tmp_path / "some.npz", **good(**changed))
        return tmp_path / "some.npz"

    return write


def values(data: Dataset) -> list[int]:
    """Which images of `good` a data set has."""
    assert data.val is not None
    return sorted(i for part in (data.train, data.val, data.test) for i in part.images[:, 0, 0, 0].tolist())


def test_every_image_is_in_one_part_with_its_factors(written: Callable[..., Path]) -> None:
    data = source(written()).load()
    assert (data.name, data.shape, data.classes) == ("factors", (1, 5, 4), ())
    assert data.factor_names == ("factor 1", "factor 3")
    assert data.val is not None and [len(part) for part in (data.train, data.val, data.test)] == [120, 30, 50]
    assert values(data) == list(range(N))
    for part in (data.train, data.val, data.test):
        i = part.images[:, 0, 0, 0].long()
        assert part.images.dtype == torch.uint8 and (part.images == i.view(-1, 1, 1, 1)).all()
        assert part.factors is not None and part.factors.dtype == torch.float32
        assert torch.equal(part.factors, torch.stack([i // 10, i % 10 / 3], 1))
        assert not part.labels.any()


def test_blocks_of_any_size_give_the_same_images(written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = written()
    whole = source(path).load()
    for size in (1, 130, 20 * N):  # bytes: of less than an image, of 6 images and a bit, of all
        monkeypatch.setattr(factors, "BLOCK", size)
        found = source(path).load()
        assert torch.equal(found.train.images, whole.train.images) and torch.equal(found.test.images, whole.test.images)


def test_the_split_is_always_the_same_and_a_limit_takes_images_of_all_kinds(written: Callable[..., Path]) -> None:
    path = written()
    whole = source(path).read()
    torch.manual_seed(1)
    some = source(path, limit=40).read()
    assert (len(some.train), len(some.test)) == (40, 40)
    assert torch.equal(some.train.images, whole.train.images[:40])
    assert torch.equal(some.test.images, whole.test.images[:40])
    for part in (some.train, some.test):
        assert part.factors is not None
        assert part.factors[:, 0].min() < 4 and part.factors[:, 0].max() > 15 and len(part.factors[:, 0].unique()) > 12
    first = source(path, limit=40).load().train.images.flatten().float()[: 10 * 20].mean()
    assert 40 < first < 160  # nor are the first ones, of which some measures take so many, of one kind


def test_images_of_zeros_and_ones_become_black_and_white(written: Callable[..., Path]) -> None:
    binary = (np.arange(N * 20).reshape(N, 5, 4) % 3 == 0).astype(np.uint8)
    images = source(written(images=binary)).read().test.images
    assert images.unique().tolist() == [0, 255]
    almost = binary.copy()
    almost[17] *= 2  # an image that a limit leaves out decides as well
    assert source(written(images=almost), limit=2).read().test.images.max() <= 2


def test_colours_keep_their_channels_and_one_channel_is_grey(written: Callable[..., Path]) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (N, 5, 4, 3), dtype=np.uint8)
    colour[:, 0, 0, 0] = np.arange(N)
    train = source(written(images=colour)).read().train.images
    assert train.shape[1:] == (3, 5, 4) and train.is_contiguous()
    assert np.array_equal(train.numpy(), colour[train[:, 0, 0, 0]].transpose(0, 3, 1, 2))
    assert source(written(images=colour[..., :1])).read().shape == (1, 5, 4)


def test_names_and_labels_are_taken_where_they_are(written: Callable[..., Path]) -> None:
    labels = np.where(np.arange(N) % 2, "cat", "dog")
    data = source(written(factor_names=np.array(["up", "same", "down"]), labels=labels)).load()
    assert data.factor_names == ("up", "down") and data.classes == ("cat", "dog")
    assert torch.equal(data.test.labels, 1 - data.test.images[:, 0, 0, 0] % 2)
    data = source(written(classes=np.arange(N) % 3 * 10 - 10)).load()
    assert data.classes == ("-10", "0", "10")
    assert torch.equal(data.test.labels, data.test.images[:, 0, 0, 0].long() % 3)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"images": None}, "no imgs or images, only factors"),
        ({"factors": None}, "no latents_values or factors, only images"),
        ({"images": np.zeros((N, 5, 4))}, "images is float64; it must be uint8"),
        ({"images": np.full((N, 5, 4), 300)}, "images is int64; it must be uint8"),
        ({"images": np.zeros((N, 3, 5, 4), np.uint8)}, "(n, height, width, 1 or 3)"),
        ({"images": np.zeros((N, 20), np.uint8)}, "(n, height, width)"),
        ({"images": np.zeros((N, 0, 4), np.uint8)}, "(n, height, width)"),
        ({"images": np.zeros((N - 1, 5, 4), np.uint8)}, "images has 199 images, but there are factors of 200"),
        ({"images": np.asfortranarray(good()["images"])}, "images must be a plain array in C order"),
        ({"images": np.array([None] * N)}, "images must be a plain array of numbers or strings, and is of object"),
        ({"factors": np.arange(N)}, "factors is int64 of (200,); it must be finite numbers (images, factors)"),
        ({"factors": np.full((N, 2), np.nan)}, "must be finite numbers"),
        ({"factors": np.full((N, 2), "a")}, "must be finite numbers"),
        ({"factors": np.full((N, 2), None)}, "factors must be a plain array of numbers or strings, and is of object"),
        ({"factors": np.ones((N, 2))}, "no factor in factors varies"),
        ({"factor_names": np.array(["a", "b"])}, "factor_names is <U1 of (2,); it must be 3 strings"),
        ({"factor_names": np.array(["a", "b", "c"], object)}, "factor_names must be a plain array of numbers"),
        ({"labels": np.zeros((N, 2), int)}, "labels is int64 of (200, 2); it must be an integer or a string for each"),
        ({"classes": np.zeros(N)}, "classes is float64 of (200,)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_arrays_are_refused_in_one_line(written: Callable[..., Path], changed: Any, words: str) -> None:
    path = written(**changed)
    with pytest.raises(DataError) as error:
        source(path).read()
    message = str(error.value)
    assert message.startswith(f"factors: {path}: ") and words in message and "\n" not in message


def test_damaged_files_are_refused_in_one_line(written: Callable[..., Path], tmp_path: Path) -> None:
    content = written().read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 8] ^= 0xFF
    for wrong in (
        b"",
        b"no zip",
        content[: len(content) // 2],
        bytes(flipped),
        pickle.dumps(Hostile(tmp_path / "ran")),
    ):
        (tmp_path / "wrong.npz").write_bytes(wrong)
        with pytest.raises(DataError) as error:
            source(tmp_path / "wrong.npz").read()
        assert str(error.value).startswith(f"factors: {tmp_path / 'wrong.npz'}") and "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_a_wrong_pixel_is_found_by_the_checksum(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", **good())  # not compressed: nothing but the checksum can tell
    content = bytearray((tmp_path / "some.npz").read_bytes())
    place = content.index(bytes([199] * 20))
    content[place] = 198
    (tmp_path / "some.npz").write_bytes(content)
    with pytest.raises(DataError, match="Bad CRC-32"):
        source(tmp_path / "some.npz", limit=2).read()


def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path, written: Callable[..., Path]) -> None:
    for path in (tmp_path / "none.npz", written() / "none.npz"):
        with pytest.raises(DataError, match="dsprites-dataset on GitHub") as error:
            source(path).read()
        assert f"there is no file {path}; set data.file" in str(error.value)


def test_too_few_images_to_split_are_refused(written: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"data.test_fraction=0.001: leaves 200 training and 0 test images of 200"):
        source(written(), test_fraction=0.001).read()


# dSprites -------------------------------------------------------------------------------------------------------------


def test_the_file_of_dsprites_is_read_by_default_and_its_pickle_is_not(
    sprites: Path, compose: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    with np.load(sprites / FILE) as fields:
        arrays = {key: fields[key] for key in ("imgs", "latents_values", "latents_classes")}
    arrays["metadata"] = np.array(Hostile(tmp_path / "ran"), dtype=object)
    np.savez_compressed(tmp_path / FILE, **arrays)
    data = build(compose("data=factors", f"data.root={tmp_path}"), "data").load()
    assert not (tmp_path / "ran").exists()
    assert data.shape == (1, 16, 16) and len(data.test) == 24 and data.classes == ()
    assert data.factor_names == ("shape", "scale", "orientation", "posX", "posY")  # its colour does not vary
    assert data.test.images.unique().tolist() == [0, 255]
    assert data.test.factors is not None
    shape, scale = data.test.factors[:, 0] - 1, 4 * data.test.factors[:, 1] - 2
    assert torch.equal(data.test.images.sum((1, 2, 3)) / 255, (1 + 2 * scale) * (1 + 2 * scale + 2 * shape))
    with np.load(tmp_path / FILE, allow_pickle=True) as fields:
        fields["metadata"]  # that the pickle is one
    assert (tmp_path / "ran").exists()


def test_an_absolute_file_needs_no_root(sprites: Path, compose: Callable[..., dict[str, Any]]) -> None:
    config = compose("data=factors", f"data.file={sprites / FILE}", "data.root=nowhere")
    assert len(build(config, "data").load().test) == 24


def test_a_run_on_factors_is_measured(sprites: Path, compose: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """From training to disentanglement; where the codes are the factors themselves, the scores are near 1."""
    few = ["epochs=1", "figures=none", "backbone.hidden=[16]", "data.test_fraction=0.5", "trainer.accelerator=cpu"]
    config = compose("data=factors", f"data.root={sprites}", *few)
    metrics = train_run(config, tmp_path)
    assert metrics["data"] == "factors" and metrics["test/total"] > 0
    checkpoint = read(file_of(tmp_path))
    subject = Subject(model_of(checkpoint), *data_of(checkpoint["vae"]))
    found = measure(subject, "disentanglement")
    assert all(0 <= value <= 1 for value in found.values())
    truth = subject.data.test.factors
    assert truth is not None
    subject.codes = subject.codes._replace(means=(truth - truth.mean(0)) / truth.std(0))
    perfect = measure(subject, "disentanglement")
    for name in ("mig", "beta_vae_score", "factor_vae_score", "modularity"):
        assert perfect[name] > 0.9, name
        assert perfect[name] > found[name], name
    with pytest.raises(NotApplicableError, match="no classes"):
        measure(subject, "structure")
