"""Variational autoencoders and their latent spaces: a Hydra-configured experiment runner."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae.entry.interactive import scene, train
    from vae.use.trained import Trained, interpolate, load, score, traverse

# Read by OpenMP when torch is imported. Its threads wait for each other by spinning, in vain where another program has
# the core of the one that is awaited: a step then takes many times as long.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"

__version__ = "0.1.0"
__all__ = ["Trained", "interpolate", "load", "scene", "score", "train", "traverse"]


def __getattr__(name: str) -> Any:
    """Import torch only when the library is used, so that the command line answers at once."""
    if name in __all__:
        return getattr(
            import_module("vae.entry.interactive" if name in ("scene", "train") else "vae.use.trained"), name
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
