"""Where the shell, Python and the programs in scripts/ come in."""
