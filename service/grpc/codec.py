"""Codec of ModelInfer: a request message as the document that HTTP's codec parses, output arrays as a message.

The checks and their messages are thus those of HTTP (`protocols/open_inference.py`). `raw_input_contents` are the bytes
after its JSON, `contents` the lists in it. The response has the form of the request: raw contents for raw contents.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from google.protobuf.message import DecodeError

from model_store.artifact.asked_answers import KEYS
from model_store.errors import Fault, InputError
from model_store.nn import Array
from model_store.schema.columns import FaultCollector
from service.grpc.messages import ModelInferRequest, ModelInferResponse
from service.http.exceptions import error_at
from service.http.request_body import check_text_count
from service.protocols import tensors
from service.protocols.explain_request import EXPLAIN_PARAMETERS
from service.protocols.open_inference import InferRequest, range_tensors
from service.protocols.tensors import MAX_DIMENSIONS, TensorSpec, pack_elements
from service.registry.loaded_version import LoadedVersion

_FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_UNCOUNTED_BYTES = 1 << 16  # smaller messages are parsed without counting; only those of ModelInfer may be larger
_MIN_BYTES_PER_FIELD = 32  # of the largest message: a tensor takes 53 bytes of memory, and two in a message
_FIXED_BYTES = {1: 8, 5: 4}  # of the wire types of numbers
_NESTED = {5, 6}  # the fields `inputs` and `outputs` of ModelInferRequest
_RAW_FIX = "send all tensors in raw_input_contents, or all in contents"


def parse_message(kind: Any, data: bytes, max_bytes: int) -> Any:
    """Parse a message of class `kind`. Raises ApiError: 400 if it is malformed, 413 if it is too large."""
    if kind is not ModelInferRequest and len(data) > _UNCOUNTED_BYTES:
        problem = f"expected at most {_UNCOUNTED_BYTES} bytes, found {len(data)}"
        raise error_at(413, "body_too_large", "the message", problem, "send only the fields of the protocol")
    limit = max_bytes // _MIN_BYTES_PER_FIELD
    try:
        if len(data) > _UNCOUNTED_BYTES and count_fields(data, limit) > limit:
            problem = f"expected at most {limit} fields, found more"
            raise error_at(413, "body_too_large", "the message", problem, "send fewer tensors and parameters")
        return kind.FromString(data)
    except DecodeError as e:
        problem = f"expected the message {kind.DESCRIPTOR.name}, found other bytes"
        raise error_at(400, "broken_body", "the message", problem, "use a client of the protocol") from e


def count_fields(data: bytes, limit: int) -> int:
    """Return the number of fields of a message and of its tensors; some number above `limit` if there are more.

    Parsing 8 MiB of empty tensors would take 200 MB and a second. Counting stops where a message ends early, which the
    parser rejects. DecodeError for a group, which the parser would skip to read the fields after it.
    """
    count, ends, at = 0, [len(data)], 0
    while count <= limit:
        while ends and at >= ends[-1]:
            ends.pop()
        if not ends:
            return count
        tag, at = _read_varint(data, at)
        count += 1
        kind = tag & 7
        if kind == 2:
            size, at = _read_varint(data, at)
            if len(ends) == 1 and tag >> 3 in _NESTED:
                ends.append(min(at + size, ends[0]))
            else:
                at += size
        elif kind == 0:
            _, at = _read_varint(data, at)
        elif kind in _FIXED_BYTES:
            at += _FIXED_BYTES[kind]
        else:
            raise DecodeError("groups are no part of the protocol")
    return count


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[at : at + 10]:
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    return value, len(data)  # the message ends early, or the number is too long: the parser will say so


def to_document(request: Any, served: LoadedVersion, max_bytes: int) -> tuple[dict[str, Any], memoryview]:
    """Return a ModelInferRequest as what HTTP's `split_body` returns. Raises InputError, or ApiError 413.

    Of the parameters only those of explanations, levels and thresholds are kept: the others that HTTP knows are about
    JSON and bytes.
    """
    _check_lengths(request, served)
    document: dict[str, Any] = {"id": request.id or None}
    known = (*EXPLAIN_PARAMETERS, *KEYS)
    if asked := {name: _parameter(request.parameters[name]) for name in known if name in request.parameters}:
        document["parameters"] = asked
    if request.outputs:
        document["outputs"] = [{"name": output.name} for output in request.outputs]
    raw = request.raw_input_contents
    inputs: list[dict[str, Any]] = [
        {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype} for tensor in request.inputs
    ]
    faults = FaultCollector()
    if raw:
        _check_all_raw(request, faults)
        faults.raise_if_any()
        document["inputs"] = [
            each | {"parameters": {"binary_data_size": len(data)}} for each, data in zip(inputs, raw, strict=True)
        ]
        return document, memoryview(raw[0] if len(raw) == 1 else b"".join(raw))
    values = sum(len(found) for tensor in request.inputs for _, found in tensor.contents.ListFields())
    check_text_count(values, max_bytes, "values in contents", "send fewer rows, or raw_input_contents")
    packed: list[bytes] = []
    for i, (each, tensor) in enumerate(zip(inputs, request.inputs, strict=True)):
        values_of_field = _typed_values(tensor, f"inputs.{i}", faults)
        if tensor.datatype == "BYTES":  # which are texts or files: HTTP's codec knows
            packed.append(pack_elements(values_of_field))
            each["parameters"] = {"binary_data_size": len(packed[-1])}
        else:
            each["data"] = values_of_field
    faults.raise_if_any()
    document["inputs"] = inputs
    return document, memoryview(b"".join(packed))


def _parameter(parameter: Any) -> Any:
    """Return the value of an InferParameter, None without one."""
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)


def _check_lengths(request: Any, served: LoadedVersion) -> None:
    """Refuse what the model cannot have before Python objects are made of it: 260,000 tensors took 1 s and 100 MB.

    Up to as many tensors too many as an error lists are left to HTTP's codec, which names each of them.
    """
    faults = FaultCollector()
    inputs, outputs = len(served.model.signature.inputs), len(tensors.output_specs(served.model))
    for name, given, expected in (("inputs", request.inputs, inputs), ("outputs", request.outputs, outputs)):
        if len(given) > expected + InputError.MAX_FAULTS:
            faults.add(name, f"expected up to {expected} tensors, found {len(given)}", "send each tensor once")
    faults.raise_if_any()
    for i, tensor in enumerate(request.inputs):
        if len(tensor.shape) > MAX_DIMENSIONS:
            problem = f"expected at most {MAX_DIMENSIONS} dimensions, found {len(tensor.shape)}"
            faults.add(f"inputs.{i}.shape", problem, "the first dimension is the number of rows")
    faults.raise_if_any()


def _check_all_raw(request: Any, faults: FaultCollector) -> None:
    if len(request.raw_input_contents) != len(request.inputs):
        problem = f"expected {len(request.inputs)}, one for each input; found {len(request.raw_input_contents)}"
        faults.add("raw_input_contents", problem, _RAW_FIX)
    for i, tensor in enumerate(request.inputs):
        if tensor.HasField("contents") and tensor.contents.ListFields():
            problem = "expected no contents beside raw_input_contents, found some"
            faults.add(f"inputs.{i}.contents", problem, _RAW_FIX)


def _typed_values(tensor: Any, location: str, faults: FaultCollector) -> list[Any]:
    """Return the values in the field of the tensor's datatype."""
    expected = _FIELDS.get(tensor.datatype)
    others = [field.name for field, _ in tensor.contents.ListFields() if field.name != expected]
    if expected is None:
        if tensor.datatype == "FP16":  # any other is reported as a datatype that does not exist
            faults.add(f"{location}.contents", "expected FP16 in raw_input_contents, found none", _RAW_FIX)
        return []
    if others:
        problem = f"expected only {expected} for {tensor.datatype}, found {others[0]}"
        faults.add(f"{location}.contents", problem, "change the datatype, or the field")
        return []
    return list(getattr(tensor.contents, expected))


def to_message(
    served: LoadedVersion,
    request: InferRequest,
    raw: Array,
    warnings: Sequence[Fault],
    more: Sequence[tuple[TensorSpec, Array]] = (),
    *,
    as_raw: bool,
) -> Any:
    """Return the ModelInferResponse for the network's outputs `raw`; `as_raw`: with `raw_output_contents`.

    `more` are outputs after the requested ones.
    """
    response = ModelInferResponse(model_name=served.name, model_version=str(served.number), id=request.id or "")
    if warnings:
        text = "\n".join(f"{each.location}: {each.problem}" for each in warnings)
        response.parameters["warnings"].string_param = text
    specs = [tensor for tensor, _ in request.outputs]
    arrays = tensors.output_arrays(request.asked.signature(served.model), raw, specs)
    more = [*range_tensors(served.model, request.asked, raw), *more]
    for tensor, array in chain(zip(specs, arrays, strict=True), more):
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=array.shape)
        if as_raw:
            response.raw_output_contents.append(tensors.to_bytes(array))
            continue
        values = tensors.to_json(array)
        field = _FIELDS[tensor.datatype]
        getattr(output.contents, field).extend(map(str.encode, values) if field == "bytes_contents" else values)
    return response
