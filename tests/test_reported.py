"""What a run reports is of one set of weights, of the lowest loss that was asked for, and numpy gives it again."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vae
from vae.model.build import build
from vae.training import run
from vae.training.callbacks import pictures

Compose = Callable[..., dict[str, Any]]
Arrays = dict[str, np.ndarray]

BETA = 4.0
OBJECTIVES = {
    "elbo": [f"beta={BETA}"],
    "linear": [f"beta={BETA}", "objective.annealing=linear", "objective.warmup=3"],
    "cyclical": [f"beta={BETA}", "objective.annealing=cyclical", "objective.cycles=2"],
    "free_bits": ["objective.free_bits=2"],
    "capacity": ["objective.capacity=5", "objective.annealing=linear", "objective.warmup=3"],
    "iwae": ["objective=iwae"],
    "dreg": ["objective=dreg"],
    "tc": ["objective=tc", f"beta={BETA}"],
    "mmd": ["objective=mmd", "objective.alpha=0.5"],
    "dip": ["objective=dip", f"beta={BETA}"],
    "autoencoder": ["objective=autoencoder"],
}


# A VAE in numpy -------------------------------------------------------------------------------------------------------


def softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def log_mean(x: np.ndarray, axis: int) -> np.ndarray:
    top = x.max(axis, keepdims=True)
    return (top + np.log(np.exp(x - top).mean(axis, keepdims=True))).squeeze(axis)


def log_normal(z: np.ndarray, mean: Any, scale: Any) -> np.ndarray:
    return -0.5 * ((z - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


class Numpy:
    """The default networks with the weights of a checkpoint: two hidden layers each way, q = N(μ, diag σ²)."""

    def __init__(self, file: Path):
        weights = torch.load(file, weights_only=True)["state_dict"]
        self.weights: Arrays = {name.removeprefix("vae."): w.double().numpy() for name, w in weights.items()}

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def encode(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        h = x
        for layer in ("backbone.encoder.1", "backbone.encoder.3"):
            h = np.maximum(self.linear(layer, h), 0)
        return self.linear("levels.0.encoding.mean", h), np.exp(0.5 * self.linear("levels.0.encoding.log_var", h))

    def recon(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        h = z
        for layer in ("backbone.decoder.0", "backbone.decoder.2"):
            h = np.maximum(self.linear(layer, h), 0)
        logits = self.linear("backbone.decoder.4", h)
        return (softplus(logits) - x * logits).sum(-1)


def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squared = ((a[:, None] - b) ** 2).sum(-1)
    widths = [2 * a.shape[1] * scale for scale in (0.1, 0.2, 0.5, 1, 2, 5, 10)]
    return sum(width / (width + squared) for width in widths)


def by_numpy(model: Numpy, x: np.ndarray, name: str, rng: np.random.Generator) -> dict[str, float]:
    """The terms and the loss of one batch of images (batch, pixels), by one draw of what is drawn."""
    mean, scale = model.encode(x)
    n, dim = mean.shape
    if name == "autoencoder":
        recon = model.recon(mean, x).mean()
        return {"recon": recon, "loss": recon}
    k = 5 if name in ("iwae", "dreg") else 1
    z = mean + scale * rng.standard_normal((k, n, dim))
    recons = model.recon(z, x)
    kls = 0.5 * (mean**2 + scale**2 - 1 - 2 * np.log(scale))  # (batch, latent_dim)
    recon, kl = recons.mean(), kls.sum(1).mean()
    log_w = log_normal(z, 0, 1).sum(-1) - log_normal(z, mean, scale).sum(-1) - recons
    own = log_normal(z[0], mean, scale).sum(1)
    each = log_normal(z[0][:, None], mean, scale)  # (draw, posterior, latent_dim)
    joint, product = log_mean(each.sum(-1), 1), log_mean(each, 1).sum(-1)
    p = rng.standard_normal((n, dim))
    same = (kernel(z[0], z[0]).sum() + kernel(p, p).sum() - 2 * 7 * n) / (n * (n - 1)) if n > 1 else 0
    mmd = same - 2 * kernel(z[0], p).mean() if n > 1 else 0
    c = np.cov(mean.T, bias=True) + np.diag((scale**2).mean(0))
    losses = {
        "free_bits": recon + np.maximum(kls.mean(0), 2).sum(),
        "capacity": recon + abs(kl - 5),
        "iwae": -log_mean(log_w, 0).mean(),
        "tc": recon + (own - joint + BETA * (joint - product) + product - log_normal(z[0], 0, 1).sum(1)).mean(),
        "mmd": recon + 0.5 * kl + 199.5 * mmd,
        "dip": recon + BETA * kl + 10 * ((c - np.eye(dim)) ** 2).sum(),
    }
    losses["dreg"] = losses["iwae"]
    return {"recon": recon, "kl": kl, "total": recon + kl, "loss": losses.get(name, recon + BETA * kl)}


def assert_numpy_agrees(file: Path, metrics: dict[str, Any], config: dict[str, Any], name: str, draws: int) -> None:
    """Every reported figure of validation and test is that of the weights in this file, within the noise of z."""
    data, rng, model = build(config, "data").load(), np.random.default_rng(0), Numpy(file)
    for part, images in (("val", data.val.images), ("test", data.test.images)):
        x = images.double().flatten(1).numpy() / 255
        size = 4 * config["data"]["batch_size"]
        batches = [x[start : start + size] for start in range(0, len(x), size)]
        repeated = [[by_numpy(model, batch, name, rng) for batch in batches] for _ in range(draws)]
        weights = [len(batch) / len(x) for batch in batches]
        for term in repeated[0][0]:
            values = [sum(w * each[term] for w, each in zip(weights, one, strict=True)) for one in repeated]
            spread = float(np.std(values, ddof=1)) * (1 + 1 / draws) ** 0.5
            expected = float(np.mean(values))
            assert abs(metrics[f"{part}/{term}"] - expected) <= 7 * spread + 1e-4 * abs(expected), (part, term)


# Runs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(image_run: Compose) -> Compose:
    more = ["backbone.hidden=[16,8]", "epochs=4", "figures.only=[samples]"]
    return partial(image_run, "data.val_fraction=0.3", "data.test_fraction=0.4", *more)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, torch.Tensor]]]:
    """The small print and the weights of every scene that is drawn."""
    scenes = []

    class Watched(pictures.Scene):
        def __init__(self, *arguments: Any, **options: Any):
            super().__init__(*arguments, **options)
            scenes.append((self.note, {name: w.clone() for name, w in self.vae.state_dict().items()}))

    monkeypatch.setattr(pictures, "Scene", Watched)
    return scenes


def assert_one_set_of_weights(folder: Path, metrics: dict[str, Any], drawn: list[Any], file: str) -> None:
    """metrics.json, vae.load, the closing pictures and evaluation.json speak of the same epoch and weights."""
    loaded = vae.load(folder)
    assert loaded.epoch == metrics["epoch"]
    assert json.loads((folder / "evaluation.json").read_text())["epoch"] == metrics["epoch"]
    note, weights = drawn[-1]
    assert note.endswith(f" · epoch {metrics['epoch']}")
    stored = torch.load(folder / "checkpoints" / file, weights_only=True)
    assert stored["epoch"] + 1 == metrics["epoch"]
    for name, weight in loaded.vae.state_dict().items():
        assert torch.equal(weight, weights[name]) and torch.equal(weight, stored["state_dict"][f"vae.{name}"])


EVALUATED = ["evaluate=full", "evaluate.metrics=[reconstruction]"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_reported_weights_are_those_of_the_lowest_loss_that_was_asked_for(
    config: Compose, tmp_path: Path, name: str, drawn: list[Any]
) -> None:
    settings = config(*OBJECTIVES[name], *EVALUATED, "optimizer.lr=0.02")
    metrics = run.train_run(settings, tmp_path)
    history = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["Scalars"]["history"]
    best = min(history, key=lambda row: row["val/loss"])
    assert metrics["epoch"] == metrics["best_epoch"] == best["epoch"]
    assert metrics["val/loss"] == pytest.approx(best["val/loss"], rel=1e-5)
    assert_one_set_of_weights(tmp_path, metrics, drawn, "best.ckpt")
    assert_numpy_agrees(tmp_path / "checkpoints" / "best.ckpt", metrics, settings, name, draws=20)


@pytest.mark.parametrize("name", ["linear", "cyclical"])
def test_epochs_are_compared_at_the_final_weight(config: Compose, tmp_path: Path, name: str) -> None:
    metrics = run.train_run(config(*OBJECTIVES[name]), tmp_path)
    history = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["Scalars"]["history"]
    for row in history:
        assert row["val/loss"] == pytest.approx(row["val/recon"] + BETA * row["val/kl"], rel=1e-5)
    assert history[0]["train/loss"] < history[0]["train/recon"] + 0.9 * BETA * history[0]["train/kl"]  # still annealed
    assert metrics["test/loss"] == pytest.approx(metrics["test/recon"] + BETA * metrics["test/kl"], rel=1e-5)


def test_the_last_weights_are_reported_where_they_are_asked_for(
    config: Compose, tmp_path: Path, drawn: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vae")
    settings = config("report=last", *EVALUATED, "optimizer.lr=0.1", "epochs=8")
    metrics = run.train_run(settings, tmp_path)
    assert metrics["best_epoch"] < metrics["epoch"] == 8  # it overfits
    assert "weights of epoch 8 of 8 (the last)" in caplog.text
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    assert_one_set_of_weights(tmp_path, metrics, drawn, "last.ckpt")
    assert_numpy_agrees(tmp_path / "checkpoints" / "last.ckpt", metrics, settings, "plain", draws=20)


def test_an_autoencoder_is_reported_at_the_mean_alone(
    config: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vae")
    metrics = run.train_run(config("objective=autoencoder"), tmp_path)
    terms = {name.partition("/")[2] for name in metrics if name.startswith(("train/", "val/", "test/"))}
    assert terms == {"recon", "loss"}
    assert "kl and total do not apply" in caplog.text and "validation recon" in caplog.text
    header = next(line for line in caplog.text.splitlines() if "nats per image" in line)
    assert header.split()[-1] == "recon" and "β" not in caplog.text
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    logged = {tag.partition("/")[2] for tag in events.Tags()["scalars"]}
    assert logged - {"lr", "seconds", "active_units"} == {"recon", "loss"}
    again = run.train_run(config("objective=autoencoder", "trainer.precision=64-true"), tmp_path / "double")
    assert again["test/recon"] == pytest.approx(metrics["test/recon"], rel=1e-3)  # nothing is drawn


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_on_mnist_too(compose: Compose, tmp_path: Path, name: str, drawn: list[Any]) -> None:
    if not (Path(os.environ.get("VAE_DATA", "~/.cache/vae")).expanduser() / "mnist").is_dir():
        pytest.skip("there is no MNIST on this machine")
    settings = compose(
        "data=mnist", "data.limit=3000", "epochs=4", "figures.only=[samples]", *OBJECTIVES[name], *EVALUATED
    )
    metrics = run.train_run(settings, tmp_path)
    assert_one_set_of_weights(tmp_path, metrics, drawn, "best.ckpt")
    assert_numpy_agrees(tmp_path / "checkpoints" / "best.ckpt", metrics, settings, name, draws=6)
