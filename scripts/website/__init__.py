"""The pages of docs/, the gallery and the docstrings as a site, and its parts that move."""
