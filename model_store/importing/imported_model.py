"""An imported model before it is published: network, signature, and how its source framework answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from model_store.errors import ModelImportError
from model_store.importing.layers import Layers, in_stored_order
from model_store.nn import Array, Module, Sequential, Sigmoid, Softmax
from model_store.nn.cost import MAX_ARRAY_BYTES, MAX_ROW_OPERATIONS
from model_store.publishing import make_signature
from model_store.schema.columns import ArrayColumn, Column
from model_store.schema.multi_label import MultiLabelOutput
from model_store.schema.outputs import Output, RegressionOutput
from model_store.schema.signature import Signature
from model_store.schema.signature_json import read_signature
from model_store.utils.values import describe_value, list_names

# The source's outputs (n, outputs) for rows as callers send them, and for their encoding (n, width).
Answers = Callable[[list[Any], Array], Array]
Labels = Sequence[str | int]
# The settings of a user's description, with what each may be.
_SETTINGS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "columns": ("a list of texts", lambda value: _is_list(value, str)),
    "offset": (
        "a number, or a list of them",
        lambda value: _is_list([value], int, float) or _is_list(value, int, float),
    ),
    "scale": (
        "a number, or a list of them",
        lambda value: _is_list([value], int, float) or _is_list(value, int, float),
    ),
    "labels": ("a list of texts or whole numbers", lambda value: _is_list(value, str, int)),
    "targets": ("a text, or a list of texts", lambda value: isinstance(value, str) or _is_list(value, str)),
    "name": ("a text", lambda value: isinstance(value, str)),
    "shape": ("a list of sizes", lambda value: _is_list(value, int) and min(value, default=0) > 0),
}


def _is_list(value: Any, *kinds: type) -> bool:
    return isinstance(value, list) and all(type(one) in kinds for one in value)


def _check_settings(described: Mapping[str, Any]) -> None:
    """Raise ModelImportError for a key of a description that is unknown, or a value of another type."""
    for key, value in described.items():
        if {"inputs", "output"} <= described.keys() and key in {"inputs", "output"}:
            continue
        if key not in _SETTINGS:
            expected = f"inputs and output, or some of {', '.join(_SETTINGS)}"
            raise ModelImportError(f"signature: expected {expected}; found {key!r}")
        expected, accepts = _SETTINGS[key]
        if not accepts(value):
            raise ModelImportError(f"signature.{key}: expected {expected}, found {describe_value(value)}")


@dataclass(frozen=True)
class Source:
    """Where a model comes from, for its record."""

    format: str
    file: str
    sha256: str
    producer: str


@dataclass(frozen=True)
class ImportedModel:
    """A network of our layers, and what its file says of its inputs and outputs.

    `plain`: the network gets the numbers of a row as they are, so that a signature may encode others.
    """

    source: Source
    inputs: tuple[Column, ...]
    plain: bool
    modules: tuple[Module, ...]
    labels: Labels | None = None
    targets: Sequence[str] | None = None
    answers: Answers | None = None  # None if the source framework cannot run here
    answered_by: str = ""
    notes: tuple[str, ...] = ()
    is_multi_label: bool = False
    are_logarithms: bool = False  # True if the source's outputs are logarithms of the probabilities
    described: Mapping[str, Any] | None = None  # the signature, if the file has one
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float32))
    whole_numbers: frozenset[int] = frozenset()  # positions of the columns that the source reads as whole numbers
    row_values: int = 1  # that the source framework computes for a row, or what takes as long

    @classmethod
    def of(cls, source: Source, value: Layers, **settings: Any) -> ImportedModel:
        """Return the model whose output is a value of layers. ModelImportError if it is no row."""
        try:
            value = in_stored_order(value)
        except ValueError as error:
            raise ModelImportError(f"{source.file}: {error}") from error
        return cls(source, value.inputs, value.plain, value.modules, dtype=value.dtype, **settings)


@dataclass(frozen=True)
class FinishedModel:
    """A network with its signature; `convert` makes outputs of the network from those of the source."""

    network: Sequential
    signature: Signature
    convert: Callable[[Array], Array]
    notes: tuple[str, ...]


def described_shape(described: Any) -> Any:
    """Return the shape of an array that a user's description of the inputs has, None if it has none."""
    if not isinstance(described, dict):
        return None
    columns = described.get("inputs")
    only = columns[0] if isinstance(columns, list) and len(columns) == 1 else described
    shape = only.get("shape") if isinstance(only, dict) else None
    is_shape = isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)
    return shape if is_shape else None


def finish(model: ImportedModel, described: Mapping[str, Any] | None = None) -> FinishedModel:
    """Return the network and its signature: what the file says, changed by what the user says.

    described: a signature as manifests have it (`inputs` and `output`), or names: `columns`, `offset`, `scale`, `shape`
    for the inputs, `labels` or `targets` and `name` for the output, as of `make_signature`.
    ModelImportError if they do not fit the network.
    """
    described = (model.described or {}) if described is None else described
    if not isinstance(described, Mapping):
        raise ModelImportError(f"signature: expected an object, found {type(described).__name__}")
    _check_settings(described)
    if {"inputs", "output"} <= described.keys():
        try:
            signature = read_signature(described)
        except ValueError as error:
            raise ModelImportError(str(error)) from error
        if not model.plain:
            fix = "describe the columns' names only"
            raise ModelImportError(
                f"signature: expected no encodings, because the file has its own preprocessing; {fix}"
            )
        inputs, output = signature.inputs, signature.output
    else:
        inputs, output = _described_inputs(model, described), None
    network = _network(model.modules, model.source)
    count = network.output_size
    if count is None:
        raise ModelImportError(f"{model.source.file}: expected a row of outputs, found images; flatten the last layer")
    output = output or _output(model, described, count)
    ending, convert, notes = _probabilities(model, network, output)
    if ending is not None:
        network = Sequential([*network.modules, ending])
    return FinishedModel(network, Signature(inputs, output), convert, (*model.notes, *notes))


def _network(modules: Sequence[Module], source: Source) -> Sequential:
    try:
        network = Sequential(modules)
    except ValueError as error:
        raise ModelImportError(f"{source.file}: {error}") from error
    if not any(module.parameters() for module in modules):
        raise ModelImportError(f"{source.file}: expected at least one layer with weights, found none")
    if (found := network.row_cost.one_row_operations) > MAX_ROW_OPERATIONS:
        raise ModelImportError(f"{source.file}: expected at most {MAX_ROW_OPERATIONS} operations a row, found {found}")
    if (found := network.row_cost.bytes) > MAX_ARRAY_BYTES:
        raise ModelImportError(f"{source.file}: expected at most {MAX_ARRAY_BYTES} bytes of a row, found {found}")
    return network


def _described_inputs(model: ImportedModel, described: Mapping[str, Any]) -> tuple[Column, ...]:
    """Return the input columns with the names, offsets and scales that the user gives."""
    inputs = model.inputs
    names = described.get("columns")
    if {"offset", "scale", "shape"} & described.keys():
        if not model.plain:
            problem = "expected no offset, scale or shape, because the file has its own preprocessing"
            raise ModelImportError(f"signature: {problem}; leave them out")
        only = inputs[0] if isinstance(inputs[0], ArrayColumn) else None
        shape = described.get("shape") or (only.shape if only is not None else (len(inputs),))
        names = names or (None if only is not None or "shape" in described else [column.name for column in inputs])
        given = {key: described[key] for key in ("offset", "scale") if key in described}
        try:
            made = make_signature(shape=shape, columns=names, targets="y", **given).inputs
        except (TypeError, ValueError) as error:
            raise ModelImportError(f"signature: {error}") from error
        if sum(column.width for column in made) != sum(column.width for column in inputs):
            expected = sum(column.width for column in inputs)
            raise ModelImportError(f"signature.shape: expected {expected} values a row, found {shape}")
        return made
    if names is None:
        return inputs
    if isinstance(inputs[0], ArrayColumn) and len(names) == inputs[0].width != 1:
        return make_signature(shape=(len(names),), columns=names, targets="y").inputs
    if len(names) != len(inputs) or len(set(names)) != len(names):
        used, found = list_names([column.name for column in inputs]), len(set(names))
        raise ModelImportError(f"signature.columns: expected {len(inputs)} different names, for {used}; found {found}")
    return tuple(replace(column, name=str(name)) for column, name in zip(inputs, names, strict=True))  # type: ignore[type-var]


def _output(model: ImportedModel, described: Mapping[str, Any], count: int) -> Output:
    """Return the output: labels or targets that are given, that the file has, or that its last layer implies."""
    labels, targets = described.get("labels"), described.get("targets")
    if labels is not None and targets is not None:
        raise ModelImportError("signature: expected labels or targets, found both")
    if labels is None and targets is None:
        labels, targets = model.labels, model.targets
    last = model.modules[-1]
    if labels is None and targets is None:
        if isinstance(last, Softmax):
            labels = list(range(count))
        elif isinstance(last, Sigmoid):
            labels = [0, 1] if count == 1 else list(map(str, range(count)))
    try:
        if labels is not None:
            config = _label_config(model, described.get("name"), list(labels), count)
        else:
            named = [targets] if isinstance(targets, str) else targets
            names = list(named) if named else ["y"] if count == 1 else [f"y{i}" for i in range(count)]
            config = {"kind": "values", "names": names, "offset": [0.0] * len(names), "scale": [1.0] * len(names)}
        output = read_signature({"inputs": [_ANY_INPUT], "output": config}).output
    except ValueError as error:
        raise ModelImportError(str(error)) from error
    found = len(output.names) if isinstance(output, RegressionOutput) else len(output.labels)
    if found != count and not (found == 2 and count == 1):
        what = "targets" if isinstance(output, RegressionOutput) else "labels"
        raise ModelImportError(f"signature.{what}: expected {count}, one for each output of the network; found {found}")
    return output


_ANY_INPUT = {"kind": "number", "name": "x", "offset": 0.0, "scale": 1.0, "fill": None, "statistics": {}}


def _label_config(model: ImportedModel, name: Any, labels: list[Any], count: int) -> dict[str, Any]:
    several = model.is_multi_label or (count > 1 and isinstance(model.modules[-1], Sigmoid))
    if several:
        texts = [str(label) for label in labels]
        return {"kind": "labels", "name": name or "labels", "labels": texts, "separator": None, "threshold": 0.5}
    return {"kind": "classes", "name": name or "class", "labels": labels}


def _probabilities(
    model: ImportedModel, network: Sequential, output: Output
) -> tuple[Module | None, Callable[[Array], Array], list[str]]:
    """Return a layer that makes probabilities of the network's outputs, or None; and the same of the source's."""
    if model.are_logarithms:
        return None, np.exp, ["The file ends in log probabilities; the model predicts probabilities."]
    if isinstance(output, RegressionOutput):
        return None, lambda outputs: outputs, []
    each_alone = isinstance(output, MultiLabelOutput) or network.output_size == 1
    expected: type[Module] = Sigmoid if each_alone else Softmax
    last = network.modules[-1]
    if isinstance(last, expected):
        return None, lambda outputs: outputs, []
    if isinstance(last, Softmax | Sigmoid):
        found = type(last).__name__
        raise ModelImportError(
            f"signature.output: expected labels for a {expected.__name__}, found a {found} at the end"
        )
    added = expected()
    note = f"The file ends in logits; a {expected.__name__} was added, for probabilities of the labels."
    return added, added, [note]
