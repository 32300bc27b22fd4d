"""Data sources, and the loader that serves their images out of memory."""
