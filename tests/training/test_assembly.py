import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trained_runs import train_until, weights, without_seconds

from vae.model.build import build
from vae.training.assembly import _loaders, assemble
from vae.training.run import train_run


def test_training_images_alone_are_mirrored(image_run: Callable[..., dict[str, Any]]) -> None:
    for asked in (True, False):
        source = build(image_run(f"data.flip={asked}"), "data")
        loaders = _loaders(source, source.load(), seed=0)
        assert {name for name, loader in loaders.items() if loader.flip} == ({"train"} if asked else set())


def test_training_begins_with_the_parents_weights(
    image_run: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ("epochs=2", "figures=none", "backbone.hidden=[9,6]")
    train_run(image_run(*small), tmp_path / "parent")
    parent = weights(tmp_path / "parent", "best")["state_dict"]
    child = image_run(*small, f"parent={tmp_path / 'parent'}", "seed=1")
    source = build(child, "data")
    parts = assemble(child, tmp_path / "child", source, source.load(), 0, 1)
    found = parts.module.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in parent.items())

    narrower = image_run("epochs=2", "figures=none", "backbone.hidden=[5,4]", f"parent={tmp_path / 'parent'}")
    whole = train_run(narrower, tmp_path / "whole")
    train_until(5, narrower, tmp_path / "parts", monkeypatch)
    shutil.rmtree(tmp_path / "parent")  # which nothing asks for once there is a checkpoint
    assert without_seconds(train_run(narrower, tmp_path / "parts")) == without_seconds(whole)


def test_a_parent_that_is_too_narrow_is_refused(image_run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    train_run(image_run("epochs=1", "figures=none", "backbone.hidden=[9,6]"), tmp_path / "parent")
    wider = image_run("epochs=1", "figures=none", "backbone.hidden=[10,6]", f"parent={tmp_path / 'parent'}")
    with pytest.raises(ValueError, match=r"^parent=.*/parent: must be a run with 4 hidden layers, each"):
        train_run(wider, tmp_path / "child")
