"""Imported first by every program here: says in one line that a checkout was never installed."""

import sys

try:
    import vae.entry.programs  # noqa: F401
except ModuleNotFoundError as error:
    sys.exit(f"error: {error}; install the program first: pip install -c constraints.txt -e .")
