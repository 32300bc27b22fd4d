"""`python -m vae`, the command `vae-train`, and what `train.py` runs."""

from __future__ import annotations

import sys

from vae import __version__
from vae.common import signals, terminal


def main() -> None:
    """Train what the command line says."""
    if "--version" in sys.argv[1:]:
        print(f"vae {__version__}")  # Hydra would print its own
        return
    signals.listen()  # before all that takes time to import, which would break off halfway
    if not {text for text in sys.argv[1:] if text.startswith("-")} - {"-m", "--multirun"}:  # else Hydra answers
        terminal.meanwhile(f"vae {__version__}: reading the configuration")
    try:
        import hydra  # noqa: F401
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}; install the program first: pip install -c constraints.txt -e .")
    from vae.entry import cli

    cli.main()


if __name__ == "__main__":
    main()
