"""The model and its parts, what they are built from, and the files that keep them."""
