"""Run an ONNX file: with onnxruntime if it is installed, else with the reference implementation of onnx."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx.reference import ReferenceEvaluator

from model_store.nn import Array


def run(content: bytes, feeds: Sequence[Array]) -> dict[str, Array]:
    """Return the outputs by name; feeds: the inputs in their order."""
    try:
        import onnxruntime  # noqa: PLC0415 - not in the extra: 60 MB
    except ImportError:
        return run_reference(content, feeds)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    inputs = {value.name: feed for value, feed in zip(session.get_inputs(), feeds, strict=True)}
    return dict(zip(names, session.run(names, inputs), strict=True))


def run_reference(content: bytes, feeds: Sequence[Array]) -> dict[str, Array]:
    """Return the outputs of onnx's reference implementation by name."""
    evaluator = ReferenceEvaluator(onnx.load_from_string(content))
    inputs = dict(zip(evaluator.input_names, feeds, strict=True))
    return dict(zip(evaluator.output_names, evaluator.run(None, inputs), strict=True))
