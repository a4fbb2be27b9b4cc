"""The target `onnx`: one file with preprocessing, network and decoding, for onnxruntime and other runtimes.

Every column is an input (batch, 1), or (batch, *shape) for an array: float64 numbers with NaN for a missing one, texts
with "" for a missing category, float64 seconds since 1970 in UTC for dates, float32 arrays. A graph cannot raise an
error: a row that the model refuses gets NaN, and the label "" or the least int64.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from model_store.artifact.manifest import PRODUCER
from model_store.export.base import ExportError, ExportSource, golden_rows, parsed_columns
from model_store.nn import LAYERS, Array
from model_store.schema.columns import KINDS, DateColumn
from model_store.schema.signature import MultiLabelOutput, RegressionOutput
from model_store.utils.extras import install_command


class OnnxTarget:
    """See the module. It needs the package onnx, and checks itself with onnxruntime if that is installed."""

    name = "onnx"
    layers: ClassVar[frozenset[str]] = frozenset(LAYERS)
    columns: ClassVar[frozenset[str]] = frozenset(KINDS) - {"text"}  # the CRC-32 of a token is no operator

    def check_engine(self, source: ExportSource) -> None:
        """Raise ExportError if the package onnx is not installed."""
        _package(".runtime")

    def files(self, source: ExportSource) -> dict[str, bytes]:
        """Return the file NAME-VERSION.onnx. ExportError if the package onnx is missing."""
        model = _package(".builder").build(source, _metadata(source), PRODUCER)
        return {f"{source.stem}.onnx": model}

    def answer(self, source: ExportSource, files: Mapping[str, bytes], rows: Sequence[Any]) -> Mapping[str, Array]:
        """Return the predictions of onnxruntime, or of onnx's reference implementation without it."""
        (content,) = files.values()
        run = _package(".runtime").run
        found = run(content, feeds(source, rows))
        output = source.model.signature.output
        if isinstance(output, RegressionOutput):
            return {"values": found["variable"]}
        probabilities = found["probabilities"]
        if isinstance(output, MultiLabelOutput):
            return {"labels": found["label"] == 1, "probabilities": probabilities}
        shown = {label if found["label"].dtype.kind == "i" else str(label): label for label in output.labels}
        labels = np.array([shown.get(label) for label in found["label"].tolist()], object)
        return {"label": labels, "probabilities": probabilities}

    def notes(self, source: ExportSource, files: Mapping[str, bytes]) -> list[str]:
        """Return the inputs and outputs, and what those for dates hold."""
        (content,) = files.values()
        notes: list[str] = _package(".builder").describe(content)
        if any(isinstance(column, DateColumn) for column in source.model.signature.inputs):
            notes.append("Dates are seconds since 1970-01-01 in UTC; times of day are seconds since midnight.")
        return notes


def feeds(source: ExportSource, rows: Sequence[Any]) -> list[Array]:
    """Return valid rows as the graph's inputs, in the order of the columns."""
    columns = _package(".columns")
    found = []
    for column, values in zip(source.model.signature.inputs, parsed_columns(source.model.signature, rows), strict=True):
        if values.dtype == object:
            values = np.array(["" if value is None else value for value in values], object)
        found.append(values.astype(columns.input_type(column)).reshape(len(rows), *columns.input_shape(column)))
    return found


def _metadata(source: ExportSource) -> dict[str, str]:
    """Return where the file comes from, what its rows look like, and rows with their predictions."""
    model = source.model
    golden = None
    if model.golden is not None:
        kept = golden_rows(model)
        golden = {"instances": kept.instances, "predictions": model.signature.decode(kept.outputs)}
    return {
        "name": source.name,
        "version": str(source.version),
        "digest": source.digest,
        "signature": json.dumps(model.signature.config(), ensure_ascii=False),
        "golden": json.dumps(golden, ensure_ascii=False),
    }


def _package(module: str) -> Any:
    """Import a module of this folder that needs onnx. ExportError if it is not installed."""
    try:
        return import_module(module, __package__)
    except ImportError as e:
        raise ExportError(f"the target onnx needs {e.name}; install it with: {install_command('onnx')}") from e


TARGET = OnnxTarget()
