"""Checkpoints that are damaged or hostile, by the hundred: the model that was trained, another one, or one line."""

from __future__ import annotations

import copy
import random
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import vae
from vae.model.checkpoints import read, write_weights
from vae.model.restored import data_of
from vae.training.run import train_run

pytestmark = pytest.mark.slow

SECONDS, KIBIBYTES = 2, 500_000  # of the processor and of memory, for each case

ZOO: list[Any] = [
    *(None, True, -1, 0, 1, 3, 10**6, 2**63 - 1, 2.5, float("nan"), float("inf"), "", "x", "1", "a\nb\x1b[2J", "../x"),
    *("x" * 10**6, "${oc.env:HOME}", "vae.model.priors.Learned", "vae.data.strokes.Strokes", "os.system"),
    *([], [1], [1, 2, 3], [1] * 100_000, [[1]], ["x"], {}, {"x": 1}, {"_target_": "vae.model.priors.Learned"}, (1, 2)),
    *({"_partial_": True}, {"_target_": "os.system", "_args_": ["touch touched"]}, {1: 2}, torch.ones(2), b"bytes"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, compose, image_folder: Path) -> list[Path]:
    """What a run leaves, the last one with the state of the optimiser, and the weights alone."""
    folder = tmp_path_factory.mktemp("run")
    images = ["data=images", f"data.root={image_folder}", "data.channels=1", "data.batch_size=16"]
    small = ["epochs=2", "backbone.hidden=[16,8]", "figures=none", "trainer.accelerator=cpu"]
    train_run(compose(*images, *small, "prior=correlated", "posterior=tied", "likelihood=gaussian"), folder)
    found = sorted((folder / "checkpoints").iterdir())
    try:
        import safetensors  # noqa: F401 (whether it is there)
    except ImportError:
        return found
    write_weights(read(found[0]), folder / "model.safetensors")
    return [*found, folder / "model.safetensors"]


def used(file: Path, folder: Path) -> torch.Tensor | str:
    """Images of the model in a file, or the line by which it is refused."""
    seconds, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images: torch.Tensor | str
    try:
        images = _images(file)
    except (ValueError, RuntimeError) as error:  # a DataError is a RuntimeError
        if type(error).__name__ not in ("ValueError", "DataError"):
            raise
        images = str(error)
        assert images.isprintable() and 10 < len(images) < 1000, images
    assert time.process_time() - seconds < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < KIBIBYTES
    assert not list(folder.iterdir()), f"wrote {list(folder.iterdir())}"
    return images


def _images(file: Path) -> torch.Tensor:
    model = vae.load(file)
    images = torch.cat([model.sample(2), model.reconstruct(torch.zeros(2, *model.shape))])
    assert images.shape == (4, *model.shape) and images.isfinite().all()
    data_of(read(file)["vae"])
    return images


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where one is, in which nothing may be written."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_damaged_bytes(rounds, files: list[Path], elsewhere: Path, tmp_path: Path) -> None:
    for number, rng in enumerate(rounds(share=0.05, least=60)):
        file = rng.choice(files)
        expected = used(file, elsewhere)
        assert isinstance(expected, torch.Tensor), expected
        content, how = bytearray(file.read_bytes()), rng.choice(["flip", "cut", "insert", "zeros", "move"])
        start = rng.choice([rng.randrange(len(content)), rng.randrange(2000), len(content) - rng.randrange(1, 2000)])
        start = max(0, min(start, len(content) - 1))
        end = start + rng.choice([1, 8, 100, 5000])
        if how == "flip":
            content[start] ^= 1 << rng.randrange(8)
        elif how == "cut":
            del content[start : rng.choice([end, len(content)])]
        elif how == "insert":
            content[start:start] = rng.randbytes(end - start)
        elif how == "zeros":
            content[start:end] = bytes(len(content[start:end]))
        else:
            part = content[start:end]
            del content[start:end]
            place = rng.randrange(len(content) + 1)
            content[place:place] = part
        damaged = tmp_path / f"damaged{file.suffix}"
        damaged.write_bytes(content)
        with told(f"case {number}: {how} of bytes {start} to {end} of {file.name}"):
            found = used(damaged, elsewhere)
            assert isinstance(found, str) or torch.equal(found, expected)


def test_damaged_content(rounds, files: list[Path], elsewhere: Path, tmp_path: Path) -> None:
    for number, rng in enumerate(rounds(share=0.1, least=120)):
        file = rng.choice([file for file in files if file.suffix == ".ckpt"])
        content = torch.load(file, weights_only=True)
        how = [rng.choice([change_a_value, change_a_weight])(content, rng) for _ in range(rng.choice([1, 1, 1, 2, 5]))]
        damaged = tmp_path / "damaged.ckpt"
        torch.save(content, damaged)
        with told(f"case {number}: {'; '.join(how)} in {file.name}"):
            used(damaged, elsewhere)


@contextmanager
def told(case: str) -> Iterator[None]:
    """Says of a failure which case it was."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{case}: {type(error).__name__}: {error}"[:2000]) from error


def change_a_value(content: dict[str, Any], rng: random.Random) -> str:
    """Remove a value at any depth, or put another one in its place."""
    places = list(_places(content, set()))
    described = [place for place in places if place[0] == "vae"]  # none where an earlier change took them away
    *path, last = rng.choice(described if described and rng.random() < 0.7 else places)
    node: Any = content
    for name in path:
        node = node[name]
    where = ".".join(map(str, [*path, last]))
    if rng.random() < 0.2:
        del node[last]
        return f"without {where}"
    node[last] = value = copy.deepcopy(rng.choice(ZOO))
    if rng.random() < 0.1:
        for _ in range(rng.choice([3, 30])):
            value = [value] * 10
        node[last] = value
        return f"{where} unfolding"
    return f"{where}={str(value)[:50]!r}"


def _places(node: Any, seen: set[int], path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all values but weights; one way only to what an earlier change put into many places."""
    if id(node) in seen or (path and path[-1] == "state_dict"):
        return
    seen.add(id(node))
    keys = list(node) if isinstance(node, dict) else range(min(len(node), 10)) if isinstance(node, list) else []
    for key in keys:
        yield (*path, key)
        yield from _places(node[key], seen, (*path, key))


def change_a_weight(content: dict[str, Any], rng: random.Random) -> str:
    """Change a tensor's numbers, shape, type, layout or name."""
    weights = content.get("state_dict")
    if not isinstance(weights, dict) or not weights:
        return "no weights"
    name = rng.choice(list(weights))
    weight = weights.pop(name)
    is_plain = isinstance(weight, torch.Tensor) and weight.layout is torch.strided and not weight.is_meta
    if not is_plain or weight.numel() > 10**6:  # it was changed before
        return f"without {name}"
    how = rng.choice([*WEIGHTS, "rename", "without"])
    if how == "rename":
        weights[rng.choice(["", "vae.", f"{name}x", "vae.backbone", *weights])] = weight
    elif how in WEIGHTS:
        weights[name] = WEIGHTS[how](weight.dequantize() if weight.is_quantized else weight)
    return f"{name} {how}"


WEIGHTS = {
    "transposed": lambda weight: weight.mT.contiguous() if weight.ndim > 1 else weight[None],
    "flattened": lambda weight: weight.flatten(),
    "longer": lambda weight: torch.cat([weight, weight]) if weight.ndim else weight[None],
    "empty": lambda weight: weight.new_zeros(0),
    "half": lambda weight: weight.half(),
    "bfloat16": lambda weight: weight.bfloat16(),
    "double": lambda weight: weight.double() * 1e300,
    "complex": lambda weight: weight.to(torch.complex64),
    "int8": lambda weight: weight.to(torch.int8),
    "float8": lambda weight: weight.float().to(torch.float8_e4m3fn),
    "bool": lambda weight: weight.bool(),
    "nan": lambda weight: torch.full_like(weight.float(), float("nan")),
    "infinite": lambda weight: torch.full_like(weight.float(), float("inf")),
    "huge": lambda weight: weight.float() * 1e38,
    "large": lambda weight: weight.float() * 1e6,
    "sparse": lambda weight: weight.to_sparse(),
    "quantised": lambda weight: torch.quantize_per_tensor(weight.float(), 0.1, 0, torch.qint8),
    "meta": lambda weight: weight.to("meta"),
    "strided": lambda weight: weight.new_ones(()).expand(weight.shape),
    "expanded": lambda weight: weight.new_ones(()).expand(10**5, 10**5),
    "parameter": torch.nn.Parameter,
}
