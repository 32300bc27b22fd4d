import io
import os
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from vae.data import npz
from vae.data.base import DataError
from vae.data.factors import FactorFile
from vae.data.npz import npz_labels, npz_like, read_npz, write_npz
from vae.data.stream import ImageStream

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
    assert npz_like(tmp_path / "a.npz").shape == (7, 4, 5)
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
        (lambda path: np.savez(path, images=np.array([{}])), "must be a plain array of numbers .* of object"),
        (lambda path: np.savez(path, images=np.float32(1)), "must be a plain array in C order"),
        (damaged, "no .npz file, or a damaged one .*Bad CRC-32"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, write, message):
    write(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=rf"a\.npz: .*{message}") as error:
        list(read_npz(tmp_path / "a.npz", 3))
    assert "\n" not in str(error.value)


# Hostile files --------------------------------------------------------------------------------------------------------

N = 8
ROWS = {"images": np.zeros((N, 4, 5), np.uint8), "factors": np.arange(2.0 * N).reshape(N, 2), "labels": np.arange(N)}


def member(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    npy.write_array(content, array)
    return content.getvalue()


def says(descr: object, shape: tuple[object, ...], content: bytes = b"") -> bytes:
    """A member whose header says this of its content."""
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def pack(path: Path, how: int = zipfile.ZIP_DEFLATED, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", how) as file:
        for key, content in ({name: member(array) for name, array in ROWS.items()} | members).items():
            file.writestr(f"{key}.npy", content)


def lie(path: Path, size: int) -> None:
    """Let the archive say that `images` is of this size."""
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")
    content[place + 24 : place + 28] = struct.pack("<I", size)
    path.write_bytes(content)


ZEROS = bytes(2**27)
HOSTILE = {
    "many rows": lambda path: pack(path, images=says("|u1", (10**18, 4, 5), bytes(160))),
    "rows beyond all numbers": lambda path: pack(path, images=says("|u1", (10**40, 4, 5), bytes(160))),
    "negative rows": lambda path: pack(path, images=says("|u1", (-8, -4, 5), bytes(160))),
    "rows that are no numbers": lambda path: pack(path, images=says("|u1", ("a", 4, 5), bytes(160))),
    "huge elements": lambda path: pack(path, images=says("|V1000000000", (8, 4, 5), bytes(160))),
    "elements of none": lambda path: pack(path, images=says("|V0", (8, 4, 5))),
    "a record": lambda path: pack(path, images=says([("a", "|u1")], (8, 4, 5), bytes(160))),
    "a long header": lambda path: pack(path, images=b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + ZEROS),
    "a nested header": lambda path: pack(path, images=says("|u1", (), b"").replace(b"()", b"(" * 5000)),
    "a bomb": lambda path: pack(path, images=says("|u1", (2**20, 8, 16), ZEROS)),
    "a bomb of bzip2": lambda path: pack(path, zipfile.ZIP_BZIP2, images=says("|u1", (2**20, 8, 16), ZEROS)),
    "a bomb that denies it": lambda path: (
        pack(path, images=says("|u1", (8, 4, 5), ZEROS)),
        lie(path, len(says("|u1", (8, 4, 5))) + 160),
    ),
    "more than there is": lambda path: (
        pack(path, images=says("|u1", (2**31 // 20, 4, 5), bytes(160))),
        lie(path, len(says("|u1", (2**31 // 20, 4, 5))) + 2**31 // 20 * 20),
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_are_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.npz"
    HOSTILE[kind](path)
    tracemalloc.start()
    try:
        for read in (
            lambda: [*ImageStream(path, (1, 4, 5))],
            lambda: FactorFile(tmp_path, file=str(path), test_fraction=0.25).read(),
        ):
            start = time.monotonic()
            with pytest.raises((ValueError, DataError), match=r"a\.npz: ") as error:
                read()
            assert "\n" not in str(error.value) and time.monotonic() - start < 2
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("key", ["factors", "labels", "factor_names"])
def test_small_arrays_are_small(tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "WHOLE", 1000)
    pack(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, **{key: member(np.arange(200.0))})
    with pytest.raises(DataError, match=rf"{key} has 1,600 bytes, more than the 1,000 that are read"):
        FactorFile(tmp_path, file="a.npz", test_fraction=0.25).read()


def test_arrays_by_columns_are_read_whole(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("a.npy", member(np.asfortranarray(IMAGES)))
    with npz.archive(tmp_path / "a.npz") as file:
        assert np.array_equal(npz.whole(file, "a"), IMAGES)


def test_strings_of_no_characters_are_refused(tmp_path: Path) -> None:
    pack(tmp_path / "a.npz", labels=says("<U1", (N,), b"\xff" * 4 * N))
    with pytest.raises(ValueError, match=r"a\.npz: labels has characters that do not exist"):
        npz_labels(tmp_path / "a.npz")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"a\.npz: is no regular file"):
        ImageStream(tmp_path / "a.npz", (1, 4, 5))
