"""Any folder of image files as a data set."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from vae.data.base import DataError, Dataset, DataSource, Part, one_line, split_off_test

log = logging.getLogger(__name__)

LARGEST = 50_000_000  # pixels of an image that is decoded, of a JPEG after it was scaled down: in colour 400 MB
LARGE = 2**23  # pixels; images with more are decoded one after the other
MOST = 2**22  # pixels of the first image, where it gives all others their size

warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged and of large files, which are named here

_alone = Lock()


@dataclass(eq=False, kw_only=True)
class ImageFolder(DataSource):
    """All images below `root`, scaled to one size; the folders directly below `root`, if any, are the classes.

    The choice of test images depends on the files' number and names alone.
    """

    size: Sequence[int] | None  # [height, width] in pixels; None is the first image's
    channels: int  # 1 (grey) or 3 (colour)
    test_fraction: float

    def read(self) -> Dataset:
        paths = self._search()
        names = [path.relative_to(self.root) for path in paths]
        # Images beside sub-folders belong to none of them: to the class ".".
        labels = [name.parts[0] if len(name.parts) > 1 else "." for name in names]
        classes = sorted(set(labels)) if set(labels) != {"."} else []
        # In random order: the files are sorted by class, and the first `limit` would be of a few classes.
        indices = split_off_test("images", len(paths), self.test_fraction, self.limit)
        parts = [index.tolist() for index in indices]
        chosen = [paths[i] for part in parts for i in part]
        height, width = self.size or self._first_size(paths)
        images, good = self._decode_all(chosen, (height, width))
        label = torch.tensor([classes.index(labels[i]) if classes else 0 for part in parts for i in part])
        in_train = torch.arange(len(chosen)) < len(parts[0])
        train, test = (Part(images[mask & good], label[mask & good]) for mask in (in_train, ~in_train))
        if not len(train) or not len(test):
            raise DataError(f"images: {len(train)} training and {len(test)} test images in {self.root} can be read")
        return Dataset("images", train, test, classes=tuple(map(one_line, classes)))

    def _search(self) -> list[Path]:
        if not self.root.is_dir():
            raise DataError(f"images: there is no folder {self.root}; set data.root to the folder of the images")
        paths = image_files(self.root)
        if not paths:
            raise DataError(f"images: no image files in {self.root}; set data.root to the folder of the images")
        return paths

    def _first_size(self, paths: Sequence[Path]) -> tuple[int, int]:
        for path in paths:
            try:
                image = decode(path, self.channels, None)
            except Exception:
                continue  # named later, with all others
            height, width = image.shape[:2]
            if height * width > MOST:
                raise DataError(
                    f"images: {path} has {height}×{width} pixels, too many for all images to be scaled to; set "
                    f"data.size=[height,width]"
                )
            return height, width
        raise DataError(f"images: none of the {len(paths)} image files in {self.root} can be read")

    def _decode_all(self, paths: Sequence[Path], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The images (n, channels, height, width) and whether each could be read (n,)."""
        images, good = decode_all(paths, self.channels, size, bar=len(paths) > 500)
        bad = [path.relative_to(self.root).as_posix() for path, ok in zip(paths, good, strict=True) if not ok]
        if bad:
            log.warning("%s", left_out(bad, len(paths), self.root))
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(good)


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
    paths: Sequence[Path], channels: int, size: tuple[int, int], bar: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The images, uint8 (n, height, width, channels), and whether each could be read (n,)."""
    images = np.zeros((len(paths), *size, channels), np.uint8)
    good = np.zeros(len(paths), bool)

    def fill(i: int) -> None:
        try:
            images[i] = decode(paths[i], channels, size)
            good[i] = True
        except Exception as error:  # a decoder may raise anything on a damaged file
            log.debug("%s: %s", paths[i], error)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        done = pool.map(fill, range(len(paths)))
        list(tqdm(done, "reading images", len(paths), disable=None if bar else True))  # None: shown only in a terminal
    return images, good


def left_out(bad: Sequence[str], count: int, root: Path) -> str:
    """Says which image files cannot be read."""
    more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
    named = ", ".join(sorted(bad)[:10]) + more
    return one_line(f"{len(bad)} of {count} image files in {root} cannot be read and are left out: {named}")


def decode(path: Path, channels: int, size: tuple[int, int] | None) -> np.ndarray:
    """One image file as uint8 (height, width, channels), see `to_pixels`."""
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path}: must be a regular file")
    with Image.open(path) as image:
        if size is not None:  # lets JPEG decode at a fraction of the size, but at twice what is needed, either way up
            image.draft(_mode(channels), (2 * max(size), 2 * max(size)))
        pixels = image.width * image.height
        if pixels > LARGEST:
            raise ValueError(f"{path}: must have at most {LARGEST:,} pixels, not {pixels:,}")
        with _alone if pixels > LARGE else nullcontext():
            return to_pixels(image, channels, size)


def to_pixels(image: Image.Image, channels: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """A picture as uint8 (height, width, channels), upright, on white, antialiased where it is made smaller."""
    upright = _to_8_bit(ImageOps.exif_transpose(image))
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    if upright.mode != _mode(channels):
        upright = upright.convert(_mode(channels))
    if size is not None and upright.size != size[::-1]:
        upright = upright.resize(size[::-1], Image.Resampling.LANCZOS)
    return np.asarray(upright).reshape(upright.height, upright.width, channels)


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
