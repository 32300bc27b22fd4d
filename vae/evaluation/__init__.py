"""Numbers about a model: tensors in, tensors or floats out."""
