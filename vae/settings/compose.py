"""Composing a configuration out of conf/, as the command line does. Imports no torch."""

from __future__ import annotations

import re
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf

# Files in conf/hydra have the names of Hydra's and its plugins' own schemas: Hydra 1.3 then checks them by these.
warnings.filterwarnings("ignore", message=r"\s*'hydra/(launcher|sweeper)/\w+' is validated against ConfigStore schema")

# Of an installed package; else of a checkout.
CONF = next(path / "conf" for path in Path(__file__).parents[1:] if (path / "conf" / "config.yaml").is_file())


def prepare() -> None:
    """Give Hydra the resolvers that the YAMLs name."""
    OmegaConf.register_new_resolver("program", program, replace=True)
    OmegaConf.register_new_resolver("choices", choices, replace=True)
    OmegaConf.register_new_resolver("run_suffix", run_suffix, replace=True)


@contextmanager
def conf() -> Iterator[None]:
    """Let Hydra compose out of conf/ inside the block."""
    prepare()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def composed(*overrides: str, with_hydra: bool = False) -> DictConfig:
    """The configuration of `python train.py OVERRIDES`, not checked yet; with Hydra's own part if asked for."""
    with conf():
        return hydra.compose("config", list(overrides), return_hydra_config=with_hydra)


def program() -> str:
    """The running program as one types it if it trains, else `python -m vae`."""
    typed = Path(sys.argv[0]).name
    return {"train.py": "python train.py", "vae-train": "vae-train"}.get(typed, "python -m vae")


def yamls(group: str) -> list[str]:
    """The names of a group's YAMLs."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def choices(group: str) -> str:
    """The same for the help text, the default first, in lines that fit into 80 columns."""
    names = ", ".join(sorted(yamls(group), key=lambda name: name != _defaults().get(group)))
    return textwrap.fill(names, 64, break_on_hyphens=False).replace("\n", f"\n{15 * ' '}")


@cache
def _defaults() -> dict[str, Any]:
    entries = OmegaConf.load(CONF / "config.yaml").defaults
    return {str(key): value for entry in entries if not isinstance(entry, str) for key, value in entry.items()}


def run_suffix(overrides: str) -> str:
    """`_latent_dim=3,prior=correlated`: what a run is called after its time; short and safe on every file system.

    Numbers have four digits, because a search chooses values with sixteen.
    """
    rounded = re.sub(r"(?<![\w.])\d+\.\d+(e[+-]?\d+)?(?![\w.])", lambda found: _short(found[0]), overrides)
    safe = re.sub(r"[^\w=.,+-]+", "_", rounded).strip("_")
    return f"_{safe[:160]}" if safe else ""


def _short(number: str) -> str:
    """With four digits; as it was typed if it has no more."""
    rounded = f"{float(number):.4g}"
    return number if float(rounded) == float(number) else rounded
