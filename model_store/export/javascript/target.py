"""Exports to JavaScript: one module without dependencies, for browsers, Node and other engines.

The module holds the model as JSON and base64, and the program, rows.js and network.js, which all models share.
Each row is computed by itself; sums are added in float64 and rounded to the network's dtype.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from importlib.resources import files as package_files
from typing import Any, ClassVar

import numpy as np

from model_store.export.base import ExportError, ExportSource, golden_rows
from model_store.nn import LAYERS, Array, Average, Module, ParametricActivation, Sequential
from model_store.schema.columns import KINDS, ArrayColumn, CategoryColumn, Column, DateColumn, NumberColumn, TextColumn
from model_store.schema.columns.date import CYCLES
from model_store.schema.signature import MultiLabelOutput, Output, RegressionOutput
from model_store.utils.extras import install_command

_EXTRA = "javascript"
_MAX_ROW_OPERATIONS = 2**28  # a multiply-add takes QuickJS 50 ns
_MAX_SECONDS = 60  # of processor time of QuickJS, whose cost of a layer may not be that of NumPy
_MAX_MEMORY = 1 << 29  # of QuickJS in bytes, and `_MEMORY_OF_TEXT` for each of the module and the rows
_MEMORY_OF_TEXT = 16
_RUNTIME = ("rows.js", "network.js")


class JavaScriptTarget:
    """A module of JavaScript, `NAME-VERSION.mjs`, with `predict(rows)`."""

    name: ClassVar = "javascript"
    layers: ClassVar = frozenset(LAYERS)
    columns: ClassVar = frozenset(KINDS)

    def check_engine(self, source: ExportSource) -> None:
        """Raise ExportError if QuickJS is not installed, or a row takes an interpreter too long."""
        _import_engine()
        found = source.model.network.row_cost.operations
        if found > _MAX_ROW_OPERATIONS:
            problem = f"expected at most {_MAX_ROW_OPERATIONS} operations a row, since an interpreter checks the export"
            raise ExportError(f"{source.reference}: javascript: {problem}; found {found}; export it to onnx or c")

    def files(self, source: ExportSource) -> dict[str, bytes]:
        """Return the module. See `Target.files`."""
        arrays = list(_arrays(source.model.network))
        data = b"".join(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes() for array in arrays)
        weights = {"data": base64.b64encode(data).decode(), "sizes": [array.size for array in arrays]}
        text = _HEAD.format(
            reference=source.reference,
            stem=source.stem,
            digest=source.digest,
            model=literal(_model(source)),
            weights=literal(weights),
        )
        return {f"{source.stem}.mjs": (text + _runtime()).encode()}

    def answer(self, source: ExportSource, files: Mapping[str, bytes], rows: Sequence[Any]) -> Mapping[str, Array]:
        """Run the module in QuickJS. See `Target.answer`."""
        (module,) = files.values()
        text = module.decode() + "\nglobalThis.answer = (rows) => JSON.stringify(predict(JSON.parse(rows)));\n"
        found: list[Any] = json.loads(_run(text, json.dumps(list(rows))))
        return as_arrays(source.model.signature.output, found)

    def notes(self, source: ExportSource, files: Mapping[str, bytes]) -> list[str]:
        """Return how to use the module. See `Target.notes`."""
        (name,) = files
        notes = [f'import {{ predict }} from "./{name}" in a browser or in Node']
        if any(
            isinstance(column, NumberColumn) and column.format is not None for column in source.model.signature.inputs
        ):
            notes.append("numbers are sent as numbers: the module does not read texts such as '$1,200'")
        return notes


TARGET = JavaScriptTarget()


def runtime_module() -> str:
    """Return the program without a model: a module whose `open(MODEL, WEIGHTS)` returns what an exported one has.

    A page that fetches an export with an API key cannot import it: browsers import a URL without the key.
    """
    program = _runtime().replace("\nexport ", "\n")
    names = "model, predict, check, RowError, encode, layers: LAYERS, decode"
    return f"export function open(MODEL, WEIGHTS) {{\n{program}\nreturn {{ {names} }};\n}}\n"


def _runtime() -> str:
    here = package_files(__package__)
    return "\n".join(here.joinpath(name).read_text(encoding="utf-8") for name in _RUNTIME)


_HEAD = """\
// Model {reference}, exported by Forward Pass. SHA-256 of the artifact's manifest: {digest}
//
//   import {{ predict }} from "./{stem}.mjs";
//   predict([{{ name: value, ... }}]);

const MODEL = JSON.parse({model});
const WEIGHTS = JSON.parse({weights});

"""


def as_arrays(output: Output, found: Sequence[Any]) -> dict[str, Array]:
    """Return predictions of JSON as `Signature.decode_arrays` returns them."""
    if isinstance(output, RegressionOutput):
        table = [list(row.values()) if isinstance(row, dict) else [row] for row in found]
        return {"values": np.array(table, np.float64)}
    names = [str(label) for label in output.labels]
    probabilities = np.array([[row["probabilities"][name] for name in names] for row in found], np.float64)
    if isinstance(output, MultiLabelOutput):
        labels = np.array([[name in row["labels"] for name in names] for row in found], bool)
        return {"labels": labels, "probabilities": probabilities}
    return {"label": np.array([row["label"] for row in found], object), "probabilities": probabilities}


def literal(data: Any) -> str:
    """Return JSON data as a literal of JavaScript: a text, so that a key such as __proto__ is a key like others."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return json.dumps(text).replace("<", "\\u003c").replace(">", "\\u003e")  # nothing ends a <script> around it


def _model(source: ExportSource) -> dict[str, Any]:
    model = source.model
    golden: dict[str, list[Any]] = {"rows": [], "answers": []}
    if model.golden is not None:
        kept = golden_rows(model)
        golden = {"rows": kept.instances, "answers": model.signature.decode(kept.outputs)}
    return {
        "name": source.name,
        "version": source.version,
        "digest": source.digest,
        "description": model.description,
        "dtype": model.network.dtype.name,
        "columns": [_column(column) for column in model.signature.inputs],
        "layers": _layers(model.network),
        "output": _output(model.signature.output),
        "golden": golden,
    }


def _column(column: Column) -> dict[str, Any]:
    """Return what rows.js needs to encode a column."""
    found = {"name": column.name, "kind": column.kind, "fill": column.fill, "width": column.width}
    scaling = {"offset": column.offset, "scale": column.scale}
    if isinstance(column, NumberColumn):
        return found | scaling | {"linear_width": column.linear_width, "indicator": column.indicator}
    if isinstance(column, DateColumn):
        written = {"order": column.format.order, "missing": [word.lower() for word in column.format.missing]}
        return (
            found
            | scaling
            | written
            | {
                "cycles": [CYCLES[cycle] for cycle in column.cycles],
                "indicator": column.indicator,
            }
        )
    if isinstance(column, CategoryColumn):
        codes = column.code_by_text
        return found | {
            "categories": column.categories,
            "codes": list(codes.items()),
            "missing": None if column.fill is None else codes.get(column.fill, len(column.categories)),
            "unknown": len(column.categories) if column.unknown == "bucket" else None,
            "booleans": {str(value).lower(): text for value, text in column.category_by_bool.items()},
            "encoding": column.encoding,
        }
    if isinstance(column, TextColumn):
        return found | {"features": column.features}
    if isinstance(column, ArrayColumn):
        return found | scaling | {"shape": column.shape, "low": column.low, "high": column.high}
    raise ExportError(f"column {column.name}: JavaScript cannot carry the kind {column.kind}")


def _output(output: Output) -> dict[str, Any]:
    if isinstance(output, RegressionOutput):
        transform = None if output.transform is None else output.transform.as_dict()
        return {
            "kind": output.kind, "names": output.names, "offset": output.offset, "scale": output.scale,
            "transform": transform,
        }  # fmt: skip
    found = {"kind": output.kind, "name": output.name, "labels": output.labels}
    return found if output.threshold is None else found | {"threshold": output.threshold}


def _layers(network: Sequential) -> list[dict[str, Any]]:
    """Return the configuration of each layer with the names of its arrays."""
    return [
        {"type": "Average", "members": [_layers(member) for member in layer.members]}
        if isinstance(layer, Average)
        else _layer(layer)
        for layer in network.modules
    ]


def _layer(layer: Module) -> dict[str, Any]:
    found = layer.config() | {"arrays": list(layer.arrays())}
    if isinstance(layer, ParametricActivation):
        found["activation"] = type(layer.function).__name__
    return found


def _arrays(network: Sequential) -> Iterator[Array]:
    for layer in network.modules:
        if isinstance(layer, Average):
            for member in layer.members:
                yield from _arrays(member)
        else:
            yield from layer.arrays().values()


def _import_engine() -> Any:
    """Return QuickJS. ExportError if it is not installed."""
    try:
        import quickjs  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        problem = "javascript: an export is checked by the JavaScript engine QuickJS, which is not installed"
        raise ExportError(f"{problem}; install it with: {install_command(_EXTRA)}") from error
    return quickjs


def _run(module: str, rows: str) -> str:
    """Return what `answer(rows)` of the module returns. ExportError if it throws, or takes too much time or memory.

    It runs in a thread, since a signal such as Ctrl-C would wait for it.
    """
    result: Future[str] = Future()

    def work() -> None:
        try:
            result.set_result(_answer(module, rows))
        except BaseException as error:  # noqa: BLE001 - raised where the result is read
            result.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return result.result()


def _answer(module: str, rows: str) -> str:
    quickjs = _import_engine()
    context = quickjs.Context()
    context.set_time_limit(_MAX_SECONDS)
    context.set_memory_limit(_MAX_MEMORY + _MEMORY_OF_TEXT * (len(module) + len(rows)))
    try:
        context.module(module)
        answer = context.get("answer")
        if answer is None:
            raise ExportError("javascript: the module cannot be loaded by QuickJS")
        found: str = answer(rows)
    except quickjs.JSException as error:
        if "InternalError: interrupted" in str(error):
            problem = f"the golden rows take QuickJS more than {_MAX_SECONDS} s of processor time"
            raise ExportError(f"javascript: {problem}; export the model to onnx or c") from error
        raise ExportError(f"javascript: the module throws for golden rows: {error}") from error
    return found
