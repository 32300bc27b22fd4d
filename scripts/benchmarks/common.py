"""What the sections share: configurations, images, medians of repeated timings, and the machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vae.common.tables import Table
from vae.data.base import DataError
from vae.model.build import build
from vae.settings.compose import composed
from vae.settings.config import plain

Seconds = Callable[[], float]  # does something once and says how long it took


class Options(NamedTuple):
    """What the command line says."""

    data: Sequence[str]  # overrides
    folder: Path  # for runs that nobody will look at
    repeats: int
    epochs: int
    images: int

    @property
    def limited(self) -> list[str]:
        """Overrides for the runs that need no more than some of the images."""
        return [*self.data, f"data.limit={self.images}"]


def images(folder: Path) -> list[str]:
    """Overrides for MNIST where it is on disk, else for random images of its size, which are written to `folder`."""
    try:
        build(plain(composed("data=mnist", "data.mirrors=[]")), "data").read()
        return ["data=mnist"]
    except DataError:
        draw, names = np.random.default_rng(0), []
        for part, count in (("train", 60_000), ("t10k", 10_000)):
            for kind, top, shape in (("images", 256, (count, 28, 28)), ("labels", 10, (count,))):
                header = np.array([0x0800 + len(shape), *shape], dtype=">u4").tobytes()
                names.append(f"{part}-{kind}-idx{len(shape)}-ubyte")
                path = folder / "random" / names[-1]
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(header + draw.integers(0, top, shape, dtype=np.uint8).tobytes())
        digests = [f"~data.digests.{name}" for name in names]
        return ["data=mnist", "data.name=random", f"data.root={folder}", *digests]


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(contenders: Mapping[str, Seconds], repeats: int) -> list[dict[str, float]]:
    """Seconds of each contender, A B A B …, so that whatever else the machine does strikes all alike."""
    for contender in contenders.values():
        contender()  # warm-up
    return [{name: contender() for name, contender in contenders.items()} for _ in range(repeats)]


def ratio(rounds: Sequence[Mapping[str, float]], of: str, to: str) -> dict[str, float]:
    """How many times as long `of` takes as `to`: the median of the rounds' ratios, lowest and highest; and seconds."""
    ratios = [each[of] / each[to] for each in rounds]
    seconds = {"seconds": median(rounds, of), "other's": median(rounds, to)}
    return {"ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios), **seconds}


def median(rounds: Iterable[Mapping[str, float]], name: str) -> float:
    """The median over the rounds."""
    return statistics.median(each[name] for each in rounds)


def spread(rounds: Sequence[Mapping[str, float]], name: str) -> dict[str, float]:
    """Median, lowest and highest of the rounds' seconds."""
    seconds = [each[name] for each in rounds]
    return {"seconds": statistics.median(seconds), "lowest": min(seconds), "highest": max(seconds)}


def table(rows: Sequence[Mapping[str, Any]], *notes: str) -> Table:
    """Rows that all have the same columns, and lines below."""
    return Table([], list(rows[0]), rows, notes)


def machine() -> dict[str, Any]:
    """Where and when it was measured."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
    }
