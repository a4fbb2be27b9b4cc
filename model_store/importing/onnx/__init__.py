"""ONNX: the file, its graph, and what each operator becomes."""
