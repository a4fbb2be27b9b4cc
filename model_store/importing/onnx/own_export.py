"""ONNX files of `models export`: the signature is in their metadata, the network in the nodes `/network/...`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_store.artifact.manifest import DTYPES, PRODUCER
from model_store.errors import ModelImportError
from model_store.schema.signature_json import read_signature

_NETWORK = "/network/"
_TYPES = dict(zip(DTYPES, (1, 11), strict=True))  # FLOAT and DOUBLE


def network_of_export(path: Path, model: Any) -> tuple[Any, Mapping[str, Any]] | None:
    """Return the graph of the network alone, from encoded features, and the signature; None for another file."""
    import onnx  # noqa: PLC0415 - an extra

    metadata = {one.key: one.value for one in model.metadata_props}
    if model.producer_name != PRODUCER.partition(" ")[0] or "signature" not in metadata:
        return None
    nodes = [node for node in model.graph.node if any(name.startswith(_NETWORK) for name in node.output)]
    try:
        described = json.loads(metadata["signature"])
        width = read_signature(described).width
    except (ValueError, RecursionError) as error:
        raise ModelImportError(f"{path}: metadata signature: expected a signature; {error}") from error
    known = {tensor.name for tensor in model.graph.initializer} | {name for node in nodes for name in node.output}
    features = {name for node in nodes for name in node.input if name} - known
    if len(features) != 1:
        raise ModelImportError(f"{path}: expected nodes of a network, {_NETWORK}..., found {len(nodes)} of them")
    weights = {tensor.data_type for tensor in model.graph.initializer if tensor.name.startswith(_NETWORK)}
    kind = _TYPES["float64"] if weights == {_TYPES["float64"]} else _TYPES["float32"]
    alone = onnx.ModelProto()
    alone.CopyFrom(model)
    del alone.graph.node[:], alone.graph.input[:], alone.graph.output[:]
    alone.graph.node.extend(nodes)
    alone.graph.input.append(onnx.helper.make_tensor_value_info(features.pop(), kind, [None, width]))
    alone.graph.output.append(onnx.ValueInfoProto(name=nodes[-1].output[0]))
    return alone, described
