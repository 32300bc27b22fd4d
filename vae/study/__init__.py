"""Where a model meets its pictures and its measures."""
