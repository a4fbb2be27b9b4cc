"""Models as JavaScript give the model's answers in QuickJS and Node, and read rows as the service reads them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model_store.artifact.model import Model
from model_store.errors import InputError
from model_store.export.agreement import find_disagreement
from model_store.export.base import ExportError, ExportSource
from model_store.export.export import export
from model_store.export.javascript import target
from model_store.export.javascript.target import TARGET, as_arrays
from model_store.schema.columns import CategoryColumn, DateColumn, NumberColumn
from model_store.schema.columns.date_text import DateFormat
from model_store.schema.signature import ClassificationOutput
from tests.chromium import CHROMIUM, running_chromium
from tests.model_store.export.edge_rows import edge_rows, refused_rows
from tests.model_store.export.example_models import AGE, HEIGHT, MADE, TOWN, TRAINED, classifier, example_model

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")
HOSTILE = ["</script><script>", "__proto__", "constructor", 'quote " and \\', "${1}`", "// \u2028 line", "*/", "7", ""]


def source_of(model: Model) -> ExportSource:
    return ExportSource("model", 1, "0" * 64, model)


def run_node(folder: Path, model: Model, rows: list[Any]) -> Any:
    """Return the predictions of Node; of a row that is refused, the message."""
    for name, content in TARGET.files(source_of(model)).items():
        (folder / name).write_bytes(content)
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "main.mjs").write_text(
        """\
import { readFileSync } from "node:fs";
import { check, model, predict } from "./model-1.mjs";
const one = (row) => { try { return predict([row])[0]; } catch (error) { return `${error.name}: ${error.message}`; } };
const rows = JSON.parse(readFileSync("rows.json", "utf8"));
console.log(JSON.stringify({ wrong: check(), model, found: rows.map(one) }));
"""
    )
    done = subprocess.run([str(NODE), "main.mjs"], cwd=folder, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@needs_node
@pytest.mark.parametrize("name", [*TRAINED, *MADE])
def test_node_gives_the_models_answers(tmp_path: Path, name: str) -> None:
    model = example_model(name)
    rows, outputs = edge_rows(model)
    answers = run_node(tmp_path, model, rows)
    assert answers["wrong"] == 0
    assert (answers["model"]["name"], answers["model"]["version"]) == ("model", 1)
    assert find_disagreement(model.signature, outputs, as_arrays(model.signature.output, answers["found"])) is None
    expected = model.signature.decode(outputs)
    assert list(map(_shape, answers["found"])) == list(map(_shape, expected))


@pytest.mark.parametrize("name", ["tabular", "images", "several labels"])
def test_an_export_is_checked_by_quickjs(name: str) -> None:
    model = example_model(name)
    rows, outputs = edge_rows(model, 20)
    found = TARGET.answer(source_of(model), export(source_of(model), TARGET), rows)
    assert find_disagreement(model.signature, outputs, found) is None


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_chromium_gives_the_models_answers() -> None:
    model = example_model("penguins")
    rows, outputs = edge_rows(model, 200)
    module = export(source_of(model), TARGET)["model-1.mjs"].decode()
    program = """async ([module, rows]) => {
      const url = URL.createObjectURL(new Blob([module], { type: "text/javascript" }));
      const { predict } = await import(url);
      return predict(rows);
    }"""
    with running_chromium() as browser:
        found = as_arrays(model.signature.output, browser.new_page().evaluate(program, [module, rows]))
    assert find_disagreement(model.signature, outputs, found) is None


def _shape(answer: Any) -> Any:
    """Return an answer without its numbers, and without labels, which decide between equal ones."""
    if isinstance(answer, dict):
        return {key: _shape(value) for key, value in answer.items() if key not in ("label", "labels")}
    return "number" if isinstance(answer, (int, float)) else answer


@needs_node
def test_what_the_model_refuses_is_an_error_that_names_row_and_column(tmp_path: Path) -> None:
    model = classifier(replace(TOWN, name="town"), AGE, replace(HEIGHT, fill=None))
    refused = refused_rows(model)[:20]
    rows = [
        *refused,
        ["Bath", 1],
        {"town": "Bath", "age": 1, "height": 2, "more": 3},
        {"town": "Bath", "age": "1", "height": 2},
        {"age": 1, "height": 2},
        7,
        ["Bath", 1e300, 1],
    ]
    for row in rows:
        with pytest.raises(InputError):
            model.encode([row])
    found = run_node(tmp_path, model, rows)["found"]
    assert all(isinstance(one, str) and one.startswith("RowError: rows.0") for one in found), found
    assert found[-6:] == [
        "RowError: rows.0: expected 3 values, found 2",
        'RowError: rows.0: no column is named "more"; expected town, age, height',
        'RowError: rows.0.age: expected a finite number, found "1"',
        "RowError: rows.0.town: expected one of Bath, York, São Paulo; found null",
        "RowError: rows.0: expected an object with town, age, height; found 7",
        "RowError: rows.0.age: expected a number that float32 can hold",
    ]


DATES = {
    "iso": ["2020-02-29", "2020-2-9", "2020-03", "2020/03/01", "2021-02-29", "2020-03-31T18:00+02:00", "0001-01-01",
            "2020-03-31 6:05:07.25 PM", "2020-03-31T24:00", "9999-12-31T23:59:59.9", "NaT", "gone",
            "2020-03-31T18:00Z"],
    "mdy": ["03/31/2020", "3-1-69", "3.1.70", "31/03/2020", "2020-03-31"],
    "dmy": ["31/03/2020", "1.2.99", "03/31/2020"],
    "named": ["31-Mar-2020", "1 sept 2020", "March 3, 2020 10:15", "3 Foo 2020"],
    "time": ["14:30", "2:30 PM", "12:00 a.m.", "23:59:59.5", "24:00", "0:60", "2020-01-01"],
}  # fmt: skip


@needs_node
@pytest.mark.parametrize("order", DATES)
def test_dates_are_read_as_the_service_reads_them(tmp_path: Path, order: Any) -> None:
    written = DateFormat(order, ("Gone",))
    model = classifier(DateColumn("day", 1e9, 1e8, 1.5e9, format=written, cycles=("day", "year"), indicator=True), AGE)
    rows = [[text, 1] for text in DATES[order]]
    found = run_node(tmp_path, model, rows)["found"]
    for row, answer in zip(rows, found, strict=True):
        try:
            expected = model.predict([row])[0]["probabilities"]
        except InputError:
            assert isinstance(answer, str), row
            assert "rows.0.day: expected a date such as" in answer
        else:
            assert list(answer["probabilities"].values()) == pytest.approx(list(expected.values()), abs=1e-6), row


@needs_node
def test_no_text_of_a_model_leaves_its_place(tmp_path: Path) -> None:
    columns = [CategoryColumn(f"{text}?", tuple(HOSTILE), "bucket", HOSTILE[0]) for text in HOSTILE]
    model = classifier(*columns, output=ClassificationOutput("y", tuple(HOSTILE[:3])))
    model = replace(model, description="</script> */ \u2028 // ${x}")
    module = TARGET.files(source_of(model))["model-1.mjs"]
    assert b"<" not in module.partition(b"// The rest of this file")[0]
    rows = [[text] * len(columns) for text in HOSTILE] + [{f"{text}?": None for text in HOSTILE}]
    answers = run_node(tmp_path, model, rows)
    expected = model.predict(rows)
    assert [one["label"] for one in answers["found"]] == [one["label"] for one in expected]
    assert set(answers["found"][0]["probabilities"]) == set(HOSTILE[:3])
    assert answers["model"]["description"] == model.description


def test_a_network_that_takes_an_interpreter_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 99 kB with 30 convolutions of 128 x 128 pixels took minutes."""
    monkeypatch.setattr(target, "_MAX_ROW_OPERATIONS", 1000)
    monkeypatch.setattr(target, "_run", lambda *_: pytest.fail("QuickJS ran"))
    with pytest.raises(ExportError, match=r"expected at most 1000 operations a row, .*; found \d+; export it"):
        export(source_of(example_model("numbers")), TARGET)


def test_the_memory_of_quickjs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "_MAX_MEMORY", 1 << 22)
    with pytest.raises(ExportError, match="out of memory"):
        target._run("globalThis.answer = () => String(new Float64Array(1 << 20).length);", "[]")


def test_the_processor_time_of_quickjs_is_bounded_and_ctrl_c_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = "globalThis.answer = () => { for (;;); };"
    monkeypatch.setattr(target, "_MAX_SECONDS", 1)
    with pytest.raises(ExportError, match="take QuickJS more than 1 s of processor time; export the model to onnx"):
        target._run(endless, "[]")
    monkeypatch.setattr(target, "_answer", lambda *_: threading.Event().wait(60))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # processes in the background may ignore it
    try:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it may come before or in the run
            main = threading.main_thread().ident
            threading.Timer(0.1, signal.pthread_kill, [main, signal.SIGINT]).start()
            target._run(endless, "[]")
    finally:
        signal.signal(signal.SIGINT, handler)


def test_golden_rows_with_another_answer_refuse_the_export(monkeypatch: pytest.MonkeyPatch) -> None:
    model = example_model("numbers")
    golden = model.golden
    assert golden is not None
    wrong = replace(model, golden=replace(golden, outputs=golden.outputs[:, ::-1]))
    with pytest.raises(ExportError, match=r"javascript gives another answer for golden row 0: expected .*, found"):
        export(source_of(wrong), TARGET)


def test_regressions_of_number_columns_with_a_format_say_that_texts_are_not_read() -> None:
    from model_store.schema.columns.number_text import NumberFormat

    column = NumberColumn("price", format=NumberFormat(unit="$", group=","))
    model = replace(classifier(AGE), signature=replace(classifier(AGE).signature, inputs=(column,)))
    assert any("'$1,200'" in note for note in TARGET.notes(source_of(model), TARGET.files(source_of(model))))
