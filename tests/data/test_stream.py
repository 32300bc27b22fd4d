import numpy as np
import pytest
from PIL import Image

from vae.data import stream
from vae.data.images import decode
from vae.data.stream import ImageStream, numbered


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(stream, "MOST", 7)


def test_a_folder_comes_in_parts_in_the_order_of_its_names(image_folder):
    files = ImageStream(image_folder, (3, 6, 5))
    chunks = list(files)
    names = [name for chunk in chunks for name in chunk.names]
    assert len(files) == 60 and max(len(chunk.names) for chunk in chunks) == 7 and names == sorted(names)
    found = np.concatenate([chunk.images for chunk in chunks])
    expected = np.stack([decode(image_folder / name, 3, (6, 5)).transpose(2, 0, 1) for name in names])
    assert np.array_equal(found, expected)
    labels = np.concatenate([chunk.labels for chunk in chunks])
    assert labels.tolist() == [name[0] for name in names] and files.note == ""


def test_files_that_cannot_be_read_are_left_out_and_told(tmp_path):
    for i in range(9):
        Image.new("L", (5, 5), i).save(tmp_path / f"{i}.png")
    for i in (0, 8):
        (tmp_path / f"{i}.png").write_text("no image")
    files = ImageStream(tmp_path, (1, 5, 5))
    chunks = list(files)
    assert [name for chunk in chunks for name in chunk.names] == [f"{i}.png" for i in range(1, 8)]
    assert [chunk.images[0, 0, 0, 0] for chunk in chunks] == [1, 7] and chunks[0].labels is None
    assert files.note == f"2 of 9 image files in {tmp_path} cannot be read and are left out: 0.png, 8.png"


def test_a_single_file_and_an_array(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    (alone,) = ImageStream(tmp_path / "a.png", (3, 4, 6))
    assert alone.names == ["a.png"] and np.array_equal(alone.images[0], pixels[0].transpose(2, 0, 1))
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(9))
    chunks = list(ImageStream(tmp_path / "a.npz", (3, 4, 6)))
    assert np.array_equal(np.concatenate([chunk.images for chunk in chunks]), pixels.transpose(0, 3, 1, 2))
    assert chunks[1].names == ["00007", "00008"] and chunks[1].labels.tolist() == [7, 8]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((3, 5, 5))}, r"images of shape \(3, 5, 5\): must be"),
        ({"images": np.zeros((0, 4, 6))}, "there are no images"),
        ({"images": np.zeros((3, 4, 6)), "labels": np.zeros(2)}, r"has 3 images, but labels of shape \(2,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=rf"a\.npz: {message}"):
        list(ImageStream(tmp_path / "a.npz", (1, 4, 6)))


def test_where_there_are_no_images_it_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere: there is no such file or folder$"):
        ImageStream(tmp_path / "nowhere", (1, 4, 6))
    with pytest.raises(ValueError, match=r"there are no images$"):
        ImageStream(tmp_path, (1, 4, 6))
    (tmp_path / "a.png").write_text("no image")
    for path in (tmp_path, tmp_path / "a.png"):
        with pytest.raises(ValueError, match=r": no readable image$"):
            list(ImageStream(path, (1, 4, 6)))


def test_numbers_sort_as_names():
    assert numbered(range(3), 3) == ["00000", "00001", "00002"]
    assert numbered([7], 10**7) == ["0000007"]
