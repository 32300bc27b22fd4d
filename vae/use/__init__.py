"""A trained model in use: from Python, and in files for other programs."""
