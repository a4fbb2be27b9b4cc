"""Codec of the Open Inference Protocol: parse a request into named arrays, serialize output arrays as a response.

Both bodies are JSON. Tensor data is a list in the JSON, or bytes after it in the same order (the binary tensor data
extension); the header JSON_LENGTH_HEADER says where the JSON ends.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from model_store.artifact.asked_answers import KEYS, AskedAnswers, read_asked_answers
from model_store.artifact.model import Model
from model_store.errors import Fault, InputError, did_you_mean
from model_store.nn import Array
from model_store.schema.columns import FaultCollector
from model_store.schema.signature import RegressionOutput, Signature
from model_store.utils.values import describe_value, list_names
from service.http.exceptions import error_at
from service.http.model_version import MODEL_VERSION_HEADER
from service.http.request_body import check_text_count, parse_json
from service.http.responses import ListInBlocks, join_pieces, json_pieces
from service.protocols import tensors
from service.protocols.row_blocks import BLOCK_VALUES, row_blocks
from service.protocols.tensors import DATATYPES, TensorSpec
from service.registry.loaded_version import LoadedVersion
from service.validation.predict_request import not_an_object_error
from service.validation.row_limits import check_row_count

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
_TENSOR = '{"name", "shape", "datatype", "data"}'
_HEAD_VALUES = 8  # name, datatype and shape of an output are about as much JSON as so many values
_TENSOR_FIX = f"send {_TENSOR}"


_NOTHING_ASKED = AskedAnswers()


@dataclass(frozen=True)
class InferRequest:
    """A parsed inference request."""

    arrays: Mapping[str, Array]
    outputs: Sequence[tuple[TensorSpec, bool]] = ()  # and whether to send each as bytes
    id: str | None = None
    is_binary: bool = False  # whether to send outputs as bytes that are not requested one by one
    asked: AskedAnswers = _NOTHING_ASKED


def split_body(body: bytes, json_length: str | None, max_bytes: int) -> tuple[dict[str, Any] | None, memoryview]:
    """Split a body into its JSON document and the bytes of tensors after it.

    `json_length` is the JSON_LENGTH_HEADER. The document is None if the header is 0: the body is raw bytes. Raises
    ApiError if the header or the JSON is malformed, InputError if the JSON is not an object.
    """
    length = len(body) if json_length is None else _json_length(json_length, len(body))
    tail = memoryview(body)[length:]
    if json_length is not None and length == 0:
        return None, tail
    document = parse_json(body[:length], max_bytes)
    if not isinstance(document, dict):
        raise not_an_object_error(document)
    return document, tail


def parse_request(
    document: dict[str, Any] | None, tail: memoryview, served: LoadedVersion, max_bytes: int
) -> InferRequest:
    """Parse what `split_body` returned. Raises InputError with all errors, RowLimitError, or ApiError."""
    declared = tensors.output_specs(served.model)
    if document is None:
        return InferRequest(_parse_raw_row(tail, served), [(tensor, True) for tensor in declared], is_binary=True)
    faults = FaultCollector()
    signature = served.model.signature
    check_text_count(_count_texts(document.get("inputs"), signature, served.max_rows), max_bytes)
    given, used = _parse_inputs(document.get("inputs"), tail, signature, served.max_rows, faults)
    if not faults.total and used != len(tail):
        fix = "set parameters.binary_data_size of each binary input to its number of bytes"
        faults.add("body", f"expected {used} bytes after the JSON, found {len(tail)}", fix)
    served.row_limit.check_tensors("inputs", given)
    is_binary = _bool_parameter(document, "parameters", "binary_data_output", False, faults)
    expected = _requested_outputs(document, declared, is_binary, faults)
    identity = document.get("id")
    if not isinstance(identity, str | None):
        faults.add("id", f"expected a string, found {describe_value(identity)}", "put it in quotes, or leave it out")
    asked = _NOTHING_ASKED
    if levels := {key: value for key, value in _parameters(document, "parameters", faults).items() if key in KEYS}:
        try:
            asked = read_asked_answers(levels, served.model, "parameters.")
        except InputError as error:
            for fault in error.faults:
                faults.add(fault.location, fault.problem, fault.fix)
    faults.raise_if_any()
    return InferRequest(given, expected, identity, is_binary, asked)


def serialize_response(
    served: LoadedVersion,
    request: InferRequest,
    raw: Array,
    warnings: Sequence[Fault],
    coding: str | None,
    more: Sequence[tuple[TensorSpec, Array]] = (),
) -> tuple[list[bytes], dict[str, str]]:
    """Return the body in pieces, and the headers, for the network's outputs `raw`.

    `coding` compresses the body: "gzip" or "x-gzip", "deflate" or None. Parameters are strings, numbers or booleans in
    this protocol, so `warnings` are the lines of one string. `more` are outputs after the requested ones.
    """
    tail: list[bytes] = []
    more = [*more, *range_tensors(served.model, request.asked, raw)]
    signature = request.asked.signature(served.model)
    outputs = ListInBlocks(partial(_output_blocks, signature, raw, request, more, tail))
    head: dict[str, Any] = {"model_name": served.name, "model_version": str(served.number)}
    if request.id is not None:
        head["id"] = request.id
    if warnings:
        head["parameters"] = {"warnings": "\n".join(f"{each.location}: {each.problem}" for each in warnings)}
    document = json_pieces(head | {"outputs": outputs}, end=b"")
    body = [*document, *join_pieces(tail)] if tail else document
    headers = {
        "Content-Type": "application/octet-stream" if tail else "application/json",
        MODEL_VERSION_HEADER: str(served.number),
        "Vary": "Accept-Encoding",
    }
    if tail:
        headers[JSON_LENGTH_HEADER] = str(sum(map(len, document)))
    if coding is not None:
        deflater = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS + (0 if coding == "deflate" else 16))
        body = [*map(deflater.compress, body), deflater.flush()]
        headers["Content-Encoding"] = coding
    return body, headers


def range_specs(model: Model) -> list[TensorSpec]:
    """Return the tensors that a request with `interval` or `set` adds to a model's outputs.

    `interval.<target>` has lower and upper ends; `set` is in the order of the tensor of probabilities.
    """
    output = model.signature.output
    if model.conformal is None:
        return []
    if isinstance(output, RegressionOutput):
        return [TensorSpec(f"interval.{name}", "FP64", (-1, 2)) for name in output.names]
    return [TensorSpec("set", "BOOL", (-1, len(output.labels)), tuple(map(str, output.labels)))]


def range_tensors(model: Model, asked: AskedAnswers, raw: Array) -> list[tuple[TensorSpec, Array]]:
    """Return the tensors of intervals or of a set of labels, if one is asked for."""
    if asked.range_key is None:
        return []
    if asked.interval is not None:
        arrays = list(asked.intervals(model, raw).swapaxes(0, 1))
    else:
        arrays = [asked.sets(model, raw)]
    return list(zip(range_specs(model), arrays, strict=True))


def _output_blocks(
    signature: Signature,
    raw: Array,
    request: InferRequest,
    more: Sequence[tuple[TensorSpec, Array]],
    tail: list[bytes],
) -> Iterator[list[Any] | dict[str, Any]]:
    """Yield the outputs for JSON, small ones together: one by one, 60,000 of them took 1 s. Bytes go to `tail`."""
    waiting: list[dict[str, Any]] = []
    values = 0
    arrays = tensors.output_arrays(signature, raw, [tensor for tensor, _ in request.outputs])
    requested = zip(request.outputs, arrays, strict=True)
    others = (((tensor, request.is_binary), array) for tensor, array in more)
    for (tensor, binary), array in chain(requested, others):
        output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": array.shape}
        if waiting and values + array.size > BLOCK_VALUES:
            yield waiting
            waiting, values = [], 0
        if not binary and array.size > BLOCK_VALUES:
            yield output | {"data": row_blocks({"data": array}, lambda arrays: tensors.to_json(arrays["data"]))}
            continue
        if binary:
            tail.append(tensors.to_bytes(array))
            output["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            output["data"] = tensors.to_json(array)
        waiting.append(output)
        values += array.size + _HEAD_VALUES
    if waiting:
        yield waiting


def _json_length(text: str, available: int) -> int:
    length = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
    if not 0 <= length <= available:
        problem = f"expected a number of bytes, 0 to {available}; found {describe_value(text)}"
        raise error_at(400, "broken_body", JSON_LENGTH_HEADER, problem, "send the length of the JSON in bytes")
    return length


def _parse_raw_row(body: memoryview, served: LoadedVersion) -> dict[str, Array]:
    """Parse a body of raw bytes: one row of a model that takes a single tensor."""
    tensor = tensors.single_input_spec(served.model.signature)
    faults = FaultCollector()
    array = None
    if tensor is None:
        names = list_names(served.model.signature.names)
        fix = f"send JSON before the bytes, and its length in {JSON_LENGTH_HEADER}"
        faults.add("body", f"expected the tensors {names}, found only bytes", fix)
    else:
        array = tensors.from_bytes(tensor.datatype, (1, *tensor.shape[1:]), body, tensor.name, faults)
    faults.raise_if_any()
    return {tensor.name: array} if tensor is not None and array is not None else {}


def _count_texts(given: Any, signature: Signature, max_rows: int) -> int:
    """Return how many Python strings the tensors become: those of BYTES, and of integers for columns of text.

    Malformed tensors and those with too many rows do not count: none of their values is read.
    """
    if not isinstance(given, list):
        return 0
    datatypes = {column.name: column.tensor_datatype for column in signature.inputs}
    count = 0
    for item in given:
        if not isinstance(item, dict) or not isinstance(name := item.get("name"), str):
            continue
        shape, is_text = item.get("shape"), "BYTES" in (item.get("datatype"), datatypes.get(name))
        if is_text and tensors.is_valid_shape(shape) and (values := math.prod(shape)) <= max_rows:
            count += values
    return count


def _parse_inputs(
    given: Any, tail: memoryview, signature: Signature, max_rows: int, faults: FaultCollector
) -> tuple[dict[str, Array], int]:
    """Return the arrays by name, and how many bytes of the tail they use."""
    found: dict[str, Array] = {}
    used, columns = 0, len(signature.inputs)
    takes_files = {column.name for column in signature.inputs if column.takes_files}
    if not isinstance(given, list) or not given:
        problem = f"expected a list of tensors, found {describe_value(given)}"
        faults.add("inputs", problem, f'send {{"inputs": [{_TENSOR}, ...]}}')
        return found, used
    if len(given) > columns + InputError.MAX_FAULTS:  # the error list is limited
        faults.add("inputs", f"expected up to {columns} tensors, found {len(given)}", "send one for each column")
        return found, used
    for i, item in enumerate(given):
        location = f"inputs.{i}"
        if not isinstance(item, dict) or not isinstance(name := item.get("name"), str):
            faults.add(location, f"expected a tensor with a name, found {describe_value(item)}", _TENSOR_FIX)
            continue
        if name in found:
            faults.add(location, f"expected each tensor once, found {name!r} again", "remove one of them")
        datatype, shape = item.get("datatype"), item.get("shape")
        if not isinstance(datatype, str) or datatype not in DATATYPES:
            problem = f"expected one of {', '.join(DATATYPES)}; found {describe_value(datatype)}"
            faults.add(f"{location}.datatype", problem, partial(_fix_datatype, datatype))
            continue
        if not tensors.is_valid_shape(shape):
            problem = f"expected a list of whole numbers above 0, found {describe_value(shape)}"
            faults.add(f"{location}.shape", problem, "the first dimension is the number of rows")
            continue
        check_row_count(location, shape[0], max_rows)
        if datatype == "BYTES" and (count := math.prod(shape)) > max_rows:  # each string is a Python object
            problem = f"expected 1 to {max_rows} strings, found a shape of {count}"
            faults.add(f"{location}.shape", problem, "send the rows in several requests")
            continue
        size = _parameters(item, f"{location}.parameters", faults).get("binary_data_size")
        if size is None:
            array = tensors.from_json(datatype, shape, item.get("data"), f"{location}.data", faults)
        elif type(size) is not int or not 0 <= size <= len(tail) - used or "data" in item:
            problem = f"expected at most {len(tail) - used}, the bytes left in the body, and no data; found {size!r}"
            faults.add(f"{location}.parameters.binary_data_size", problem, f"check {JSON_LENGTH_HEADER}")
            continue
        else:
            array = tensors.from_bytes(
                datatype, shape, tail[used : used + size], location, faults, are_files=name in takes_files
            )
            used += size
        if array is not None:
            found[name] = array
    return found, used


def _requested_outputs(
    document: Mapping[str, Any], declared: list[TensorSpec], all_binary: bool, faults: FaultCollector
) -> list[tuple[TensorSpec, bool]]:
    """Return the requested outputs in order, and whether to send each as bytes."""
    requested = document.get("outputs")
    if requested is None or requested == []:
        return [(tensor, all_binary) for tensor in declared]
    if not isinstance(requested, list):
        faults.add("outputs", f"expected a list, found {describe_value(requested)}", 'send [{"name": ...}]')
        return []
    known = {tensor.name: tensor for tensor in declared}
    names = list(known)
    listed = list_names(names)
    expected: dict[str, tuple[TensorSpec, bool]] = {}
    for i, item in enumerate(requested):
        name = item.get("name") if isinstance(item, dict) else item
        if isinstance(name, str) and name in expected:
            faults.add(
                f"outputs.{i}.name",
                f"expected each output once, found {describe_value(name)} again",
                "remove one of them",
            )
        elif not isinstance(item, dict) or not isinstance(name, str) or name not in known:
            problem = f"expected the name of one of {listed}; found {describe_value(name)}"
            faults.add(f"outputs.{i}.name", problem, partial(_fix_output_name, name, names))
        else:
            as_bytes = _bool_parameter(item, f"outputs.{i}.parameters", "binary_data", all_binary, faults)
            expected[name] = known[name], as_bytes
    return list(expected.values())


def _fix_datatype(found: object) -> str:
    return did_you_mean(found, DATATYPES) or "send FP64 for numbers and BYTES for text"


def _fix_output_name(name: object, known: list[str]) -> str:
    return did_you_mean(name, known) or 'send [{"name": ...}]'


def _bool_parameter(part: Mapping[str, Any], location: str, name: str, default: bool, faults: FaultCollector) -> bool:
    """Return a boolean parameter; unknown parameters are ignored."""
    found = _parameters(part, location, faults).get(name, default)
    if isinstance(found, bool):
        return found
    faults.add(f"{location}.{name}", f"expected true or false, found {describe_value(found)}", "send true or false")
    return default


def _parameters(part: Mapping[str, Any], location: str, faults: FaultCollector) -> Mapping[str, Any]:
    found = part.get("parameters")
    if found is None or isinstance(found, dict):
        return found or {}
    faults.add(location, f"expected an object, found {describe_value(found)}", "leave it out")
    return {}
