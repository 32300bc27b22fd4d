"""What the examples are, where they are trained and where they are shown, and pictures in few bytes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from vae.common.files import replacing
from vae.entry.programs import entries

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "conf" / "examples.yaml"
TRAINED = ROOT / "outputs" / "gallery"
SHOWN = ROOT / "outputs" / "examples"
FILM = ".gif"
PNG_BYTES = 300_000  # at the most; all that is shown stays in the repository's history
WHOLE_BYTES = 100_000  # of a PNG that keeps all its colours, at the most


class Example(NamedTuple):
    """One entry of conf/examples.yaml."""

    name: str
    shows: str
    command: str
    pictures: Sequence[str]
    of: Sequence[str] | None = None  # the examples that a photograph needs; None: no photograph
    weights: bool = False  # whether the trained models are kept

    @property
    def arguments(self) -> list[str]:
        """What follows `python train.py`."""
        return self.command.split()[2:]

    @property
    def is_sweep(self) -> bool:
        return "-m" in self.arguments

    @property
    def trained(self) -> Path:
        return TRAINED / self.name

    @property
    def shown(self) -> Path:
        return SHOWN / self.name

    def kept(self, run: Path) -> Path:
        """Where the weights of a trained run are shown: those of a sweep below its overrides."""
        return self.shown / run.name.partition("_")[2] if self.is_sweep else self.shown

    @property
    def files(self) -> list[str]:
        """The names of its pictures where it is shown."""
        return [path.name for path in self.drawn(self.shown)]

    def drawn(self, folder: Path) -> list[Path]:
        """Its pictures below a folder of figures."""
        return [folder / (picture if "." in picture else f"{picture}.png") for picture in self.pictures]


def named(names: Sequence[str]) -> list[Example]:
    """The examples of these names, or all."""
    found = entries(EXAMPLES, names, "no such example")
    return [Example(name, **entry) for name, entry in found.items()]


def keep(source: Path, target: Path) -> None:
    """Copy a PNG: as it is up to `WHOLE_BYTES`, else of 256 colours, and smaller and smaller down to `PNG_BYTES`.

    A film has few colours already.
    """
    if source.suffix == FILM:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
        return
    with Image.open(source) as image, replacing(target) as temporary:
        for attempt, smaller in enumerate(_ever_smaller(image)):
            smaller.save(temporary, "png", optimize=True)
            if temporary.stat().st_size <= (PNG_BYTES if attempt else WHOLE_BYTES):
                break


def _ever_smaller(image: Image.Image) -> Iterator[Image.Image]:
    yield image
    image = image.convert("RGB") if image.mode == "L" else image
    while True:
        # Not by a median cut, which mixes the rare colours of a mostly white picture.
        yield image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        image = image.resize((image.width * 7 // 8, image.height * 7 // 8), Image.Resampling.LANCZOS)
