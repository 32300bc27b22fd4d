"""Pictures: arrays (or tensors on the CPU) in, a `matplotlib.figure.Figure` out; never a model, never a file."""
