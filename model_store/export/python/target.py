"""The target `python`: NAME.py, which needs NumPy alone, and NAME.npz, the model's artifact."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from model_store.artifact import npz
from model_store.export.agreement import TOLERANCE
from model_store.export.base import ExportError, ExportSource, file_stem, golden_rows
from model_store.export.python.extract import extract
from model_store.export.python.network import layer_names, network_functions, used_functions
from model_store.nn import Array
from model_store.schema.columns import KINDS, CategoryColumn
from model_store.schema.multi_label import MultiLabelOutput
from model_store.schema.outputs import RegressionOutput

_PIECES = "model_store.export.python"
_SECONDS = 600
_MAX_MESSAGE = 1000
_DECODERS = {"classes": "decode_classes", "labels": "decode_labels", "values": "decode_values"}

_HEAD = '''\
"""{title}

{reference}, SHA-256 {digest}

Needs Python 3.11 or newer, NumPy, and {stem}.npz beside it.

    python {stem}.py rows.json     # or - for standard input: a list of rows, objects by column name
    python {stem}.py --check       # predicts the golden rows, and compares the outputs with those of training

    from {stem} import predict
"""

from __future__ import annotations

{imports}

'''
_DATA = """\
with np.load(Path(__file__).with_name("{stem}.npz"), allow_pickle=False) as file:
    ARRAYS = {{name: file[name] for name in file.files}}
MANIFEST = json.loads(ARRAYS["__manifest__"].tobytes())
COLUMNS, OUTPUT = MANIFEST["signature"]["inputs"], MANIFEST["signature"]["output"]
DTYPE = np.dtype(MANIFEST["dtype"])
"""
_SPELLINGS = """\
# Other texts that mean a category, and the categories that true and false mean, by column.
SPELLINGS: dict[str, dict[str, int]] = {spellings}
BOOLEANS: dict[str, dict[str, str]] = {booleans}
for column in COLUMNS:
    if column["kind"] == "category":
        column.update(spellings=SPELLINGS.get(column["name"], {{}}), booleans=BOOLEANS.get(column["name"], {{}}))
"""
_TABLE_ENCODER = '''\
ENCODERS = {{{encoders}}}


def encode(rows: Sequence[Any]) -> Array:
    """Return rows as features (n, {width})."""
    values = rows_as_columns(rows, COLUMNS)
    with np.errstate(over="ignore"):  # `join_features` reports it
        blocks = [ENCODERS[column["kind"]](column, found) for column, found in zip(COLUMNS, values, strict=True)]
    return join_features(blocks, DTYPE)
'''
_ARRAY_ENCODER = '''\
def encode(rows: Sequence[Any]) -> Array:
    """Return rows as features (n, {width}): arrays, or objects with one."""
    name = COLUMNS[0]["name"]
    values = [row[name] if isinstance(row, Mapping) and row.keys() == {{name}} else row for row in rows]
    return join_features([encode_array(COLUMNS[0], values)], DTYPE)
'''
_MAIN = '''\
def predict(rows: Sequence[Any]) -> list[Any]:
    """Return the prediction of each row, as the service answers. ValueError names a row that is not valid."""
    features = encode(rows)
    starts = range(0, len(features), 1000)  # memory for the layers of few rows at a time
    outputs = [network(features[start : start + 1000]) for start in starts]
    return {decoder}(OUTPUT, np.concatenate(outputs)) if outputs else []


def check() -> int:
    """Return 0 if the network's outputs for the golden rows are those of training, else 1."""
    rows, expected = MANIFEST["golden"]["instances"], ARRAYS["golden.outputs"]
    wrong = np.abs(network(encode(rows)) - expected) > {tolerance} * (1 + np.abs(expected))
    print(f"{{len(rows)}} golden rows, {{np.count_nonzero(wrong)}} wrong outputs")
    return int(wrong.any())


def main(arguments: Sequence[str]) -> int:
    """Predict the rows of a file, or check the golden rows."""
    if list(arguments) == ["--check"]:
        return check()
    if len(arguments) != 1:
        print(__doc__)
        return 2
    try:
        text = sys.stdin.read() if arguments[0] == "-" else Path(arguments[0]).read_text(encoding="utf-8")
        rows = json.loads(text)
        rows = rows["instances"] if isinstance(rows, dict) and "instances" in rows else rows
        if not isinstance(rows, list):
            raise ValueError("expected a list of rows")
        predictions = predict(rows)
    except (OSError, ValueError) as error:
        print(f"error: {{error}}", file=sys.stderr)
        return 1
    json.dump(predictions, sys.stdout, indent=1, ensure_ascii=False)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
'''


class PythonTarget:
    """A file of Python that needs NumPy alone."""

    name: ClassVar[str] = "python"
    layers: ClassVar[frozenset[str]] = layer_names()
    columns: ClassVar[frozenset[str]] = frozenset(KINDS)

    def check_engine(self, source: ExportSource) -> None:
        """Accept all: this Python runs the file."""

    def files(self, source: ExportSource) -> dict[str, bytes]:
        """Return NAME.py and NAME.npz, the artifact; of a model without golden rows, with some that are made up."""
        stem, content = file_stem(source.name), io.BytesIO()
        npz.write(content, replace(source.model, golden=source.model.golden or golden_rows(source.model)))
        return {f"{stem}.py": _program(source, stem).encode(), f"{stem}.npz": content.getvalue()}

    def answer(self, source: ExportSource, files: Mapping[str, bytes], rows: Sequence[Any]) -> dict[str, Array]:
        """Return the predictions of the file for valid rows, in a process that cannot import this package."""
        stem = file_stem(source.name)
        with tempfile.TemporaryDirectory(prefix="export-") as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            (Path(folder) / "rows.json").write_text(json.dumps(list(rows)), encoding="utf-8")
            predictions = _run(folder, f"{stem}.py")
        return _as_arrays(source, predictions)

    def notes(self, source: ExportSource, files: Mapping[str, bytes]) -> list[str]:
        """Return how to run the file."""
        stem = file_stem(source.name)
        return [f"Predict with `python {stem}.py rows.json`; it needs NumPy alone."]


def _program(source: ExportSource, stem: str) -> str:
    model, columns = source.model, source.model.signature.inputs
    kinds = sorted({column.kind for column in columns})
    output = model.signature.output
    decoder = _DECODERS[output.kind]
    if isinstance(output, RegressionOutput) and output.transform is not None:
        decoder = "decode_transformed_values"
    is_array = columns[0].is_whole_row
    needed = [(f"{_PIECES}.layers", name) for name in sorted(used_functions(model.network))]
    if not is_array:
        needed.append((f"{_PIECES}.columns", "rows_as_columns"))
    encoders = {kind: f"encode_{kind}" for kind in kinds}
    if any(column.kind == "number" and column.format is not None for column in columns):
        encoders["number"] = "encode_number_text"
    needed += [(f"{_PIECES}.columns", name) for name in encoders.values()]
    needed += [(f"{_PIECES}.columns", "join_features"), (f"{_PIECES}.outputs", decoder)]
    found = extract(needed)
    found.imports |= {
        "json": ("json", ""),
        "sys": ("sys", ""),
        "np": ("numpy", ""),
        "Path": ("pathlib", "Path"),
        "Any": ("typing", "Any"),
        "Mapping": ("collections.abc", "Mapping"),
        "Sequence": ("collections.abc", "Sequence"),
    }
    head = _HEAD.format(
        title=_docstring_text(model.description or source.name),
        reference=_docstring_text(source.reference),
        digest=source.digest,
        stem=stem,
        imports="\n".join(_import_lines(found.import_lines())),
    )
    table = ", ".join(f'"{kind}": {name}' for kind, name in encoders.items())
    encode = (_ARRAY_ENCODER if is_array else _TABLE_ENCODER).format(encoders=table, width=model.signature.width)
    data = _DATA.format(stem=stem)
    if "category" in kinds:
        data += "\n\n" + _category_forms(source)
    parts = [data, *found.sources(), encode, *network_functions(model.network)]
    main = _MAIN.format(decoder=decoder, tolerance=repr(TOLERANCE))
    return head + _join([*parts, main])


def _join(parts: Sequence[str]) -> str:
    """Return definitions with two empty lines between them, none between constants of one line."""
    text = before = ""
    for part in parts:
        is_constant = "\n" not in part.strip("\n")
        text += "" if not text else "\n" if is_constant and before == "constant" else "\n\n\n"
        text += part.strip("\n")
        before = "constant" if is_constant else ""
    return f"{text}\n"


def _category_forms(source: ExportSource) -> str:
    """Return the definitions of other texts of categories."""
    spellings, booleans = {}, {}
    for column in source.model.signature.inputs:
        if isinstance(column, CategoryColumn):
            more = {text: code for text, code in column.code_by_text.items() if text not in column.categories}
            if more:
                spellings[column.name] = more
            if column.category_by_bool:
                booleans[column.name] = {str(value): text for value, text in column.category_by_bool.items()}
    return _SPELLINGS.format(spellings=ascii(spellings), booleans=ascii(booleans))


def _docstring_text(text: str) -> str:
    """Return a text for the inside of a docstring: no sign of it can end it."""
    return repr(text)[1:-1].replace('"', '\\"')


def _import_lines(lines: Sequence[str]) -> list[str]:
    """Return import statements with NumPy's behind those of the standard library."""
    others = [line for line in lines if " numpy" in line]
    return [*(line for line in lines if line not in others), "", *others]


def _run(folder: str, name: str) -> list[Any]:
    """Return the predictions that the file prints, run by this Python without its user's settings."""
    command = [sys.executable, "-I", name, "rows.json"]
    done = subprocess.run(  # noqa: S603 - this Python, with our own text
        command, cwd=folder, capture_output=True, timeout=_SECONDS, check=False
    )
    if done.returncode:
        raise ExportError(f"{name}: {done.stderr.decode(errors='replace')[-_MAX_MESSAGE:]}")
    predictions: list[Any] = json.loads(done.stdout)
    return predictions


def _as_arrays(source: ExportSource, predictions: Sequence[Any]) -> dict[str, Array]:
    """Return predictions as `Signature.decode_arrays` does."""
    output = source.model.signature.output
    if isinstance(output, RegressionOutput):
        rows = [list(one.values()) if isinstance(one, Mapping) else [one] for one in predictions]
        return {"values": np.array(rows, np.float64)}
    probabilities = np.array([list(one["probabilities"].values()) for one in predictions], np.float64)
    if isinstance(output, MultiLabelOutput):
        labels = np.array([[label in one["labels"] for label in output.labels] for one in predictions], bool)
        return {"probabilities": probabilities, "labels": labels}
    return {"probabilities": probabilities, "label": np.array([one["label"] for one in predictions], object)}


TARGET = PythonTarget()
