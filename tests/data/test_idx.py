"""The sources of MNIST's kind, against a real server on this machine that serves good, bad and no answers."""

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mirrors import (
    BOMB,
    DIGESTS,
    GZ_DIGESTS,
    IMAGES,
    OTHER,
    PACKED,
    PLAIN,
    fails,
    idx,
    left,
    little_memory,
    read_right,
    refused,
    source,
    write,
)

from vae.data.base import DataError
from vae.data.idx import FILES, IdxFiles
from vae.model.build import build

Compose = Callable[..., dict[str, Any]]


# From disk.


@pytest.mark.parametrize("files", [PLAIN, PACKED, PLAIN | PACKED], ids=["plain", "packed", "both"])
@pytest.mark.parametrize("digests", [DIGESTS, GZ_DIGESTS, {}], ids=["of the content", "of the .gz", "none"])
def test_files_on_disk_are_read_and_nothing_is_written(
    tmp_path: Path, files: dict[str, bytes], digests: dict[str, str]
) -> None:
    write(tmp_path, files)
    (tmp_path / "tiny").chmod(0o555)
    read_right(source(tmp_path, digests=digests))
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == set(files)


def test_the_home_folder_may_be_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "data", PLAIN)
    read_right(source(Path("~/data")))


def test_one_file_may_be_packed_and_another_not(tmp_path: Path) -> None:
    write(tmp_path, {f"{IMAGES}.gz": PACKED[f"{IMAGES}.gz"]} | {name: PLAIN[name] for name in FILES[1:]})
    read_right(source(tmp_path))


def test_a_repacked_file_is_known_by_its_content(tmp_path: Path) -> None:
    write(tmp_path, {name: gzip.compress(gzip.decompress(content), 1) for name, content in PACKED.items()})
    read_right(source(tmp_path))


BAD = {
    "truncated": (IMAGES, PLAIN[IMAGES][:-1], "415 bytes"),
    "too long": (IMAGES, PLAIN[IMAGES] + b"!", "expected 416"),
    "empty": (IMAGES, b"", "nothing"),
    "a page": (IMAGES, b"<html>Not found</html>", "no IDX file"),
    "changed": (IMAGES, PLAIN[IMAGES][:-1] + b"!", DIGESTS[IMAGES][:16]),
    "too few": (IMAGES, idx(np.zeros((19, 4, 5), np.uint8)), "19 images, expected 20"),
    "labels": (IMAGES, PLAIN[FILES[1]], "no IDX file of images"),
    "truncated gz": (f"{IMAGES}.gz", PACKED[f"{IMAGES}.gz"][:-9], "truncated"),
    "no gz": (f"{IMAGES}.gz", PLAIN[IMAGES], "no gzip file"),
    "damaged gz": (f"{IMAGES}.gz", PACKED[f"{IMAGES}.gz"][:-8] + b"wrongCRC", "damaged"),
    "a bomb": (f"{IMAGES}.gz", BOMB, "more bytes unpacked than the expected 416"),
    "huge": (IMAGES, struct.pack(">4I", 0x0803, 20, 2**31, 2**31), "2147483648×2147483648 pixels"),
    "without pixels": (IMAGES, struct.pack(">4I", 0x0803, 20, 0, 5), "0×5 pixels"),
    "large": (IMAGES, PLAIN[IMAGES] + bytes(10**6), "more than 83,739 bytes"),
    "wrong gz": (f"{IMAGES}.gz", OTHER[f"{IMAGES}.gz"], "SHA-256"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_not_used_but_named_and_kept(tmp_path: Path, kind: str) -> None:
    file, content, expected = BAD[kind]
    write(tmp_path, {name: PLAIN[name] for name in FILES[1:]} | {file: content})
    with little_memory():
        where = str(tmp_path / "tiny" / file)
        fails(source(tmp_path, refused()), where, expected, "connection refused", "put the right")
    assert (tmp_path / "tiny" / file).read_bytes() == content
    assert left(tmp_path) == {file, *FILES[1:]}


def test_a_label_without_a_class_is_refused(tmp_path: Path) -> None:
    write(tmp_path, PLAIN | {FILES[1]: idx(np.full(20, 3, np.uint8))})
    fails(source(tmp_path, refused(), digests={}), FILES[1], "label 3, expected 0 to 2")


def test_without_mirrors_files_come_from_the_disk_alone(tmp_path: Path) -> None:
    fails(source(tmp_path), "no files in", "there are no mirrors to download from", "put the right files")
    write(tmp_path, PLAIN)
    read_right(source(tmp_path))


@pytest.mark.parametrize("name", ["", ".", "..", "../../x", "/etc/x", "a/b", "a\\b", "a\nb", "a\0b"])
def test_a_name_that_leads_out_of_the_root_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^data\.name=.*: must be the name of a folder directly below") as error:
        IdxFiles(tmp_path, name=name, classes=["a"], mirrors=[], digests={})
    assert "\n" not in str(error.value)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path, {name: PLAIN[name] for name in FILES[1:]})
    os.mkfifo(tmp_path / "tiny" / IMAGES)
    fails(source(tmp_path), f"{IMAGES} is no regular file")


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    write(tmp_path, PLAIN | {FILES[2]: idx(np.zeros((10, 5, 4), np.uint8))})
    with pytest.raises(DataError, match=r"tiny: images of \(4, 5\) and \(5, 4\) pixels"):
        source(tmp_path, digests={}).read()


# As configured.


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_the_configuration_is_complete(name: str, compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAE_DATA", raising=False)
    configured = build(compose(f"data={name}"), "data")
    assert type(configured) is IdxFiles and configured.name == name
    assert configured.root == Path("~/.cache/vae").expanduser()
    assert len(configured.classes) == 10 and all(type(label) is str for label in configured.classes)
    assert len({mirror.split("/")[2] for mirror in configured.mirrors}) >= 2
    assert {key.removesuffix(".gz") for key in configured.digests} == set(FILES)
    assert all(len(digest) == 64 and int(digest, 16) for digest in configured.digests.values())


def test_real_mnist(compose: Compose) -> None:
    root = Path(os.environ.get("VAE_DATA", ""))
    if not (root / "mnist").is_dir():
        pytest.skip("VAE_DATA does not point at a folder with mnist/")
    data = build(compose("data=mnist"), "data", mirrors=[]).read()
    assert (len(data.train), len(data.test), data.shape) == (60_000, 10_000, (1, 28, 28))
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert abs(data.train.images.float().mean().item() / 255 - 0.1307) < 1e-4
