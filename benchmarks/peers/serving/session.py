"""The network in onnxruntime, for every peer: one thread, since each worker has one core."""

import os
from collections.abc import Callable

import numpy as np
import onnxruntime


def load() -> Callable[[np.ndarray], np.ndarray]:
    """The forward pass of BENCH_ONNX: float32 rows (n, inputs) in, (n, outputs) out."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(os.environ["BENCH_ONNX"], options, providers=["CPUExecutionProvider"])
    run, outputs = session.run, [session.get_outputs()[0].name]
    return lambda rows: run(outputs, {"rows": rows})[0]
