"""Imported first by every program here: a checkout that was never installed is told so in one line."""

import sys

try:
    import vae.entry.programs  # noqa: F401
except ModuleNotFoundError as error:
    sys.exit(f"error: {error}; install the program first: pip install -c constraints.txt -e .")
