"""CIFAR-10's files, small: on disk, in their archive, and from a real server on this machine."""

import functools
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mirrors
import numpy as np
import pytest
from mirrors import Server, little_memory, refused

from vae.data import cifar
from vae.data.base import DataError
from vae.data.cifar import ARCHIVE, BATCHES, FILES, TEST, TRAIN, Cifar10
from vae.data.download import ROUNDS
from vae.model.build import build

write = functools.partial(mirrors.write, data="cifar10")
left = functools.partial(mirrors.left, data="cifar10")

COUNT = 4  # records of a file
SIZE = COUNT * 3073


def records(seed: int) -> bytes:
    content = np.random.default_rng(seed).integers(0, 256, (COUNT, 3073), np.uint8)
    content[:, 0] %= 3
    return content.tobytes()


def archive(files: dict[str, bytes], first: tarfile.TarInfo | None = None) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as packed:
        if first is not None:
            packed.addfile(first, io.BytesIO(bytes(min(first.size, 2**24))) if first.size < 2**30 else None)
        for name, inside in {"readme.html": b"<html>", **files}.items():
            about = tarfile.TarInfo(f"{BATCHES}/{name}")
            about.size = len(inside)
            packed.addfile(about, io.BytesIO(inside))
    return content.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


PLAIN = {name: records(seed) for seed, name in enumerate(FILES)}
PACKED = archive(PLAIN)
DIGESTS = {name: sha256(content) for name, content in {**PLAIN, ARCHIVE: PACKED}.items()}


def source(root: Path, *mirrors: str, digests: dict[str, str] = DIGESTS, **others: Any) -> Cifar10:
    small = Cifar10(root, 8, name="cifar10", classes=["a", "b", "c"], mirrors=mirrors, digests=digests, **others)
    small.counts = dict.fromkeys(FILES, COUNT)
    return small


def fails(small: Cifar10, *words: str) -> None:
    with pytest.raises(DataError) as error:
        small.read()
    message = str(error.value)
    assert "\n" not in message and message.startswith("cifar10: ")
    for word in (*words, str(small.folder), "put the right files", "data=arrays"):
        assert word in message, message


def read_right(small: Cifar10) -> None:
    data = small.read()
    assert (data.name, data.classes, data.shape) == ("cifar10", ("a", "b", "c"), (3, 32, 32))
    for part, files in ((data.train, TRAIN), (data.test, [TEST])):
        content = b"".join(PLAIN[name] for name in files)
        for i in range(COUNT * len(files)):
            record = content[3073 * i : 3073 * (i + 1)]
            assert part.labels[i] == record[0] and part.images[i].numpy().tobytes() == record[1:]


@pytest.mark.parametrize(
    "files",
    [
        PLAIN,
        {f"{BATCHES}/{name}": content for name, content in PLAIN.items()},
        {ARCHIVE: PACKED},
        {TRAIN[2]: PLAIN[TRAIN[2]], f"{BATCHES}/{TEST}": PLAIN[TEST], ARCHIVE: PACKED},
    ],
    ids=["alone", "in their folder", "packed", "all of these"],
)
@pytest.mark.parametrize("digests", [DIGESTS, {}], ids=["verified", "without digests"])
def test_files_on_disk_are_read_and_nothing_is_written(
    tmp_path: Path, files: dict[str, bytes], digests: dict[str, str]
) -> None:
    write(tmp_path, files)
    before = sorted(tmp_path.rglob("*"))
    read_right(source(tmp_path, digests=digests))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_record_is_a_class_and_three_planes_of_rows(tmp_path: Path) -> None:
    write(tmp_path, PLAIN)
    data = source(tmp_path).load()
    assert data.val is not None and (len(data.train), len(data.val), len(data.test)) == (18, 2, 4)
    assert data.test.images.is_contiguous()
    for channel, row, column in ((0, 0, 1), (1, 2, 3), (2, 31, 30)):
        assert (
            data.test.images[2, channel, row, column] == PLAIN[TEST][2 * 3073 + 1 + 1024 * channel + 32 * row + column]
        )


def sized(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    about = tarfile.TarInfo(name)
    about.size, about.type, about.linkname = size, kind, "/etc/hostname" if kind == tarfile.SYMTYPE else ""
    return about


OTHERS = {name: PLAIN[name] for name in FILES[1:]}
UNNAMED = {name: digest for name, digest in DIGESTS.items() if name != ARCHIVE}  # archives of any digest are unpacked
BAD: dict[str, tuple[dict[str, bytes], str]] = {
    "truncated": ({**PLAIN, FILES[0]: PLAIN[FILES[0]][:-1]}, "has 12,291 bytes, expected 12,292"),
    "too long": ({**PLAIN, FILES[0]: PLAIN[FILES[0]] + b"!"}, "has more than 12,292 bytes"),
    "empty": ({**PLAIN, FILES[0]: b""}, "has 0 bytes"),
    "changed": ({**PLAIN, FILES[0]: PLAIN[FILES[1]]}, DIGESTS[FILES[0]][:16]),
    "missing": (OTHERS, "no data_batch_1.bin in"),
    "page": ({ARCHIVE: b"<html>Not found</html>"}, "no .tar.gz file"),
    "empty archive": ({ARCHIVE: archive({})}, "has no data_batch_1.bin, data_batch_2.bin"),
    "truncated archive": ({ARCHIVE: PACKED[:-2000]}, "truncated"),
    "one is missing": ({ARCHIVE: archive(OTHERS)}, "has no data_batch_1.bin in it"),
    "one is short": ({ARCHIVE: archive({**PLAIN, TEST: b"short"})}, "has a test_batch.bin of 5 bytes, expected 12,292"),
    "one is another": (
        {ARCHIVE: archive({**PLAIN, TEST: PLAIN[TRAIN[0]]})},
        "has a test_batch.bin that has the SHA-256",
    ),
    "one is a link": (
        {ARCHIVE: archive(OTHERS, sized(f"{BATCHES}/{FILES[0]}", 0, tarfile.SYMTYPE))},
        "has no data_batch_1.bin in it",
    ),
    "bomb": ({ARCHIVE: archive(PLAIN, sized("bomb", 2**24))}, "has more than 1,122,328 bytes unpacked"),
    "no end": ({ARCHIVE: archive({}, sized("endless", 2**60))}, "has more than 1,122,328 bytes unpacked"),
    "long header": (
        {ARCHIVE: archive(PLAIN, sized("header", 2**24, tarfile.GNUTYPE_LONGNAME))},
        "has more than 1,122,328 bytes unpacked",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_not_used_but_named_and_kept(tmp_path: Path, kind: str) -> None:
    files, expected = BAD[kind]
    write(tmp_path, files)
    with little_memory():
        fails(source(tmp_path, refused(), digests=UNNAMED), expected, "connection refused")
    assert left(tmp_path) == set(files)


def test_an_archive_of_another_digest_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cifar10, "_unpacked", lambda *_: pytest.fail("unpacked"))
    write(tmp_path, {ARCHIVE: PACKED + b"!"})
    fails(source(tmp_path), f"has the SHA-256 {sha256(PACKED + b'!')[:16]}", "there are no mirrors")


def test_a_label_without_a_class_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {**PLAIN, FILES[0]: b"\3" + PLAIN[FILES[0]][1:]})
    fails(source(tmp_path, digests={}), FILES[0], "label 3, expected 0 to 2")


# Downloaded.


def test_the_archive_is_downloaded_once(tmp_path: Path, server: Server) -> None:
    server.files = {ARCHIVE: PACKED}
    read_right(source(tmp_path, server.mirror("404"), server.mirror("good")))
    assert left(tmp_path) == {ARCHIVE} and (tmp_path / "cifar10" / ARCHIVE).read_bytes() == PACKED
    read_right(source(tmp_path, server.mirror("good")))
    assert server.requests == [f"/404/{ARCHIVE}", f"/good/{ARCHIVE}"]


def test_a_bad_file_is_replaced_by_what_the_archive_has(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.files = {ARCHIVE: PACKED}
    write(tmp_path, {**PLAIN, FILES[0]: b"bad"})
    read_right(source(tmp_path, server.mirror("good")))
    assert (tmp_path / "cifar10" / FILES[0]).read_bytes() == b"bad"
    assert f"{tmp_path / 'cifar10' / FILES[0]} has 3 bytes" in caplog.text and FILES[1] not in caplog.text


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [("truncated", "SHA-256"), ("interrupted", "broke off"), ("page", "SHA-256"), ("endless", "more than 1,122,328")],
)
def test_a_bad_answer_leaves_nothing_behind_and_is_explained(
    tmp_path: Path, server: Server, behaviour: str, why: str
) -> None:
    server.files = {ARCHIVE: PACKED}
    with little_memory():
        fails(source(tmp_path, server.mirror(behaviour)), ARCHIVE, "127.0.0.1", why)
    assert left(tmp_path) == set() and server.requests == [f"/{behaviour}/{ARCHIVE}"] * ROUNDS


# As configured.


def test_the_configuration_is_complete(compose: Callable[..., dict[str, Any]]) -> None:
    configured = build(compose("data=cifar10"), "data")
    assert type(configured) is Cifar10 and configured.digests.keys() == {ARCHIVE, *FILES}
    assert all(len(digest) == 64 and int(digest, 16) for digest in configured.digests.values())
    assert len(configured.classes) == 10 and configured.mirrors
    assert configured.most(ARCHIVE) > 184_380_000 == 6 * configured.most(FILES[0])
    assert cifar.RECORD == 3073


def test_real_cifar10(compose: Callable[..., dict[str, Any]]) -> None:
    root = Path(os.environ.get("VAE_DATA", ""))
    if not (root / "cifar10").is_dir():
        pytest.skip("VAE_DATA does not point at a folder with cifar10/")
    data = build(compose("data=cifar10"), "data", mirrors=[]).read()
    assert (len(data.train), len(data.test), data.shape) == (50_000, 10_000, (3, 32, 32))
    assert data.train.labels.bincount().tolist() == [5000] * 10 and data.test.labels.bincount().tolist() == [1000] * 10
