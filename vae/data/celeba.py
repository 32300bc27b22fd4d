"""CelebA, the faces of celebrities, with its published split."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vae.data.base import DataError, Dataset, one_line
from vae.data.images import ImageFiles, image_files
from vae.settings.machine import celeba_at

log = logging.getLogger(__name__)

PARTS = {"0": "train", "1": "val", "2": "test"}  # as the list says it
MOST = 2**25  # bytes of the list, which has 3 million
HEAD = ["image_id", "partition"]  # of a list in CSV


@dataclass(eq=False, kw_only=True)
class CelebA(ImageFiles):
    """The aligned images of CelebA (Liu et al., 2015) as people have them: `img_align_celeba`, and beside it the list
    of which are for training, validation and testing. They have no classes.
    """

    name = "celeba"

    val_fraction: float = field(default=0.1, init=False)  # of no use, as there are images for validation

    def read(self) -> Dataset:
        try:
            folder, listed = celeba_at(self.root)
        except ValueError as error:
            raise DataError(f"celeba: {error}") from None
        there = {path.name: path for path in image_files(folder)}
        part_of = _partition(listed)
        paths = [there[name] for name in part_of if name in there]
        if len(paths) < len(part_of):
            missing = f"{len(part_of) - len(paths):,} of the {len(part_of):,} images in {listed}"
            log.warning("%s", one_line(f"{missing} are not in {folder} and are left out"))
        parts = self.in_parts([part_of[path.name] for path in paths], PARTS.values())
        return self.dataset(paths, torch.zeros(len(paths), dtype=torch.int64), parts)


def _partition(path: Path) -> dict[str, str]:
    """The part of each image by its file's name."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST + 1)
    except OSError as error:
        raise DataError(f"celeba: {path} cannot be read ({error.strerror})") from None
    if len(content) > MOST:
        raise DataError(f"celeba: {path} has more than {MOST:,} bytes")
    part_of = {}
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or (number == 1 and words == HEAD):
            continue
        if len(words) != 2 or words[1] not in PARTS:
            raise DataError(f"celeba: {path}, line {number}: must be a file's name and 0, 1 or 2, not {line[:80]!r}")
        part_of[words[0]] = PARTS[words[1]]
    return part_of
