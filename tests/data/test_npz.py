import numpy as np
import pytest

from vae.data.npz import npz_labels, npz_shape, read_npz, write_npz

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 5), dtype=np.uint8)


def test_what_is_written_in_parts_is_what_numpy_reads(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path, IMAGES.shape, (IMAGES[start : start + 3] for start in (0, 3, 6)), {"labels": np.arange(7)})
    with np.load(path) as found:
        assert np.array_equal(found["images"], IMAGES) and found["images"].dtype == np.uint8
        assert np.array_equal(found["labels"], np.arange(7)) and set(found) == {"images", "labels"}


def test_parts_that_fail_leave_no_file(tmp_path):
    def broken():
        yield IMAGES
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        write_npz(tmp_path / "a.npz", IMAGES.shape, broken(), {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("images", [IMAGES, IMAGES / 255, (IMAGES / 255).astype(">f4")])
def test_what_numpy_writes_is_read_in_parts(tmp_path, save, images):
    save(tmp_path / "a.npz", images=images, labels=np.arange(7))
    assert npz_shape(tmp_path / "a.npz") == (7, 4, 5)
    parts = list(read_npz(tmp_path / "a.npz", 3))
    assert [len(part) for part in parts] == [3, 3, 1] and np.array_equal(np.concatenate(parts), images)
    assert np.array_equal(npz_labels(tmp_path / "a.npz"), np.arange(7))


def test_there_need_be_no_labels(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES)
    assert npz_labels(tmp_path / "a.npz") is None


def damaged(path):
    np.savez(path, images=IMAGES)
    content = bytearray(path.read_bytes())
    content[content.index(IMAGES.tobytes()) + 5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_text("text"), "no .npz file, or a damaged one"),
        (lambda path: np.savez(path, a=IMAGES, b=IMAGES), "must have an array called images, but has a, b$"),
        (lambda path: np.savez(path, images=np.asfortranarray(IMAGES)), "must be a plain array in C order"),
        (lambda path: np.savez(path, images=np.array([{}])), "must be a plain array in C order"),
        (lambda path: np.savez(path, images=np.float32(1)), "must be a plain array in C order"),
        (damaged, "no .npz file, or a damaged one .*Bad CRC-32"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, write, message):
    write(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=rf"a\.npz: .*{message}") as error:
        list(read_npz(tmp_path / "a.npz", 3))
    assert "\n" not in str(error.value)
