"""The target `onnx`: one graph from raw columns to labels, probabilities or values."""
