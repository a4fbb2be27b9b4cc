"""Reading an ONNX file with a limit of what it may make of its bytes.

A message of two bytes becomes an object of a hundred, so a file is scanned before it is parsed: all but the raw data of
tensors has to be small.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from model_store.errors import ModelImportError
from model_store.importing.files import missing_package
from model_store.importing.onnx.values import fail

MAX_STRUCTURE_BYTES = 16 << 20  # of a file without the numbers of its tensors
MAX_NODES = 10_000
MAX_TENSORS = 10_000

# Fields of messages that may be large, by number: a mapping for a message inside, None for the numbers of a tensor.
_Fields = Mapping[int, Any]
_TENSOR: _Fields = {4: None, 9: None, 10: None}  # float_data, raw_data, double_data
_GRAPH: _Fields = {1: {5: {5: _TENSOR}}, 5: _TENSOR}  # node.attribute.t, initializer
_MODEL: _Fields = {7: _GRAPH}  # graph
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def parse_model(path: Path, data: bytes) -> Any:
    """Return the ModelProto of a file. ModelImportError if it is none, too large, or has its tensors in other files."""
    try:
        import onnx  # noqa: PLC0415
    except ImportError as error:
        raise missing_package(path, "onnx", "onnx") from error
    try:
        size = structure_bytes(memoryview(data))
    except (IndexError, ValueError, RecursionError) as error:
        raise ModelImportError(f"{path}: expected an ONNX file, found something else; {error}") from error
    if size > MAX_STRUCTURE_BYTES:
        problem = f"expected at most {MAX_STRUCTURE_BYTES} bytes besides the raw data of tensors"
        raise ModelImportError(f"{path}: {problem}, found {size} or more; save tensors as raw_data")
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError has no public base class
        raise ModelImportError(f"{path}: expected an ONNX file, found something else; {error}") from error
    graph = model.graph
    if any(not isinstance(text, str) for text in _texts(model)):
        raise ModelImportError(f"{path}: expected names in UTF-8, found other bytes")
    if not graph.node or not graph.output:
        raise ModelImportError(f"{path}: expected a graph with nodes and outputs, found none")
    for what, found, limit in (
        ("nodes", len(graph.node), MAX_NODES),
        ("tensors", len(graph.initializer), MAX_TENSORS),
    ):
        if found > limit:
            raise ModelImportError(f"{path}: expected at most {limit} {what}, found {found}")
    del model.functions[:], model.training_info[:]  # nodes that call functions are refused anyway
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise ModelImportError(f"{path}: tensor {name!r}: expected a dense tensor, found a sparse one")
    for tensor in (*graph.initializer, *_tensors_of_nodes(path, graph)):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            fix = 'save one file: onnx.save(onnx.load("model.onnx"), "one.onnx")'
            raise ModelImportError(f"{path}: tensor {tensor.name!r}: expected its data in the file; {fix}")
    return model


def _tensors_of_nodes(path: Path, graph: Any) -> Iterator[Any]:
    """Yield the tensors in attributes of nodes. ModelImportError for graphs and sparse tensors, which have others."""
    for position, node in enumerate(graph.node):
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise fail(str(path), node, position, f"expected no graph in a node, found {attribute.name!r}")
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise fail(str(path), node, position, f"expected dense tensors, found {attribute.name!r}")
            yield attribute.t
            yield from attribute.tensors


def _texts(model: Any) -> Iterator[Any]:
    """Yield the names of a model; protobuf returns bytes for those that are not UTF-8."""
    graph = model.graph
    yield from (model.producer_name, model.producer_version)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for value in (*graph.initializer, *graph.input, *graph.output):
        yield value.name
    for entry in model.metadata_props:
        yield from (entry.key, entry.value)


def structure_bytes(message: memoryview, fields: _Fields = _MODEL) -> int:
    """Return the bytes of a message without the numbers of tensors; stop counting above the limit."""
    total = 0
    for number, value, size in _scan(message):
        inside = fields.get(number, message)
        if isinstance(inside, Mapping) and value is not None:
            total += size - len(value) + structure_bytes(value, inside)
        elif inside is not None:
            total += size
        if total > MAX_STRUCTURE_BYTES:
            break
    return total


def _scan(message: memoryview) -> Iterator[tuple[int, memoryview | None, int]]:
    """Yield the number of each field, its bytes if it has a length, and its size. ValueError for no message."""
    place = 0
    while place < len(message):
        start = place
        tag, place = _varint(message, place)
        kind, value = tag & 7, None
        if kind == _VARINT:
            _, place = _varint(message, place)
        elif kind == _LENGTH:
            length, place = _varint(message, place)
            value = message[place : place + length]
            place += length
        elif kind in {_FIXED32, _FIXED64}:
            place += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"byte {start}: expected a field of a protobuf message")
        if place > len(message):
            raise ValueError(f"byte {start}: expected a field within {len(message)} bytes")
        yield tag >> 3, value, place - start


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError(f"byte {place}: expected a number of 64 bits")
