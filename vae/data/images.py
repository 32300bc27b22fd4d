"""Any folder of image files as a data set."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from vae.common.files import Bounded
from vae.common.terminal import NO_BAR, Bar, bar_of_long
from vae.data.base import DataError, Dataset, DataSource, Split, at_most, one_line, split_off_test
from vae.data.decoded import Decoded, kept

log = logging.getLogger(__name__)

LARGEST = 50_000_000  # pixels of an image that is decoded, of a JPEG after it was scaled down: in colour 400 MB
LARGE = 2**23  # pixels; images with more are decoded one after the other
MOST = 2**22  # pixels of the first image, where it gives all others their size
PARTS = {"train": "training", "test": "test", "val": "validation"}  # folders, and the words for what is in them

warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged and of large files, which are named here

_alone = Lock()


class TooSmallError(ValueError):
    """An image has fewer pixels than are to be kept of it."""


@dataclass(eq=False, kw_only=True)
class ImageFiles(DataSource):
    """Base of image files that are cropped and scaled to one size; a subclass says which are in which part."""

    name = "images"  # of the data

    size: Sequence[int] | None  # [height, width] in pixels; None is the crop's or, without one, the first image's
    crop: int | Sequence[int] | None  # what is kept of each image's middle before it is scaled: a side, or both
    channels: int  # 1 (grey) or 3 (colour)

    def dataset(
        self, paths: Sequence[Path], labels: Tensor, parts: Mapping[str, Tensor], classes: Sequence[str] = ()
    ) -> Dataset:
        """These files with their labels (n,), each part (train, test and maybe val) given by indices."""
        chosen = [paths[i] for i in torch.cat([*parts.values()]).tolist()]
        images, good = self._decoded(chosen, self._size(paths))
        found, start = {}, 0
        for name, index in parts.items():
            own = slice(start, start + len(index))
            part, right = Split(images[own], labels[index]), good[own]
            found[name] = part if right.all() else part.take(right)
            start += len(index)
        if not all(map(len, found.values())):
            counts = " and ".join(f"{len(part)} {PARTS[name]}" for name, part in found.items())
            raise DataError(f"{self.name}: {counts} images in {self.root} can be read")
        return Dataset(self.name, found["train"], found["test"], found.get("val"), tuple(map(one_line, classes)))

    def in_parts(self, part_of: Sequence[str], parts: Iterable[str]) -> dict[str, Tensor]:
        """The indices of each part's images, at most `limit` of them; `part_of` has the part of every image."""
        found = {}
        for part in parts:
            own = torch.tensor([i for i, each in enumerate(part_of) if each == part], dtype=torch.int64)
            found[part] = own[at_most(self.name, len(own), self.limit)]
        return found

    @property
    def _crop(self) -> tuple[int, int] | None:
        if self.crop is None:
            return None
        height, width = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
        return height, width

    def _size(self, paths: Sequence[Path]) -> tuple[int, int]:
        height, width = self.size or self._crop or self._first_size(paths)
        return height, width

    def _first_size(self, paths: Sequence[Path]) -> tuple[int, int]:
        for path in paths:
            try:
                image = decode(path, self.channels, None)
            except Exception:
                continue  # named later, with all others
            height, width = image.shape[:2]
            if height * width > MOST:
                raise DataError(
                    f"{self.name}: {path} has {height}×{width} pixels, too many for all images to be scaled to; set "
                    f"data.size=[height,width]"
                )
            return height, width
        raise DataError(f"{self.name}: none of the {len(paths)} image files in {self.root} can be read")

    def _decoded(self, paths: Sequence[Path], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The images (n, channels, height, width) and whether each could be read (n,)."""

        def make() -> Decoded:
            with bar_of_long("reading images", len(paths)) as progress:
                return decode_all(paths, self.channels, size, self._crop, progress)

        images, good = kept(self.root, paths, (self.name, self.channels, size, self._crop, self.limit), make)
        bad = [path.relative_to(self.root).as_posix() for path, ok in zip(paths, good, strict=True) if not ok]
        if bad:
            log.warning("%s", left_out(bad, len(paths), self.root))
        return torch.from_numpy(images), torch.from_numpy(good)


@dataclass(eq=False, kw_only=True)
class ImageFolder(ImageFiles):
    """All images below `root`. The folders directly below it, if any, are the classes.

    Where there are folders train and test, these are the parts, each with its classes, and val is for validation.
    Else the choice of test images depends on the files' number and names alone.
    """

    test_fraction: float

    def read(self) -> Dataset:
        paths = self._search()
        is_split = all((self.root / part).is_dir() for part in ("train", "test"))
        if is_split:
            paths = self._within(paths)
        names = [path.relative_to(self.root).parts for path in paths]
        if is_split:
            folders = [name[0] for name in names]
            parts = self.in_parts(folders, [part for part in PARTS if part in folders or part != "val"])
            names = [name[1:] for name in names]
        else:
            # In random order: the files are sorted by class, and the first `limit` would be of a few classes.
            train, test = split_off_test("images", len(paths), self.test_fraction, self.limit)
            parts = {"train": train, "test": test}
        # Images beside sub-folders belong to none of them: to the class ".".
        labels = [name[0] if len(name) > 1 else "." for name in names]
        classes = sorted(set(labels)) if set(labels) != {"."} else []
        number = {label: i for i, label in enumerate(classes)}
        return self.dataset(paths, torch.tensor([number.get(label, 0) for label in labels]), parts, classes)

    def _search(self) -> list[Path]:
        if not self.root.is_dir():
            raise DataError(f"images: there is no folder {self.root}; set data.root to the folder of the images")
        paths = image_files(self.root)
        if not paths:
            raise DataError(f"images: no image files in {self.root}; set data.root to the folder of the images")
        return paths

    def _within(self, paths: Sequence[Path]) -> list[Path]:
        """The images in the parts' folders."""
        inside = [path for path in paths if path.relative_to(self.root).parts[0] in PARTS]
        if len(inside) < len(paths):
            others = f"{len(paths) - len(inside)} of {len(paths)} image files in {self.root}"
            log.warning("%s", one_line(f"{others} lie in none of {', '.join(PARTS)} and are left out"))
        return inside


def image_files(root: Path) -> list[Path]:
    """Every visible file below a folder that looks like an image, in one fixed order."""
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    paths, seen = [], set()
    for folder, subfolders, files in os.walk(root, onerror=_tell, followlinks=True):
        seen.add(Path(folder).resolve())
        subfolders[:] = sorted(  # not through a link back up: that would never end
            name for name in subfolders if name[0] != "." and (Path(folder) / name).resolve() not in seen
        )
        paths += [Path(folder, name) for name in files if name[0] != "." and Path(name).suffix.lower() in suffixes]
    return sorted(paths, key=lambda path: path.relative_to(root).as_posix())


def _tell(error: OSError) -> None:
    """Warn of a folder that cannot be read."""
    log.warning("%s cannot be read and is left out: %s", one_line(error.filename), error.strerror)


def decode_all(
    paths: Sequence[Path],
    channels: int,
    size: tuple[int, int],
    crop: tuple[int, int] | None = None,
    progress: Bar = NO_BAR,
) -> Decoded:
    """The images, uint8 (n, channels, height, width), and whether each could be read (n,)."""
    images = np.zeros((len(paths), channels, *size), np.uint8)
    good = np.zeros(len(paths), bool)

    def fill(i: int) -> None:
        try:
            images[i] = decode(paths[i], channels, size, crop).transpose(2, 0, 1)
            good[i] = True
        except TooSmallError as error:
            raise DataError(f"{error} of {paths[i]}") from None
        except Exception as error:  # a decoder may raise anything on a damaged file
            log.debug("%s: %s", paths[i], error)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(fill, range(len(paths))):
            progress.update()
    return images, good


def left_out(bad: Sequence[str], count: int, root: Path) -> str:
    """Says which image files cannot be read."""
    more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
    named = ", ".join(sorted(bad)[:10]) + more
    return one_line(f"{len(bad)} of {count} image files in {root} cannot be read and are left out: {named}")


def decode(path: Path, channels: int, size: tuple[int, int] | None, crop: tuple[int, int] | None = None) -> np.ndarray:
    """One image file as uint8 (height, width, channels), see `to_pixels`."""
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path}: must be a regular file")
    with Bounded(path) as file, Image.open(file) as image:
        if size and not crop:  # lets JPEG decode at a fraction of the size, but at twice what is needed, either way up
            image.draft(_mode(channels), (2 * max(size), 2 * max(size)))
        pixels = image.width * image.height
        if pixels > LARGEST:
            raise ValueError(f"{path}: must have at most {LARGEST:,} pixels, not {pixels:,}")
        with _alone if pixels > LARGE else nullcontext():
            return to_pixels(image, channels, size, crop)


def to_pixels(
    image: Image.Image, channels: int, size: tuple[int, int] | None = None, crop: tuple[int, int] | None = None
) -> np.ndarray:
    """A picture as uint8 (height, width, channels), upright, on white, antialiased where it is made smaller."""
    upright = _to_8_bit(ImageOps.exif_transpose(image))
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    if upright.mode != _mode(channels):
        upright = upright.convert(_mode(channels))
    if crop is not None:
        upright = _middle(upright, *crop)
    if size is not None and upright.size != size[::-1]:
        upright = upright.resize(size[::-1], Image.Resampling.LANCZOS)
    return np.asarray(upright).reshape(upright.height, upright.width, channels)


def _middle(image: Image.Image, height: int, width: int) -> Image.Image:
    """So many pixels of the middle; where one is over, it is cut off at the bottom or on the right."""
    if height > image.height or width > image.width:
        pixels = f"{image.height}×{image.width} pixels"
        raise TooSmallError(f"data.crop=[{height}, {width}]: must fit into all images, but is more than the {pixels}")
    top, left = (image.height - height) // 2, (image.width - width) // 2
    return image.crop((left, top, left + width, top + height))


def _mode(channels: int) -> str:
    return "L" if channels == 1 else "RGB"


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale grey of 16 bits, and floats of at most 1, to 0…255, where Pillow's own conversion would clip them."""
    if image.mode not in ("F", "I") and not image.mode.startswith("I;16"):
        return image
    grey = np.asarray(image).astype(np.float32)
    if image.mode == "F":
        grey *= 255 if grey.max() <= 1 else 1
    else:
        grey /= 257
    return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
