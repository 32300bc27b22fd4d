"""Whole runs on a GPU: repeated, resumed, in 16 bits, looked at and measured."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from trained_runs import numbers, train_until

import vae
from vae.model.build import build
from vae.model.noise import Draw
from vae.training.run import train_run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
Compose = Callable[..., dict[str, Any]]


@pytest.fixture
def config(image_run: Compose) -> Compose:
    """Of a run of 6 batches an epoch."""
    return partial(image_run, "epochs=3", "trainer.log_every_n_steps=2", "figures=none", "trainer.accelerator=gpu")


@pytest.mark.parametrize("backbone", ["dense", "conv"])
def test_same_seed_same_numbers(config: Compose, tmp_path: Path, backbone: str) -> None:
    one, other = (train_run(config(f"backbone={backbone}"), tmp_path / name) for name in ("one", "other"))
    assert numbers(one) == numbers(other)
    assert one["device"] == torch.cuda.get_device_name()


@pytest.mark.parametrize("step", [2, 5, 9])
@pytest.mark.parametrize(
    "overrides",
    [
        ["data.binarize=dynamic", "data.flip=true", "scheduler=cosine"],
        ["prior=vamp", "prior.components=5", "posterior=full", "objective.annealing=linear", "objective.warmup=2"],
        ["likelihood=gaussian", "likelihood.sigma=optimal", "conditional=true", "ema=0.9"],
    ],
    ids=lambda words: words[0],
)
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], step: int
) -> None:
    settings = config(*overrides)
    whole = train_run(settings, tmp_path / "whole")
    train_until(step, settings, tmp_path / "parts", monkeypatch)
    assert numbers(train_run(settings, tmp_path / "parts")) == pytest.approx(numbers(whole), rel=1e-5)


def test_a_run_goes_on_without_the_gpu_that_it_began_on(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_until(9, config(), tmp_path, monkeypatch)
    metrics = train_run(config("trainer.accelerator=cpu"), tmp_path)
    assert metrics["device"] != torch.cuda.get_device_name() and metrics["epochs"] == 3


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["backbone=conv", "trainer.gradient_clip_val=5"],
        ["likelihood=gaussian", "likelihood.sigma=learned", "prior=correlated", "posterior=full"],
        ["objective=tc", "beta=4", "prior=learned", "posterior=tied"],
        ["prior=flow", "conditional=true"],
        ["backbone=resnet", "backbone.channels=[8,16]", "backbone.attention=[5]", "ema=0.5"],
        ["backbone=resnet", "backbone.channels=[8,16]", "backbone.below=[[5,2],[10,1]]", "conditional=true"],
        ["posterior=codebook", "backbone=conv", "prior=autoregressive"],
        ["objective=factor", "objective.critic.hidden=[16]"],
        ["objective=vae_gan", "objective.critic.channels=[4,6]", "backbone=conv"],
    ],
    ids=lambda words: words[0] if words else "defaults",
)
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_sixteen_bits_train_nearly_the_same(
    config: Compose, tmp_path: Path, overrides: list[str], precision: str
) -> None:
    whole = train_run(config(*overrides), tmp_path / "32")
    half = train_run(config(*overrides, f"trainer.precision={precision}"), tmp_path / "16")
    assert half["test/recon"] == pytest.approx(whole["test/recon"], rel=0.02)
    assert half["train/recon"] == pytest.approx(whole["train/recon"], rel=0.02)


def test_what_was_trained_on_a_gpu_says_the_same_on_a_cpu(config: Compose, tmp_path: Path) -> None:
    settings = config("objective=autoencoder", "backbone=conv", "conditional=true")
    metrics = train_run(settings, tmp_path)
    test, model = build(settings, "data").load().test, vae.load(tmp_path).vae
    recon = model(test.images / 255, test.labels, Draw(mean=True)).recon
    assert recon.mean().item() == pytest.approx(metrics["test/recon"], rel=1e-5)


def test_pictures_are_drawn_and_measures_taken(config: Compose, tmp_path: Path) -> None:
    few = ["evaluate=full", "evaluate.images=20", "evaluate.samples=20", "evaluate.method=ais"]
    metrics = train_run(config("figures=default", *few, "latent_dim=3", "conditional=true"), tmp_path)
    assert metrics["test/total"] > 0
    assert (tmp_path / "evaluation.json").exists() and list((tmp_path / "figures").glob("*/*.png"))
