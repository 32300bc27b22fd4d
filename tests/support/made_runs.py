"""Runs that were never trained, as they would be found in their folders."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from vae.runs.results import (
    Run,
)

DATA = {"_target_": "vae.data.idx.IdxFiles", "root": "a", "name": "mnist", "batch_size": 128, "limit": None}


def run(
    folder: str = "/runs/0",
    total: float | None = 100.0,
    *,
    validation: float | None = None,  # the total of the validation images, which is also that of the others if left out
    noise: float = 0.0,
    state: str = "completed",
    error: str | None = None,
    data: str = "mnist",
    choices: dict[str, str] | None = None,
    groups: dict[str, dict[str, Any]] | None = None,
    **top: Any,
) -> Run:
    config = {"latent_dim": 2, "beta": 1.0, "epochs": 3, "seed": 0} | top
    latent_dim = config["latent_dim"]
    config |= {
        "data": dict(DATA),
        "prior": {"_target_": "vae.model.priors.Isotropic", "latent_dim": latent_dim},
        "likelihood": {"_target_": "vae.model.likelihoods.Bernoulli"},
        "objective": {"_target_": "vae.model.objectives.ELBO", "beta": config["beta"]},
        "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3},
        "figures": {"_target_": "vae.training.callbacks.pictures.Pictures", "grid": "square"},
        "evaluate": {"_target_": "vae.study.evaluate.Evaluation", "samples": 500},
    }
    for group, values in (groups or {}).items():
        config[group] = config[group] | values
    metrics: dict[str, Any] = {}
    if total is not None:
        for part, value in (("val", total if validation is None else validation), ("test", total)):
            metrics |= {f"{part}/total": value, f"{part}/recon": value - 5, f"{part}/kl": 5.0}
        metrics |= {"val/total_error": noise, "seconds/run": 1.5, "data": data}
    names = {"data": "mnist", "prior": "isotropic", "likelihood": "bernoulli", "optimizer": "adam"}
    names["objective"] = "elbo"
    return Run(Path(folder), state, error, config, names | (choices or {}), metrics)


def correlated(folder: str = "/runs/0", total: float = 100.0, covariance: Any = None, **top: Any) -> Run:
    prior = {"_target_": "vae.model.priors.Correlated", "covariance": covariance}
    return run(folder, total, choices={"prior": "correlated"}, groups={"prior": prior}, **top)


def gaussian(sigma: float, folder: str = "/runs/0", total: float = 100.0) -> Run:
    likelihood = {"_target_": "vae.model.likelihoods.Gaussian", "sigma": sigma}
    return run(folder, total, choices={"likelihood": "gaussian"}, groups={"likelihood": likelihood})


def autoencoder(folder: str = "/runs/0", recon: float = 90.0, **top: Any) -> Run:
    objective = {"_target_": "vae.model.objectives.Autoencoder"}
    found = run(folder, choices={"objective": "autoencoder"}, groups={"objective": objective}, **top)
    del found.config["objective"]["beta"]
    metrics = {"val/recon": recon + 1, "test/recon": recon, "seconds/run": 1.5, "data": "mnist"}
    return Run(found.folder, found.state, None, found.config, found.choices, metrics)


def write(folder: Path, content: Run) -> Path:
    folder.mkdir(parents=True)
    names = ("state", "error", "config", "choices")
    (folder / "status.json").write_text(json.dumps({name: getattr(content, name) for name in names}))
    if content.metrics:
        (folder / "metrics.json").write_text(json.dumps(content.metrics))
    return folder


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))
