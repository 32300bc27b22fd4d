"""The default data: what it reads, and what it says when that is not MNIST."""

import gzip
import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vae.data import download
from vae.data.auto import Auto
from vae.data.base import DataError, Dataset, Split
from vae.data.idx import FILES
from vae.data.strokes import Strokes
from vae.model.build import build


@pytest.fixture
def auto(compose: Callable[..., dict[str, Any]]) -> Callable[..., Auto]:
    """The configured source, without a network."""

    def configured(*overrides: str, data: str = "auto") -> Auto:
        return build(compose(f"data={data}", *overrides), "data", mirrors=["http://mirror.invalid/"])

    return configured


@pytest.fixture
def strokes(monkeypatch: pytest.MonkeyPatch) -> list[Strokes]:
    """The strokes that were read, without drawing any."""
    sources = []

    def read(source: Strokes) -> Dataset:
        sources.append(source)
        part = Split(torch.zeros(30, 1, 28, 28, dtype=torch.uint8), torch.zeros(30, dtype=torch.int64))
        return Dataset("strokes", part, part)

    monkeypatch.setattr(Strokes, "read", read)
    return sources


def test_mnist_is_read_where_it_is(
    auto: Callable[..., Auto],
    tmp_path: Path,
    strokes: list[Strokes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Auto, "counts", {"train": 30, "t10k": 20})
    (tmp_path / "mnist").mkdir()
    for name in FILES:
        shape = (30 if "train" in name else 20, *((28, 28) if "images" in name else ()))
        header = struct.pack(f">I{len(shape)}I", 0x0800 + len(shape), *shape)
        (tmp_path / "mnist" / f"{name}.gz").write_bytes(gzip.compress(header + np.zeros(shape, np.uint8).tobytes()))
    source = auto(f"data.root={tmp_path}")
    source.digests = {}
    data = source.load()
    assert (data.name, data.shape, len(data.train), len(data.test)) == ("mnist", (1, 28, 28), 27, 20)
    assert not strokes and not caplog.records


def test_strokes_are_used_otherwise_and_one_warning_says_why(
    auto: Callable[..., Auto], tmp_path: Path, strokes: list[Strokes], caplog: pytest.LogCaptureFixture
) -> None:
    overrides = ["data.batch_size=7", "data.val_fraction=0.2", "data.binarize=threshold", "data.limit=10"]
    overrides.append("data.flip=true")
    data = auto(f"data.root={tmp_path}", *overrides).load()
    assert (data.name, len(data.train)) == ("strokes", 8)
    [used] = strokes
    assert (used.root, used.batch_size, used.val_fraction, used.binarize, used.limit, used.flip) == (
        tmp_path, 7, 0.2, "threshold", 10, True,
    )  # fmt: skip
    [record] = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "vae.data.auto")
    message = record.getMessage()
    assert "\n" not in message
    for word in ("strokes is used instead", "mirror.invalid: name resolution failed", str(tmp_path / "mnist")):
        assert word in message
    assert not (tmp_path / "mnist").exists()


def test_a_sweep_says_the_reason_once(
    auto: Callable[..., Auto], tmp_path: Path, strokes: list[Strokes], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        auto(f"data.root={tmp_path}").read()
    first, second = (record.getMessage() for record in caplog.records)
    assert "The reason: mnist: no files" in first
    assert second == "MNIST cannot be had, so the built-in data=strokes is used instead, as before"


@pytest.mark.parametrize("mirrors", [[], ["http://[::1"]])
def test_strokes_are_used_where_there_are_no_mirrors(
    compose: Callable[..., dict[str, Any]], tmp_path: Path, strokes: list[Strokes], mirrors: list[str]
) -> None:
    source = build(compose("data=auto", f"data.root={tmp_path}"), "data", mirrors=mirrors)
    assert source.load().name == "strokes" and strokes


def test_a_corrupt_mnist_is_named(
    auto: Callable[..., Auto], tmp_path: Path, strokes: list[Strokes], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / FILES[0]).write_bytes(b"corrupt")
    assert auto(f"data.root={tmp_path}").read().name == "strokes"
    assert str(tmp_path / "mnist" / FILES[0]) in caplog.text


def test_only_missing_data_falls_back(
    auto: Callable[..., Auto], tmp_path: Path, strokes: list[Strokes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "CONNECT", 0.2)
    with pytest.raises(ValueError, match=r"data\.val_fraction"):
        auto(f"data.root={tmp_path}", "data.val_fraction=0.001", "data.limit=5").load()
    with pytest.raises(DataError, match="data=strokes"):
        auto(f"data.root={tmp_path}", data="mnist").load()
    assert len(strokes) == 1
