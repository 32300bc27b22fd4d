"""Variational autoencoders and their latent spaces: a Hydra-configured experiment runner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae.checkpoints import load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import torch only when the library is used, so that the command line answers at once."""
    if name == "load":
        from vae.checkpoints import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
