"""Models as a file of Python give the service's answers with NumPy alone, and hold no code of a model's texts."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from model_store.artifact import npz
from model_store.artifact.model import Model
from model_store.export.base import ExportError, ExportSource
from model_store.export.export import export, find_target
from model_store.export.python.extract import extract
from model_store.nn import LAYERS
from model_store.schema.columns import CategoryColumn, DateColumn, NumberColumn, TextColumn
from model_store.schema.columns.date_text import DateFormat
from model_store.schema.columns.number_text import NumberFormat
from model_store.schema.signature import ClassificationOutput
from tests.model_store.export.edge_rows import edge_rows, refused_rows
from tests.model_store.export.example_models import AGE, MADE, TRAINED, classifier, example_model
from tests.model_store.export.test_c import HOSTILE

TARGET = find_target("python")
# Runs a file as a program where none of this project's packages can be imported, nor what they need besides NumPy.
ISOLATED = """
import runpy, sys
for name in ("model_store", "training", "service", "forward_pass", "marshmallow", "click", "flask"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def source_of(model: Model, name: str = "model") -> ExportSource:
    return ExportSource(name, 1, "0" * 64, model)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write the files; return the program."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / next(iter(files))


def run(program: Path, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", ISOLATED, str(program), *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def load(program: Path) -> ModuleType:
    """Load a program under a name that no library has: a model may be called "numbers"."""
    spec = importlib.util.spec_from_file_location(f"exported_{program.stem}", program)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", [*TRAINED, *MADE])
def test_the_file_gives_the_models_answers_bit_by_bit_for_a_thousand_edge_rows(name: str, tmp_path: Path) -> None:
    model = example_model(name)
    program = write(tmp_path, TARGET.files(source_of(model, name)))
    done = run(program, "--check")
    assert (done.returncode, done.stdout) == (0, f"{len(model.golden.instances)} golden rows, 0 wrong outputs\n")
    rows, outputs = edge_rows(model)
    standalone = load(program)
    assert standalone.predict(rows) == model.signature.decode(outputs)
    assert standalone.predict(rows[7:8]) == model.signature.decode(outputs[7:8])
    for row in refused_rows(model, 30):
        with pytest.raises(ValueError, match=r"rows\.0"):
            standalone.predict([row])


def test_every_layer_is_carried() -> None:
    assert set(LAYERS) == TARGET.layers


@pytest.mark.parametrize("name", [*TRAINED, "tabular", "images", "texts", "dates"])
def test_the_file_imports_the_standard_library_and_numpy_only(name: str) -> None:
    text, artifact = TARGET.files(source_of(example_model(name), name)).values()
    nodes = list(ast.walk(ast.parse(text)))
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert {name.partition(".")[0] for name in modules} <= {*sys.stdlib_module_names, "numpy"}
    assert all(len(line) < 200 for line in text.decode().splitlines())
    assert b"__manifest__" in artifact


def test_the_file_has_only_the_layers_and_columns_of_its_model() -> None:
    text = TARGET.files(source_of(example_model("penguins"), "penguins"))["penguins.py"].decode()
    found = {node.name for node in ast.parse(text).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert {"linear", "tanh", "softmax", "encode_number", "encode_category", "decode_classes"} <= found
    assert not found & {"relu", "convolution", "Window", "encode_date", "DateFormat", "NumberFormat", "decode_values"}


def test_the_npz_is_the_artifact(tmp_path: Path) -> None:
    model = example_model("penguins")
    digest = npz.write(tmp_path / "model.npz", model)
    assert TARGET.files(source_of(model))["model.npz"] == (tmp_path / "model.npz").read_bytes()
    assert npz.read(tmp_path / "model.npz").digest == digest


def test_texts_of_numbers_dates_categories_and_booleans_mean_what_they_mean_in_the_service(tmp_path: Path) -> None:
    columns = [
        NumberColumn("price", 1.0, 2.0, fill=3.0, format=NumberFormat(".", ",", "$", ("none",), {"k": 1e3, "m": 1e6})),
        NumberColumn("dose", 1.0, 2.0, fill=3.0, format=NumberFormat(",", ".", bounds=True)),
        NumberColumn("time", 1.0, 2.0, fill=3.0, format=NumberFormat(".", ":")),
        DateColumn("born", 0.0, 1e8, 0.0, format=DateFormat("dmy", ("unknown",))),
        DateColumn("seen", 0.0, 1e8, 0.0, format=DateFormat("named"), cycles=("week",)),
        CategoryColumn("member", ("yes", "no"), "bucket", "no"),
        CategoryColumn("zip", ("12345", "7"), "bucket", "7"),
        TextColumn("note", 16, ""),
    ]
    model = classifier(*columns)
    rows = [
        ["$1,200", "<5,5", "1:30:00", "31/12/1999", "3-Mar-2020", True, 7, "Two words"],
        ["1.2k", "1-2", "2h 5m", "2000-02-29T12:30:00.5+02:00", "Mar 3, 2020", "Ja", "12345", 17],
        ["($5)", "65+", "90", "1.2.03", "2020-03", "FALSE", 12345, " NA "],
        ["none", 3, None, "unknown", None, None, None, None],
        [7, 1.5, 60.25, None, "2020-03-03 11:59 PM", "perhaps", " 7 ", "übung ß"],
        {"price": "-$3"},
    ]
    standalone = load(write(tmp_path, export(source_of(model), TARGET)))
    assert standalone.predict(rows) == model.predict(rows)
    assert standalone.predict([{"price": np.float64(7.0), "zip": np.int64(7)}]) == model.predict(
        [{"price": 7.0, "zip": 7}]
    )
    for column, value in [
        ("price", "7 kg"), ("price", True), ("price", "NA"), ("price", float("nan")), ("price", 10**400), ("born", 7),
        ("born", "31/31/1999"), ("member", 1.5), ("note", True), ("note", [1]), ("zip", {}), ("other", 1),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=rf"rows\.1\.{column}: "):
            standalone.predict([rows[0], {column: value}])


@pytest.mark.parametrize("value", [1, [1, 2], [[0.0] * 8] * 9, "x", [None] * 144, [float("inf")] * 144, [17.0] * 144])
def test_an_array_of_another_shape_or_range_is_an_error(value: Any, tmp_path: Path) -> None:
    standalone = load(write(tmp_path, TARGET.files(source_of(example_model("images")))))
    with pytest.raises(ValueError, match=r"rows\.0: expected"):
        standalone.predict([value])


def test_an_array_may_be_named_nested_or_flat(tmp_path: Path) -> None:
    model = example_model("images")
    standalone = load(write(tmp_path, TARGET.files(source_of(model))))
    nested = model.golden.instances[0]
    flat = np.ravel(nested)
    expected = model.predict([nested])
    for row in (nested, flat.tolist(), {"pixels": nested}, np.array(nested)):
        assert standalone.predict([row]) == expected
    assert standalone.predict([]) == []


def test_the_program_reads_rows_from_a_file_or_standard_input(tmp_path: Path) -> None:
    model = example_model("penguins")
    program = write(tmp_path, TARGET.files(source_of(model, "penguins")))
    rows = model.golden.instances
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    done = run(program, str(tmp_path / "rows.json"))
    assert json.loads(done.stdout) == model.predict(rows), done.stderr
    assert json.loads(run(program, "-", text=json.dumps({"instances": rows[:2]})).stdout) == model.predict(rows[:2])


@pytest.mark.parametrize(
    ("arguments", "text", "code", "message"),
    [
        (["-"], '[{"islnd": 1}]', 1, "error: rows.0.islnd: unknown column; expected island"),
        (["-"], "[[1]]", 1, "error: rows.0: expected an object, or a list of"),
        (["-"], "3", 1, "error: expected a list of rows"),
        (["-"], "{", 1, "error: Expecting"),
        (["nowhere.json"], "", 1, "error: [Errno 2]"),
        ([], "", 2, ""),
    ],
)
def test_the_program_names_what_is_wrong(
    arguments: list[str], text: str, code: int, message: str, tmp_path: Path
) -> None:
    program = write(tmp_path, TARGET.files(source_of(example_model("penguins"), "penguins")))
    done = run(program, *arguments, text=text)
    assert done.returncode == code
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr
    assert code != 2 or "python penguins.py rows.json" in done.stdout


def test_a_changed_array_fails_the_check(tmp_path: Path) -> None:
    program = write(tmp_path, TARGET.files(source_of(example_model("vectors"))))
    with np.load(tmp_path / "model.npz") as file:
        arrays = dict(file)
    arrays["modules.0.bias"] = arrays["modules.0.bias"] + np.float32(0.1)
    np.savez(tmp_path / "model.npz", **arrays)
    done = run(program, "--check")
    assert done.returncode == 1
    assert "8 golden rows, 0 wrong" not in done.stdout


@pytest.mark.parametrize("text", [*HOSTILE, '"""\nraise SystemExit("left")\n"""', "\\", '\\"""', "{digest}", "'''"])
def test_hostile_texts_stay_texts(text: str, tmp_path: Path) -> None:
    columns = [
        NumberColumn(f"{text[:900]}n", 1.0, 2.0, fill=1.0),
        CategoryColumn(f"{text[:900]}c", (f"{text}0", f"{text}1"), "bucket", f"{text}0"),
        CategoryColumn(f"{text[:900]}w", ("yes", "no"), "bucket", "no"),
    ]
    output = ClassificationOutput(f"{text[:900]}o", (f"{text}0", "import", "b"))
    model = replace(classifier(*columns, output=output), description=text)
    program = write(tmp_path, export(source_of(model, "import"), TARGET))
    rows, outputs = edge_rows(model, 100)
    assert load(program).predict(rows) == model.signature.decode(outputs)


def test_a_model_without_golden_rows_has_made_up_ones(tmp_path: Path) -> None:
    model = replace(example_model("numbers"), golden=None)
    assert run(write(tmp_path, export(source_of(model), TARGET)), "--check").returncode == 0


def test_an_export_with_another_answer_is_refused() -> None:
    model = example_model("vectors")
    wrong = replace(model, golden=replace(model.golden, outputs=model.golden.outputs + np.float32(1e-3)))
    with pytest.raises(ExportError, match="python gives another answer for golden row 0"):
        export(source_of(wrong), TARGET)


def test_names_with_two_meanings_are_an_error_of_the_extract() -> None:
    with pytest.raises(ValueError, match="compress: expected one meaning of this name"):
        extract([("model_store.schema.multi_label", "compress"), ("model_store.export.python.columns", "compress")])


def test_all_pieces_together_have_names_of_one_meaning() -> None:
    pieces = [("layers", LAYERS), ("columns", ()), ("outputs", ())]
    names = [
        (f"model_store.export.python.{module}", name)
        for module, _ in pieces
        for name, value in vars(importlib.import_module(f"model_store.export.python.{module}")).items()
        if callable(value) and getattr(value, "__module__", "").endswith(f"python.{module}")
    ]
    found = extract(names)
    glue = {"ARRAYS", "MANIFEST", "COLUMNS", "OUTPUT", "DTYPE", "SPELLINGS", "BOOLEANS", "ENCODERS"}
    assert not {*found.definitions, *found.imports} & {*glue, "encode", "network", "predict", "check", "main"}


def test_a_wide_table_gives_equal_answers(tmp_path: Path) -> None:
    columns = [
        *(NumberColumn(f"x{i}", 1.0, 2.0) for i in range(300)),
        CategoryColumn("c", tuple(map(str, range(5000)))),
    ]
    model = classifier(*columns, AGE)
    rows = [{**{f"x{i}": i for i in range(300)}, "c": str(k), "age": k} for k in range(50)]
    assert load(write(tmp_path, TARGET.files(source_of(model)))).predict(rows) == model.predict(rows)
