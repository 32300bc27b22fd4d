"""The hand-written loop as a program, `python -m benchmarks.hand FOLDER OVERRIDES …`, counting its steps in a file."""

from __future__ import annotations

import sys
from pathlib import Path

from torch import Tensor

from benchmarks.loops import HandLoop
from vae.model.build import build
from vae.settings.compose import composed
from vae.settings.config import plain

STEPS = "steps"  # a file of one byte for each


class Counting(HandLoop):
    """Adds a byte to a file after each step."""

    def count_in(self, file: Path) -> None:
        self.file = file.open("wb", buffering=0)

    def step(self, x: Tensor) -> None:
        super().step(x)
        self.file.write(b".")


def main(folder: str, *overrides: str) -> None:
    """Train as long as the configuration says."""
    config = plain(composed(*overrides))
    loop = Counting(config, build(config, "data").load())
    loop.count_in(Path(folder) / STEPS)
    for _ in range(config["epochs"]):
        loop.epoch()


if __name__ == "__main__":
    main(*sys.argv[1:])
