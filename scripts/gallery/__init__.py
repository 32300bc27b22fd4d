"""The parts of `scripts/examples.py`."""
