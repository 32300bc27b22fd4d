"""Handwritten-looking digits that are drawn, not downloaded, each with the true factors that shaped it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from vae.common.seeding import derive
from vae.data import npz
from vae.data.base import Dataset, DataSource, Split
from vae.data.cache import cached
from vae.settings.covariance import check_covariance

VERSION = 1  # of the drawings: raise it with every change of what is drawn, so that no older cache is read
COUNTS = {"train": 60_000, "test": 10_000}
SIZE = 28  # pixels of an image, both ways
UNIT = 18.4  # pixels: the mean height of a digit, the unit of its skeleton
POINTS = 64  # along a skeleton
BLUR = 0.8  # pixels, about the distance of two neighbouring points, so that their sum is an even line
TREMOR = 0.031  # of the length of the path; the share of a shape that no factor explains
MODES = 6  # cosines along the pen's path that a tremor is made of
CHUNK = 200  # images drawn at once: about what fits into a processor's cache

FACTORS = ("slant", "thickness", "width", "height", "rotation", "wobble")
CORRELATION = (  # in the order of FACTORS: a hand that slants its digits presses harder
    (1.0, 0.5, 0.0, 0.0, 0.0, 0.0),
    (0.5, 1.0, 0.0, 0.0, 0.0, 0.0),
    (0.0, 0.0, 1.0, 0.0, 0.0, 0.0),
    (0.0, 0.0, 0.0, 1.0, 0.0, 0.0),
    (0.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    (0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
)

# The ways to write each digit. A skeleton is its pen strokes, divided by "/"; a stroke is a smooth curve through points
# "x,y", in per cent of the digit's height, x to the right and y down. A stroke that starts where the last one ended
# makes a corner.
SKELETONS = (
    (
        "38,0 18,6 5,26 1,52 7,80 24,98 44,95 60,74 65,46 58,17 38,0",
        "48,8 32,0 14,10 3,34 3,64 14,90 33,100 52,88 63,62 62,32 52,10 34,2 20,10",
    ),
    (
        "0,0 0,50 0,100",
        "0,22 13,14 24,0 / 24,0 24,50 24,100",
        "4,20 17,13 28,0 / 28,0 28,50 28,100 / 4,100 28,99 52,100",
    ),
    (
        "4,24 12,6 32,0 52,8 56,28 44,54 22,80 2,99 / 2,99 30,97 64,98",
        "4,20 18,3 38,1 54,14 52,36 38,62 20,86 6,95 2,86 12,79 28,86 44,97 66,94",
        "2,10 28,1 54,5 57,24 42,50 20,76 0,98 / 0,98 22,90 44,96 68,100",
    ),
    (
        "4,12 20,1 42,2 54,16 48,36 22,47 / 22,47 46,51 60,70 50,92 26,100 2,90",
        "2,4 28,1 52,2 / 52,2 40,22 24,42 / 24,42 48,46 60,66 52,90 28,100 0,90",
        "0,18 16,2 40,1 52,16 44,36 28,46 30,50 50,56 60,76 46,97 20,99 0,84",
    ),
    (
        "14,2 10,30 6,58 / 6,58 32,60 66,58 / 54,0 52,50 50,100",
        "50,0 26,32 0,66 / 0,66 34,66 70,64 / 50,0 50,50 48,100",
        "12,4 6,30 10,52 30,56 54,46 / 58,2 56,50 50,100",
    ),
    (
        "14,2 10,22 6,44 / 6,44 28,36 50,44 60,66 50,90 26,100 0,90 / 14,2 36,3 60,0",
        "60,1 38,3 18,2 / 18,2 12,24 8,46 / 8,46 34,38 54,52 56,78 40,97 18,99 0,88",
        "66,0 44,4 22,6 12,22 14,36 30,44 48,58 50,80 34,98 14,98 0,88",
    ),
    (
        "48,0 26,16 8,44 2,72 12,94 32,100 52,90 58,70 46,54 28,54 10,66 3,80",
        "34,0 16,26 4,58 6,86 26,100 48,94 58,76 50,58 32,56 14,68 6,82",
        "44,0 20,22 4,54 4,84 22,100 46,96 66,78 62,58 44,52 24,66 14,90",
    ),
    (
        "0,4 30,3 62,1 / 62,1 44,34 30,66 22,100",
        "0,16 6,3 / 6,3 36,5 62,2 / 62,2 48,36 38,66 34,100",
        "0,4 30,3 62,1 / 62,1 44,34 30,66 22,100 / 16,52 36,50 56,49",
        "0,12 18,2 40,1 56,8 54,28 40,60 24,100",
    ),
    (
        "52,12 34,0 12,8 8,26 26,42 48,58 56,78 44,96 24,100 6,90 4,72 20,54 42,38 54,22 50,8",
        "32,0 12,8 10,28 30,45 50,58 58,78 46,96 28,100 10,94 4,76 14,58 34,45 52,28 50,8 32,0",
        "64,6 40,0 16,6 10,26 28,44 44,62 44,86 24,100 6,90 6,70 28,50 50,30 66,8",
    ),
    (
        "54,24 44,6 26,1 8,12 4,32 16,48 36,46 50,32 56,12 / 56,12 54,44 52,72 48,100",
        "54,16 36,1 16,4 2,22 8,42 28,48 46,36 54,14 / 54,14 58,40 54,74 38,96 12,96",
        "58,10 38,0 14,10 2,32 12,48 32,42 50,24 58,8 / 58,8 46,38 34,68 24,100",
    ),
)


@dataclass(eq=False)
class Strokes(DataSource):
    """Digits 0–9, as many of each, with factors f ~ N(0, correlation): 60,000 for training and 10,000 for testing.

    `Split.factors` (n, 6) are these f themselves, in units of their standard deviations, with `correlation` as their
    covariance; `_place` and `render` say what they do to a digit. The images depend on `seed` and `correlation` only,
    never on the run's seed, and lie under `root` once they have been drawn.
    """

    seed: int = 0
    correlation: Sequence[Sequence[float]] = CORRELATION

    def __post_init__(self) -> None:
        super().__post_init__()
        check_covariance("data.correlation", self.correlation, len(FACTORS), unit_diagonal=True)

    @property
    def _matrix(self) -> np.ndarray:
        return np.array(self.correlation, dtype=np.float64)

    def read(self) -> Dataset:
        """The cached images, or new ones: one process draws them and the others wait."""
        key = derive("strokes", repr((VERSION, COUNTS, self.seed, self._matrix.tolist())))
        parts = cached(self.root / "strokes" / f"{key:016x}.npz", _load, self._draw, _save)
        return Dataset("strokes", parts["train"], parts["test"], classes=tuple("0123456789"), factor_names=FACTORS)

    def _draw(self) -> dict[str, Split]:
        return {name: draw(n, self._matrix, derive("strokes", name, self.seed)) for name, n in COUNTS.items()}


def draw(count: int, correlation: np.ndarray, seed: int) -> Split:
    """`count` digits in random order, equally many of each class, with factors f = L ε, L Lᵀ = correlation (6, 6)."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(count) % len(SKELETONS)
    noise = generator.standard_normal((count, len(FACTORS)))
    factors = (noise @ np.linalg.cholesky(correlation).T).astype(np.float32)
    return Split(*map(torch.from_numpy, (render(labels, factors, generator), labels, factors)))


def render(labels: np.ndarray, factors: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Images (n, 1, 28, 28) of the digits `labels` (n,), shaped by `factors` (n, 6).

    The generator chooses what the factors leave open: which of a digit's skeletons it is, and the tremor of the hand.
    The pen's radius is 1.25 exp(0.2 thickness) pixels.
    """
    skeletons, lengths, counts = _skeletons()
    n = len(labels)
    which = (counts.cumsum() - counts)[labels] + generator.integers(counts[labels])
    tremor = generator.standard_normal((n, 2, MODES), dtype=np.float32)
    radius = 1.25 * np.exp(0.2 * factors[:, FACTORS.index("thickness")])
    images = np.empty((n, 1, SIZE, SIZE), dtype=np.uint8)
    for start in range(0, n, CHUNK):
        i = slice(start, start + CHUNK)
        length = lengths[which[i]]
        images[i, 0] = _ink(_place(skeletons[which[i]], length, factors[i], tremor[i]), length, radius[i])
    return images


def _place(skeletons: np.ndarray, lengths: np.ndarray, factors: np.ndarray, tremor: np.ndarray) -> np.ndarray:
    """The points (n, 2, POINTS), in pixels, that the pen passes.

    In this order: the tremor Σₖ aₖ cos(πkt) along the path, a wobble that bends the whole digit sideways like a bow,
    width and height, slant (to the right), rotation (clockwise). At last the digit is moved to the image's centre.
    """
    slant, _, width, height, rotation, wobble = factors.T[:, :, None]  # each (n, 1)
    t, k = (np.arange(POINTS, dtype=np.float32) + 0.5) / POINTS, np.arange(1, MODES + 1, dtype=np.float32)[:, None]
    modes = np.cos(np.pi * k * t) / (k + 1)  # (MODES, POINTS): the faster the weaker, hence no kinks
    amplitude = TREMOR * lengths[:, None, None]  # the longer the path the more a hand goes astray
    x, y = np.moveaxis(skeletons + amplitude * tremor @ modes, 1, 0)  # each (n, POINTS)
    y = y / np.ptp(y, axis=1, keepdims=True)  # the height is the factor's alone
    x = x + 0.05 * wobble * np.cos(np.pi * skeletons[:, 1])
    x, y = UNIT * np.exp(0.15 * width) * x, UNIT * np.exp(0.08 * height) * y
    x = x - (0.12 + 0.17 * slant) * y
    cos, sin = np.cos(0.1 * rotation), np.sin(0.1 * rotation)
    points = np.stack([cos * x - sin * y, sin * x + cos * y], axis=1)
    return points + (SIZE - points.min(2, keepdims=True) - points.max(2, keepdims=True)) / 2


def _ink(points: np.ndarray, lengths: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Grey images (n, 28, 28) of round pens of `radius` (n,) along `points` (n, 2, POINTS).

    A Gaussian at each point sums up to c exp(−d²/2s²) at distance d from a line, so that d follows from the sum, and
    the sum is a product of matrices because a Gaussian is one of x times one of y. Grey = radius + ½ − d in [0, 1].
    """
    pixels = np.arange(SIZE, dtype=np.float32)[:, None] + 0.5
    x, y = np.moveaxis(np.exp((pixels - points[:, :, None]) ** 2 / (-2 * BLUR**2)), 1, 0)  # each (n, 28, POINTS)
    c = BLUR * (2 * np.pi) ** 0.5 * POINTS / (UNIT * lengths[:, None, None])
    field = np.maximum(y @ x.swapaxes(1, 2) / c, 1e-30)  # far from all ink it may vanish
    distance = np.sqrt(np.maximum(-2 * BLUR**2 * np.log(field), 0))
    return np.rint(255 * np.clip(radius[:, None, None] + 0.5 - distance, 0, 1)).astype(np.uint8)


@cache
def _skeletons() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All skeletons (k, 2, POINTS), their lengths (k,), and how many belong to each digit (10,)."""
    paths, lengths = zip(*(_trace(skeleton) for ways in SKELETONS for skeleton in ways), strict=True)
    counts = np.array([len(ways) for ways in SKELETONS])
    return np.array(paths, dtype=np.float32), np.array(lengths, dtype=np.float32), counts


def _trace(skeleton: str) -> tuple[np.ndarray, float]:
    """Points (2, POINTS) at equal distances along a skeleton, its box centred at 0, and the length of its strokes."""
    strokes = [np.array([xy.split(",") for xy in stroke.split()], dtype=float) / 100 for stroke in skeleton.split("/")]
    curves = [_smooth(stroke) for stroke in strokes]
    path = np.concatenate(curves)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    steps[np.cumsum([len(curve) for curve in curves])[:-1] - 1] = 0  # the pen is lifted between strokes
    along = np.concatenate([[0], steps.cumsum()])
    at = (np.arange(POINTS) + 0.5) / POINTS * along[-1]
    centred = path - (path.min(0) + path.max(0)) / 2
    return np.stack([np.interp(at, along, axis) for axis in centred.T]), float(along[-1])


def _smooth(points: np.ndarray, steps: int = 40) -> np.ndarray:
    """The Catmull–Rom curve (m, 2) through all `points` (k, 2)."""
    points = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    a, b, c, d = (points[i : len(points) - 3 + i, None] for i in range(4))  # each (k − 1, 1, 2)
    t = np.linspace(0, 1, steps)[:, None]
    curve = b + (c - a) / 2 * t + (a - 2.5 * b + 2 * c - d / 2) * t**2 + (1.5 * (b - c) + (d - a) / 2) * t**3
    return curve.reshape(-1, 2)


def _load(path: Path) -> dict[str, Split]:
    with npz.archive(path) as file:
        return {
            name: Split(*(torch.from_numpy(npz.whole(file, f"{name}_{field}")) for field in Split._fields))
            for name in COUNTS
        }


def _save(path: Path, parts: Mapping[str, Split]) -> None:
    fields = {f"{name}_{field}": value for name, part in parts.items() for field, value in part._asdict().items()}
    np.savez(path, **fields)
