"""When things happen during training: each callback joins what others compute and writes it to TensorBoard or disk."""
