"""The words at the start and at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vae.common.files import in_shell, relative
from vae.data.base import Dataset
from vae.model.codes import Coding
from vae.model.vae import VAE
from vae.runs.losses import ERROR, losses
from vae.settings.config import is_explorable, kind, objective_name
from vae.training.ledger import Ledger

PENALTIES = ("commitment", "codebook")


def header(
    config: Mapping[str, Any],
    data: Dataset,
    model: VAE,
    ledger: Ledger,
    device: torch.device,
    folder: Path,
) -> str:
    """What is about to be trained on what, and where it goes."""
    sizes = (f"{len(part):,} {name}" for name, part in _parts(data))
    parts = (f"{kind(config[group])} {group}" for group in ("backbone", "prior", "posterior", "likelihood"))
    levels = f"{len(model.levels)} levels, " if len(model.levels) > 1 else ""
    levels += f"{model.posterior.said}, " if isinstance(model.posterior, Coding) else ""
    told = f"conditional on {len(data.classes)} classes, " if config["conditional"] else ""
    rows = {
        "data": f"{data.name}: {', '.join(sizes)} images of {'×'.join(map(str, data.shape))}",
        "model": f"{', '.join(parts)}; {told}{levels}latent_dim {config['latent_dim']}, "
        f"{parameter_count(model):,} parameters",
        "training": f"{config['epochs']} epochs of batches of {config['data']['batch_size']}, "
        f"{objective_name(config)}, seed {config['seed']}, on {device_name(device)}",
        "loss": "\n          ".join(filter(None, ledger.lines())),
        "folder": str(relative(folder)),
    }
    return "\n".join(f"{name:<9} {text}" for name, text in rows.items())


def closing(config: Mapping[str, Any], metrics: Mapping[str, Any], folder: Path) -> str:
    """The results in nats per image, where they lie and how to look at them."""
    rows = [f"{name:<15}" + "".join(f"{cell:>10}" for cell in cells) for name, *cells in losses(metrics)]
    rule = "─" * max(map(len, rows))
    folder = relative(folder)
    why = "the last" if config["report"] == "last" else "lowest validation loss"
    averaged = "averaged " if config.get("ema") else ""
    what = [f"±  {ERROR}"]
    if "test/total" not in metrics:
        what = ["recon at the posterior's mean, as it is trained; kl and total do not apply"]
    elif "test/total_error" not in metrics:
        what = []  # z is a function of the image
    notes = [
        *what,
        f"{averaged}weights of epoch {metrics['epoch']} of {metrics['epochs']} ({why}); "
        f"{metrics['seconds/fit']:.1f} s of training",
        *_of_codes(metrics),
        f"run        {folder}",
        *([f"pictures   {folder / 'figures'}/"] if (folder / "figures").is_dir() else []),
        *([f"explore    python scripts/explore.py {in_shell(folder)}"] if is_explorable(config) else []),
        f"look       tensorboard --logdir {in_shell(_logdir(folder))}",
    ]
    wanted = config["data"].get("name", metrics["data"])
    if wanted != metrics["data"]:
        notes.insert(0, f"NOTE: trained on {metrics['data']}, because {wanted} could not be had")
    return "\n".join([rule, rows[0], rule, *rows[1:], rule, *notes])


def _of_codes(metrics: Mapping[str, Any]) -> list[str]:
    if "test/perplexity" not in metrics:
        return []
    bits = f", {metrics['test/code_bits']:.1f} bits an image"
    used, perplexity = metrics["test/codes_used"], metrics["test/perplexity"]
    told = [f"codes      {used:.0%} in use on test images, perplexity {perplexity:.1f}{bits}"]
    penalties = [f"{name} {metrics[f'test/{name}']:.2f}" for name in PENALTIES if f"test/{name}" in metrics]
    if penalties:
        revived = round(metrics["test/codes_revived"])
        told.append(f"           penalties, no nats: {', '.join(penalties)}; {revived:,} vectors revived")
    return told


def parameter_count(model: VAE) -> int:
    """How many numbers the optimiser adjusts."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def device_name(device: torch.device) -> str:
    """The device as its owner would call it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU ({threads} thread{'s' if threads > 1 else ''})" if device.type == "cpu" else str(device)


def _logdir(folder: Path) -> Path:
    """The `outputs` folder above the run, so that TensorBoard shows it beside the others; else the run itself."""
    return next((parent for parent in folder.parents if parent.name == "outputs"), folder)


def _parts(data: Dataset) -> list[tuple[str, Any]]:
    return [("training", data.train), ("validation", data.val), ("test", data.test)]
