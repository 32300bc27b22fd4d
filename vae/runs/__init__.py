"""Folders of runs: their records, results and sweeps. Imports no torch."""
