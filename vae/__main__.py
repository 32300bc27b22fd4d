"""`python -m vae`, the command `vae-train`, and what `train.py` runs."""

from __future__ import annotations

import sys

from vae.common import signals


def main() -> None:
    """Train what the command line says."""
    signals.listen()  # before all that takes time to import, which would break off halfway
    try:
        import hydra  # noqa: F401
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}; install the program first: pip install -c constraints.txt -e .")
    from vae.entry import cli

    cli.main()


if __name__ == "__main__":
    main()
