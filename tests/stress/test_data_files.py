"""Damaged files of data: the right arrays or one line, soon and in little memory."""

import gzip
import hashlib
import io
import random
import shutil
import struct
import tarfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faces import write_faces
from PIL import Image

from vae.data import strokes
from vae.data.base import DataError
from vae.data.celeba import CelebA
from vae.data.cifar import ARCHIVE, BATCHES, TEST, TRAIN, Cifar10
from vae.data.cifar import FILES as CIFAR
from vae.data.factors import FactorFile
from vae.data.idx import FILES, IdxFiles
from vae.data.images import ImageFolder
from vae.data.stream import ImageStream
from vae.data.strokes import Strokes

pytestmark = pytest.mark.slow

COUNTS = {"train": 20, "t10k": 10}
MEMORY = 2**27  # bytes
PATIENCE = 5.0  # seconds of a processor for a case
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 6, 5), np.uint8)
FACTORS = np.stack([np.arange(24) // 4, np.arange(24) % 4], 1).astype(np.float64)


def damaged(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """What was done to a file's content, and the result."""
    how = rng.choice(["truncate", "flip", "insert", "swap", "zero", "extend", "huge", "repeat", "empty"])
    place = rng.choice([rng.randrange(len(content)), rng.randrange(min(64, len(content)))])
    length = rng.choice([1, 2, 4, 16, 200])
    end = min(place + length, len(content))
    before, inside, after = content[:place], content[place:end], content[end:]
    match how:
        case "truncate":
            new = before
        case "flip":
            new = before + bytes(byte ^ 1 << rng.randrange(8) for byte in inside) + after
        case "insert":
            new = before + rng.randbytes(length) + inside + after
        case "swap":
            new = after + inside + before
        case "zero":
            new = before + bytes(len(inside)) + after
        case "extend":
            new = content + rng.randbytes(length)
        case "huge":  # as most numbers of a header would be then
            new = before + b"\xff" * len(inside) + after
        case "repeat":
            new = before + inside * 50 + after
        case _:
            new = b""
    return f"{how} at {place}, {length} bytes", new


class Idx:
    """MNIST's files, packed or not."""

    suffix = ""

    def write(self, folder: Path) -> None:
        for name in FILES:
            array = self.array(name)
            content = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()
            (folder / "tiny").mkdir(parents=True, exist_ok=True)
            content = gzip.compress(content, mtime=0) if self.suffix else content
            (folder / "tiny" / f"{name}{self.suffix}").write_bytes(content)

    def array(self, name: str) -> np.ndarray:
        count = COUNTS[name.split("-")[0]]
        return PIXELS[:count] if "images" in name else np.arange(count, dtype=np.uint8) % 3

    def read(self, folder: Path) -> None:
        digests = {}
        for name in FILES:
            array = self.array(name)
            content = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()
            digests[name] = hashlib.sha256(content).hexdigest()
        source = IdxFiles(folder, name="tiny", classes="abc", mirrors=[], digests=digests)
        source.counts = COUNTS
        data = source.read()
        for part, name in ((data.train, "train"), (data.test, "t10k")):
            assert np.array_equal(part.images[:, 0].numpy(), self.array(f"{name}-images"))
            assert np.array_equal(part.labels.numpy(), self.array(f"{name}-labels"))


class PackedIdx(Idx):
    suffix = ".gz"


class Batches:
    """CIFAR-10's files, each of two images."""

    def contents(self) -> dict[str, bytes]:
        records = np.random.default_rng(0).integers(0, 3, (len(CIFAR), 2, 3073), np.uint8)
        return {name: each.tobytes() for name, each in zip(CIFAR, records, strict=True)}

    def write(self, folder: Path) -> None:
        (folder / "cifar10").mkdir(parents=True, exist_ok=True)
        for name, content in self.contents().items():
            (folder / "cifar10" / name).write_bytes(content)

    def read(self, folder: Path) -> None:
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in self.contents().items()}
        source = Cifar10(folder, name="cifar10", classes="abc", mirrors=[], digests=digests)
        source.counts = dict.fromkeys(CIFAR, 2)
        data = source.read()
        for part, names in ((data.train, TRAIN), (data.test, [TEST])):
            found = torch.cat([part.labels[:, None].byte(), part.images.flatten(1)], 1)
            assert found.numpy().tobytes() == b"".join(self.contents()[name] for name in names)


class PackedBatches(Batches):
    """The same in their archive, of which no digest is known."""

    def write(self, folder: Path) -> None:
        (folder / "cifar10").mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / "cifar10" / ARCHIVE, "w:gz") as archive:
            for name, content in self.contents().items():
                about = tarfile.TarInfo(f"{BATCHES}/{name}")
                about.size = len(content)
                archive.addfile(about, io.BytesIO(content))


class UnzippedBatches(PackedBatches):
    """The same with the archive itself damaged, and packed well."""

    def write(self, folder: Path) -> None:
        super().write(folder)
        path = folder / "cifar10" / ARCHIVE
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()

    def read(self, folder: Path) -> None:
        path = folder / "cifar10" / ARCHIVE
        path.write_bytes(gzip.compress(path.with_suffix("").read_bytes(), 1))
        super().read(folder)


class Factors:
    """Images with factors. Whether they have names and labels is left open: a name in the archive may be damaged."""

    save = staticmethod(np.savez)

    def write(self, folder: Path) -> None:
        names = np.array(["a", "b"])
        self.save(folder / "f.npz", images=PIXELS, factors=FACTORS, labels=np.arange(24) % 3, factor_names=names)

    def read(self, folder: Path) -> None:
        data = FactorFile(folder, file="f.npz", test_fraction=0.25).read()
        images, factors = (
            torch.cat([getattr(part, key) for part in (data.train, data.test)]) for key in ("images", "factors")
        )
        for image, factor in zip(images.numpy(), factors.numpy(), strict=True):
            assert np.array_equal(image[0], PIXELS[int(4 * factor[0] + factor[1])])
        assert len(images) == 24


class PackedFactors(Factors):
    save = staticmethod(np.savez_compressed)


class Array:
    """Images alone, as programs read them."""

    def write(self, folder: Path) -> None:
        np.savez_compressed(folder / "a.npz", images=PIXELS, labels=np.array(["cat", "dog"] * 12))

    def read(self, folder: Path) -> None:
        found = [chunk.images[:, 0] for chunk in ImageStream(folder / "a.npz", (1, 6, 5))]
        assert np.array_equal(np.concatenate(found), PIXELS)


class Folder:
    """Image files, of which at most the damaged one is left out or another."""

    suffix = ".png"

    def write(self, folder: Path) -> None:
        for i, pixels in enumerate(PIXELS):
            (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / "ab"[i % 2] / f"{i}{self.suffix}")

    def read(self, folder: Path) -> None:
        data = ImageFolder(folder, 8, 0.2, size=[6, 5], crop=None, channels=1, test_fraction=0.25).read()
        assert data.shape == (1, 6, 5) and 23 <= len(data.train) + len(data.test) <= 24
        images = torch.cat([data.train.images, data.test.images])[:, 0].numpy()
        good = self.good()
        assert sum(any(np.array_equal(image, each) for each in good) for image in images) >= 23
        streamed = [name for chunk in ImageStream(folder, (1, 6, 5)) for name in chunk.names]
        assert len(streamed) == len(images)

    def good(self) -> np.ndarray:
        return PIXELS


class Photos(Folder):
    suffix = ".jpg"

    def good(self) -> np.ndarray:
        found = []
        for pixels in PIXELS:
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "jpeg")
            found.append(np.asarray(Image.open(content)))
        return np.stack(found)


class Bitmaps(Folder):
    suffix = ".bmp"


class Scans(Folder):
    suffix = ".tif"


class Animations(Folder):
    suffix = ".gif"


class Parts(Folder):
    """Image files in folders of parts."""

    def write(self, folder: Path) -> None:
        for i, pixels in enumerate(PIXELS):
            place = folder / ("train" if i < 16 else "test") / "ab"[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{i}.png")


class Faces:
    """Image files with a list of their parts, which may come to say something else."""

    def write(self, folder: Path) -> None:
        write_faces(folder, PIXELS, lambda i: i % 3, "png")

    def read(self, folder: Path) -> None:
        data = CelebA(folder, size=[4, 5], crop=[4, 5], channels=1).read()
        assert data.val is not None and data.shape == (1, 4, 5)
        images = torch.cat([part.images for part in (data.train, data.val, data.test)])[:, 0].numpy()
        other = [image for image in images if not any(np.array_equal(image, each[1:5]) for each in PIXELS)]
        assert len(other) <= 1


class Cache:
    """The drawn digits, which are drawn again where they cannot be read."""

    def write(self, folder: Path) -> None:
        Strokes(folder).read()

    def read(self, folder: Path) -> None:
        found, drawn = Strokes(folder).read(), Strokes(folder / "new").read()
        assert torch.equal(found.train.images, drawn.train.images) and torch.equal(
            found.test.factors, drawn.test.factors
        )


KINDS: list[Any] = [
    *(Idx, PackedIdx, Batches, PackedBatches, UnzippedBatches, Factors, PackedFactors, Array),
    *(Folder, Photos, Bitmaps, Scans, Animations, Parts, Faces, Cache),
]


def outcome(read: Callable[[Path], None], folder: Path, what: str) -> None:
    """Read a damaged file, or be refused in one line."""
    try:
        read(folder)
    except (ValueError, DataError) as error:
        assert str(error) and "\n" not in str(error), f"{what}: {error!r}"
    except Exception as error:
        raise AssertionError(f"{what}: {error!r}") from error


def seconds(read: Callable[[Path], None], folder: Path, what: str) -> float:
    """What the outcome takes of a processor, in a copy: some readers make whole what is damaged."""
    copy = shutil.copytree(folder, folder.with_name("copy"))
    start = time.process_time()
    outcome(read, copy, what)
    taken = time.process_time() - start
    shutil.rmtree(copy)
    return taken


def peak(read: Callable[[Path], None], folder: Path, what: str) -> int:
    """The bytes that the outcome takes. To trace them may take a hundred times as long as to read."""
    tracemalloc.start()
    try:
        outcome(read, folder, what)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_damaged_files(
    tmp_path: Path, rounds: Callable[..., Iterator[random.Random]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strokes, "COUNTS", {"train": 20, "test": 10})
    for kind in KINDS:
        (tmp_path / "good" / kind.__name__).mkdir(parents=True)
        kind().write(tmp_path / "good" / kind.__name__)
        kind().read(tmp_path / "good" / kind.__name__)
    for number, rng in enumerate(rounds(share=0.1, least=14 * len(KINDS))):
        kind = KINDS[number % len(KINDS)]
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "good" / kind.__name__, folder)
        file = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"))
        how, content = damaged(file.read_bytes(), rng)
        file.write_bytes(content)
        what = f"case {number}: {kind.__name__}, {file.name}: {how}"
        taken = [seconds(kind().read, folder, what)]
        if taken[0] > PATIENCE:  # a busy machine's clocks jump, but not twice
            taken.append(seconds(kind().read, folder, what))
        assert min(taken) < PATIENCE, what
        memory = peak(kind().read, folder, what)
        assert memory < MEMORY, f"{what}: {memory:,} bytes"
        shutil.rmtree(folder)
