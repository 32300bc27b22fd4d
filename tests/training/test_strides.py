"""What Lightning takes for a batch, and that runs do not depend on how many batches that is."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from trained_runs import assert_same_training, train_until, without_seconds

from vae.data.base import Split
from vae.data.loader import BatchLoader
from vae.training import assembly, module, run
from vae.training.module import VAEModule
from vae.training.strides import Strides

Compose = Callable[..., dict[str, Any]]


def loader(images: int = 23, batch_size: int = 2) -> BatchLoader:
    part = Split(torch.randint(0, 256, (images, 1, 2, 2), dtype=torch.uint8), torch.arange(images))
    return BatchLoader(part, batch_size, shuffle=True, dynamic=True)


@pytest.mark.parametrize(("length", "count"), [(1, 12), (5, 3), (12, 1), (50, 1)])
def test_strides_are_the_batches_of_the_loader(length: int, count: int) -> None:
    torch.manual_seed(0)
    batches = loader()
    strides = list(Strides(batches, length))
    assert len(strides) == len(Strides(batches, length)) == count
    found = [each for stride in strides for each in stride]
    assert [place for place, _ in found] == list(range(12))
    for (_, (images, labels)), (own_images, own_labels) in zip(found, batches, strict=True):
        assert torch.equal(images, own_images) and torch.equal(labels, own_labels)
    assert [len(stride.places) for stride in strides[:-1]] == [length] * (count - 1)


def test_a_batch_is_made_when_it_is_asked_for() -> None:
    strides = Strides(loader(), 5)
    stride = next(iter(strides))
    next(iter(stride))
    assert strides.state_dict()["batch"] == 1


@pytest.mark.parametrize("length", [1, 4, 5, 50])
@pytest.mark.parametrize("place", [1, 4, 5, 11])
def test_the_rest_of_an_epoch_is_served_in_strides_of_any_length(length: int, place: int) -> None:
    batches = loader()
    whole = [labels.tolist() for _, labels in batches]
    strides = Strides(batches, length)
    strides.load_state_dict({"epoch": 0, "batch": place})
    rest = list(strides)
    found = [(where, labels.tolist()) for stride in rest for where, (_, labels) in stride]
    assert found == list(enumerate(whole))[place:]
    assert strides.done == place // length and strides.done + len(rest) == len(strides)
    assert all(len(stride.places) > 0 for stride in rest)


@pytest.fixture
def config(image_run: Compose) -> Compose:
    """A run of 3 epochs with 7 steps each."""
    more = ["trainer.log_every_n_steps=2", "figures=none", "scheduler=cosine", "trainer.gradient_clip_val=20"]
    return partial(image_run, "epochs=3", *more)


def in_strides(patch: pytest.MonkeyPatch, length: int) -> None:
    patch.setattr(assembly, "LENGTH", length)


@pytest.mark.parametrize(
    ("length", "overrides"),
    [(1, []), (7, []), (3, ["trainer.precision=64-true"]), (3, ["optimizer.fused=false"])],
)
def test_a_run_does_not_depend_on_the_length_of_strides(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, overrides: list[str]
) -> None:
    usual = run.train_run(config(*overrides), tmp_path / "usual")
    in_strides(monkeypatch, length)
    other = run.train_run(config(*overrides), tmp_path / "other")
    assert without_seconds(usual) == without_seconds(other)
    assert_same_training(tmp_path / "usual", tmp_path / "other")


@pytest.mark.parametrize("overrides", [[], ["trainer.precision=64-true"], ["prior=vamp", "prior.components=5"]])
def test_steps_through_lightning_are_the_same(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    usual = run.train_run(config(*overrides), tmp_path / "usual")
    monkeypatch.setattr(assembly, "_asks_lightning", lambda trainer: True)
    other = run.train_run(config(*overrides), tmp_path / "other")
    assert without_seconds(usual) == without_seconds(other)
    assert_same_training(tmp_path / "usual", tmp_path / "other")


def test_what_is_only_for_speed_changes_no_number(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = run.train_run(config(), tmp_path / "usual")
    monkeypatch.setattr(module, "install", lambda step, *_: step)
    other = run.train_run(config(), tmp_path / "other")
    assert without_seconds(usual) == without_seconds(other)
    assert_same_training(tmp_path / "usual", tmp_path / "other")


@pytest.mark.parametrize(("before", "after", "step"), [(50, 1, 8), (3, 50, 9), (1, 3, 10), (2, 3, 13), (3, 50, 10)])
def test_a_run_that_is_stopped_within_a_stride_goes_on_in_any(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, after: int, step: int
) -> None:
    whole = run.train_run(config(), tmp_path / "whole")
    in_strides(monkeypatch, before)
    train_until(step, config(), tmp_path / "parts", monkeypatch)
    in_strides(monkeypatch, after)
    assert without_seconds(run.train_run(config(), tmp_path / "parts")) == without_seconds(whole)
    assert_same_training(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("asked", "steps"),
    [("limit_train_batches=3", 9), ("limit_train_batches=0.5", 9), ("fast_dev_run=true", 1), ("profiler=simple", 21)],
)
def test_what_lightning_counts_in_batches_it_goes_on_to_count_in_batches(
    config: Compose, tmp_path: Path, asked: str, steps: int
) -> None:
    seen = []
    original = VAEModule.training_step

    def count(self: VAEModule, *arguments: Any) -> None:
        original(self, *arguments)
        seen.append(self.steps_taken)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VAEModule, "training_step", count)
        run.train_run(config(f"+trainer.{asked}"), tmp_path)
    assert seen == list(range(1, steps + 1))


def test_clipping_by_value_is_lightning_s(config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clipped = []
    monkeypatch.setattr(torch.nn.utils, "clip_grad_value_", lambda weights, clip_value: clipped.append(clip_value))
    run.train_run(config("+trainer.gradient_clip_algorithm=value", "epochs=1"), tmp_path)
    assert clipped == [20.0] * 7


def test_gradients_of_several_batches_are_refused(config: Compose, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^trainer\.accumulate_grad_batches=2: must be 1; set a larger data\.batch"):
        run.train_run(config("+trainer.accumulate_grad_batches=2"), tmp_path)
