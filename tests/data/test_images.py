"""Folders of image files, written here in many formats."""

import logging
import os
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vae.data.base import DataError
from vae.data.images import ImageFolder, decode
from vae.model.build import build


def source(root: Path, **others: object) -> ImageFolder:
    arguments = {"size": None, "crop": None, "channels": 3, "test_fraction": 0.25} | others
    return ImageFolder(root, 8, 0.2, **arguments)  # type: ignore[arg-type]


def paint(path: Path, colour: int | tuple[int, ...] = 0, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> None:
    """An image of one colour, of (height, width) `size`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size[::-1], colour).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 images in two classes, each with its number as its grey value."""
    for i in range(40):
        paint(tmp_path / ("cat" if i < 20 else "dog/deeper") / f"{i:02}.png", (i, i, i))
    return tmp_path


def values(images: torch.Tensor) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def test_every_image_is_in_one_part_with_the_class_of_its_folder(folder: Path) -> None:
    data = source(folder).load()
    assert data.name == "images" and data.classes == ("cat", "dog") and data.shape == (3, 6, 4)
    assert data.val is not None
    parts = (data.train, data.val, data.test)
    assert [len(part) for part in parts] == [24, 6, 10]
    assert sorted(value for part in parts for value in values(part.images)) == list(range(40))
    for part in parts:
        assert part.labels.tolist() == [int(value >= 20) for value in values(part.images)]
        assert part.images.dtype == torch.uint8 and part.images.is_contiguous()
        assert 0 < part.labels.float().mean() < 1


def test_the_split_is_always_the_same(folder: Path) -> None:
    first = source(folder).load()
    torch.manual_seed(1)
    again = source(folder).load()
    assert values(first.test.images) == values(again.test.images)
    assert torch.equal(first.train.images, again.train.images)


def test_limit_takes_images_of_all_classes_and_reads_no_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr("vae.data.images.decode", lambda path, *rest: read.append(path) or decode(path, *rest))
    data = source(folder, size=[6, 4], limit=8).read()
    assert (len(data.train), len(data.test), len(read)) == (8, 8, 16)
    assert data.train.labels.unique().tolist() == [0, 1]
    assert values(data.train.images) == values(source(folder).read().train.images)[:8]


def test_without_sub_folders_there_are_no_classes(tmp_path: Path) -> None:
    for i in range(8):
        paint(tmp_path / f"{i}.png", (i, i, i))
    data = source(tmp_path).read()
    assert data.classes == () and not data.train.labels.any() and not data.test.labels.any()


def test_images_beside_sub_folders_are_a_class_of_their_own(folder: Path) -> None:
    paint(folder / "loose.png", (99, 0, 0))
    data = source(folder).read()
    assert data.classes == (".", "cat", "dog")
    labels = [*data.train.labels.tolist(), *data.test.labels.tolist()]
    assert [labels.count(i) for i in range(3)] == [1, 20, 20]


def test_hidden_and_other_files_are_left_out_and_links_are_followed_once(folder: Path, tmp_path_factory) -> None:
    paint(folder / ".hidden.png")
    paint(folder / ".cache" / "thumbnail.png")
    (folder / "notes.txt").write_text("no image")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    paint(elsewhere / "one.PNG", (77, 77, 77))
    (folder / "eel").symlink_to(elsewhere, target_is_directory=True)
    (folder / "dog" / "up").symlink_to(folder, target_is_directory=True)
    data = source(folder).read()
    assert data.classes == ("cat", "dog", "eel")
    assert sorted(values(data.train.images) + values(data.test.images)) == [*range(40), 77]


def test_unreadable_files_are_named_and_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "cat" / "00.png").write_bytes(b"no image")
    whole = (folder / "dog" / "deeper" / "39.png").read_bytes()
    (folder / "dog" / "deeper" / "39.png").write_bytes(whole[: len(whole) // 2])
    data = source(folder).read()
    assert sorted(values(data.train.images) + values(data.test.images)) == list(range(1, 39))
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "2 of 40" in record.message and "cat/00.png, dog/deeper/39.png" in record.message


def test_of_many_unreadable_files_ten_are_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in (folder / "cat").iterdir():
        path.write_bytes(b"")
    assert source(folder).read().classes == ("cat", "dog")
    assert caplog.text.count(".png") == 10 and "and 10 more" in caplog.text


def test_a_folder_without_readable_images_is_an_error(tmp_path: Path) -> None:
    for root, words in ((tmp_path / "none", "there is no folder"), (tmp_path, "no image files in")):
        with pytest.raises(DataError, match=words) as error:
            source(root).read()
        assert str(root) in str(error.value) and "data.root" in str(error.value)
    for i in range(8):
        (tmp_path / f"{i}.jpg").write_bytes(b"no image")
    for size in (None, [4, 4]):
        with pytest.raises(DataError, match="can be read") as error:
            source(tmp_path, size=size).read()
        assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def bomb(path: Path, side: int) -> None:
    """A PNG of black squares of this side, some kilobytes long."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj()
    rows = b"".join(packer.compress(bytes(1 + side // 8)) for _ in range(side)) + packer.flush()
    header = struct.pack(">2I5B", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [10_000, 12_000, 40_000])  # Pillow warns of the second and refuses the third
def test_images_with_too_many_pixels_are_left_out(folder: Path, caplog: pytest.LogCaptureFixture, side: int) -> None:
    warnings.filterwarnings("ignore", module=r"PIL\.")  # as the module does it, which pytest takes back
    bomb(folder / "cat" / "bomb.png", side)
    data = source(folder).read()
    assert sorted(values(data.train.images) + values(data.test.images)) == list(range(40))
    assert "1 of 41" in caplog.text and "cat/bomb.png" in caplog.text


def test_a_damaged_length_takes_no_memory(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", mode="L")
    content = (tmp_path / "a.png").read_bytes()
    assert content[37:41] == b"IDAT"
    (tmp_path / "a.png").write_bytes(content[:33] + struct.pack(">I", 276_000_000) + content[37:])
    tracemalloc.start()
    decode(tmp_path / "a.png", 1, None)  # all pixels are there
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_large_first_image_gives_no_size(folder: Path) -> None:
    bomb(folder / "a.png", 4096)
    with pytest.raises(DataError, match=r"a\.png has 4096×4096 pixels, too many .* set data\.size=\[height,width\]"):
        source(folder).read()
    assert source(folder, size=[6, 4]).read().shape == (3, 6, 4)


def test_pipes_links_in_circles_and_folders_without_rights_are_told(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(folder / "cat" / "pipe.png")
    (folder / "cat" / "self.png").symlink_to("self.png")
    (folder / "dog" / "self").symlink_to("self")
    (folder / "dog" / "cat").symlink_to(folder / "cat")
    (folder / "cat" / "dog").symlink_to(folder / "dog")
    (folder / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if Path(path).name == "locked":  # the tests may run as root, who may read all
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    data = source(folder).read()
    assert set(values(data.train.images) + values(data.test.images)) == set(range(40))
    assert "cat/pipe.png" in caplog.text and "cat/self.png" in caplog.text
    assert f"{folder / 'locked'} cannot be read and is left out: Permission denied" in caplog.text


def test_names_that_cannot_be_printed_are_escaped(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    paint(folder / "a\nb" / "1.png")
    (folder / "cat" / "new\nline\x1b.png").write_bytes(b"no image")
    (folder / "dog" / os.fsdecode(b"\xff.png")).write_bytes(b"no image")
    assert source(folder).read().classes == (r"a\nb", "cat", "dog")
    [record] = caplog.records
    assert r"cat/new\nline\x1b.png, dog/\udcff.png" in record.getMessage() and "\n" not in record.getMessage()


def test_too_few_images_to_split_are_refused(tmp_path: Path) -> None:
    paint(tmp_path / "one.png")
    with pytest.raises(ValueError, match=r"data.test_fraction=0.25: leaves 1 training and 0 test images of 1"):
        source(tmp_path).read()


# One file.


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".tif", ".ppm", ".webp", ".jpg"])
def test_formats_and_channels(tmp_path: Path, suffix: str, channels: int) -> None:
    for i in range(4):
        paint(tmp_path / f"{i}{suffix}", (200, 200, 200), size=(9, 16))
    data = source(tmp_path, channels=channels).read()
    assert data.shape == (channels, 9, 16)
    assert (data.train.images.int() - 200).abs().max() <= 2


def test_colours_keep_their_channels_and_images_their_orientation(tmp_path: Path) -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[0, :, 0] = 255  # a red line at the top
    image[:, 5, 2] = 255  # and a blue one at the right
    Image.fromarray(image).save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", 3, None), image)
    grey = decode(tmp_path / "a.png", 1, None)
    assert grey.shape == (4, 6, 1) and grey[0, 0] == 76 and grey[2, 5] == 29


@pytest.mark.parametrize("size", [(8, 8), (5, 13), (64, 32)])
def test_other_sizes_are_scaled_and_averaged(tmp_path: Path, size: tuple[int, int]) -> None:
    chess = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(chess).save(tmp_path / "chess.png")
    small = decode(tmp_path / "chess.png", 1, size)
    assert small.shape == (*size, 1)
    if size[1] < 32:  # without antialiasing the pixels would be black or white
        assert abs(small[1:-1, 1:-1].astype(float) - 127.5).max() < 16


def test_large_jpegs_are_decoded_at_a_fraction_without_a_visible_difference(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 512).astype(np.uint8)[None].repeat(400, 0)
    Image.fromarray(ramp).save(tmp_path / "ramp.jpg", quality=95)
    small = decode(tmp_path / "ramp.jpg", 1, (16, 16))[:, :, 0].astype(float)
    assert abs(small - np.linspace(0, 255, 512).reshape(16, 32).mean(1)).max() < 5


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    paint(tmp_path / "clear.png", (255, 0, 0, 0), mode="RGBA")
    paint(tmp_path / "half.png", (0, 0, 0, 128), mode="RGBA")
    paint(tmp_path / "grey.png", (0, 0), mode="LA")
    palette = Image.new("P", (4, 6), 0)
    palette.putpalette([255, 0, 0])
    palette.save(tmp_path / "palette.gif", transparency=0)
    assert (decode(tmp_path / "clear.png", 3, None) == 255).all()
    assert (abs(decode(tmp_path / "half.png", 3, None).astype(int) - 127) <= 1).all()
    assert (decode(tmp_path / "grey.png", 1, None) == 255).all()
    assert (decode(tmp_path / "palette.gif", 3, None) == 255).all()


def test_the_camera_s_orientation_is_honoured(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert decode(tmp_path / "turned.jpg", 3, None).shape == (6, 4, 3)


def test_16_bits_are_scaled_to_8(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    for name, image in {
        "a.png": Image.fromarray(deep),
        "b.tif": Image.fromarray(deep),
        "c.tif": Image.fromarray(deep.astype(np.int32)),
        "d.tif": Image.fromarray((deep / 65535).astype(np.float32)),
        "e.tif": Image.fromarray((deep / 257).astype(np.float32)),
    }.items():
        image.save(tmp_path / name)
        assert decode(tmp_path / name, 1, None).ravel().tolist() == [0, 1, 128, 255], name
        assert decode(tmp_path / name, 3, None).shape == (1, 4, 3)


def test_an_unreadable_first_image_does_not_give_the_size(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"no image")
    for i in range(1, 9):
        paint(tmp_path / f"{i}.png", size=(7 + i, 5))
    assert source(tmp_path).read().shape == (3, 8, 5)


def test_the_configuration_is_complete(folder: Path, compose: Callable[..., dict[str, Any]]) -> None:
    overrides = [f"data.root={os.fspath(folder)}", "data.size=[12,10]", "data.channels=1"]
    data = build(compose("data=images", *overrides), "data").load()
    assert data.shape == (1, 12, 10) and len(data.test) == 4
