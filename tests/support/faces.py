"""CelebA as people have it, with images of one's own."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER, LIST = "img_align_celeba", "list_eval_partition.txt"


def write_faces(root: Path, images: Iterable[np.ndarray], part_of: Callable[[int], int], kind: str = "jpeg") -> None:
    """The images 000001.jpg, 000002.jpg, … and the list of their parts; as "png" they lose nothing."""
    (root / "celeba" / FOLDER).mkdir(parents=True)
    lines = []
    for i, pixels in enumerate(images):
        name = f"{i + 1:06}.jpg"
        Image.fromarray(pixels).save(root / "celeba" / FOLDER / name, kind)
        lines.append(f"{name} {part_of(i)}\n")
    (root / "celeba" / LIST).write_text("".join(lines))
