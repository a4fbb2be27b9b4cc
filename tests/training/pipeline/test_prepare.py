"""Preparing a job: what is inferred, what is refused, and how rows are encoded."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.tables import job, refusal, rows
from training.cli.scaffold import draft_job
from training.errors import DataError
from training.pipeline.job import PreparedJob, from_dict, load, prepare, train_and_evaluate

CELL = st.one_of(st.none(), st.sampled_from(["1", "-2.5", "3e4", "0.1"]))
WORD = st.one_of(st.none(), st.sampled_from(["red", "white", "blue, pale", 'say "x"', "1"]))


@pytest.mark.parametrize(
    ("targets", "task", "labels"),
    [
        (["yes", "no"], "classification", ("no", "yes")),
        (["1", "0"], "classification", (0, 1)),
        ([f"{i}.5" for i in range(20)], "regression", ()),
        ([str(i) for i in range(30)], "regression", ()),
    ],
)
def test_the_task_is_inferred_from_the_target_with_a_note(
    tmp_path: Path, targets: list[str], task: str, labels: tuple[object, ...]
) -> None:
    table = "x,y\n" + "".join(f"{i},{targets[i % len(targets)]}\n" for i in range(60))
    prepared = prepare(job(tmp_path, table))
    assert prepared.job.settings.data.task == task
    assert prepared.dataset.labels == labels
    assert any("task" in note for note in prepared.notes)


def test_all_columns_except_the_target_are_inputs_in_order(job_file: Path) -> None:
    prepared = prepare(load(job_file))
    assert prepared.signature.names == ("length", "colour")
    assert prepared.job.settings.data.columns == ["length", "colour"]
    assert prepared.job.settings.data.kinds == {"length": "number", "colour": "category"}


def test_chosen_columns_and_kinds_are_used(job_file: Path) -> None:
    prepared = prepare(load(job_file, {"data.columns": ["colour"]}))
    assert prepared.signature.names == ("colour",)
    prepared = prepare(load(job_file, {"data.kinds.length": "category"}))
    assert [column.kind for column in prepared.signature.inputs] == ["category", "category"]


def test_several_targets_make_one_regression(tmp_path: Path) -> None:
    table = "x,y,z\n" + "".join(f"{i},{i},{2 * i + 0.5}\n" for i in range(30))
    prepared = prepare(job(tmp_path, table, data={"target": ["y", "z"]}))
    outcome = train_and_evaluate(prepared)
    assert list(outcome.metrics["targets"]) == ["y", "z"]
    assert set(prepared.evaluation_labels[0]) == {"y", "z"}
    assert set(outcome.model.predict(prepared.evaluation_instances)[0]) == {"y", "z"}


@pytest.mark.parametrize(
    ("table", "sections", "expected"),
    [
        (rows(30), {"data": {"target": "z"}}, "data.target: unknown column 'z' (the columns are x, y)"),
        (rows(30), {"data": {"columns": ["X"]}}, "data.columns: unknown column 'X' (did you mean 'x'?)"),
        (rows(30), {"data": {"kinds": {"xx": "number"}}}, "data.kinds.xx: unknown input 'xx'"),
        ("y\na\nb\n", {}, "no input column is left"),
        (rows(30, "x{i},{c}"), {"data": {"kinds": {"x": "number"}}}, "line 2, column x: expected a finite number"),
        (rows(30, ",{c}"), {}, "t.csv: no column has a value in the training rows"),
        ("w,x,y\n" + ",,a\n,,b\n" * 15, {}, "no column has a value in the training rows"),
        (rows(300, "{c},{i}") + "a,?\na,3x3\n", {}, "line 303, column y: expected a number, like most cells"),
        (rows(30, "NA,{c}"), {"data": {"missing": "refuse"}}, "lines 2, 3, 4, 5, 6 and 25 more"),
        (rows(30, "{i},"), {}, "the target is missing in every row"),
        (rows(30) + "3,\n", {"data": {"missing": "refuse"}}, "the target is missing: line 32"),
        (rows(30, "1,a"), {}, "expected at least two classes, found only 'a'"),
        (rows(30, "{i},1.5"), {}, "column y: expected a target that varies, found 1.5 in every training row"),
        (rows(30, "1,name {i}"), {}, "too many classes: 30 in 30 rows"),
        (rows(30), {"data": {"task": "regression"}}, "line 2, column y: expected a finite number, found 'a'"),
        (rows(30), {"train": {"loss": "mae"}, "network": {"output": "relu"}}, "network.output: expected 'softmax'"),
        (rows(30), {"train": {"loss": "cross_entropy"}, "network": {"output": "sigmoid"}}, "does not fit the output"),
        (
            rows(30),
            {"network": {"output": "softmax"}, "train": {"loss": "binary_cross_entropy"}},
            "does not fit the output",
        ),
        (rows(30, "1,{i}.5"), {"train": {"loss": "cross_entropy"}}, "'cross_entropy' is only for classifications"),
        (rows(30, "1,{i}.5"), {"network": {"output": "softmax"}}, "'softmax' is only for classifications"),
        (rows(30, "1,{i}.5"), {"network": {"output": "tanh"}}, "cannot produce all values"),
        (
            rows(30),
            {"train": {"loss": "huber", "class_weights": "balanced"}},
            "a loss with class weights, found 'huber'",
        ),
        (
            rows(30, "1,{i}e50"),
            {"data": {"scale": "none"}, "split": {"test": 0, "validation": 0}},
            "line 3, column y: expected a number that fits float32, found 1e+50 (write scale = 'standard'",
        ),
        (rows(30, "1,{i}.5"), {"network": {"output": "gelu"}}, "cannot produce all values"),
        ("x,y\n" + "1,a\n2,b\n3,c\n" * 9, {"train": {"loss": "binary_cross_entropy"}}, "expected two classes"),
    ],
)
def test_jobs_that_do_not_fit_their_data_are_rejected(
    tmp_path: Path, table: str, sections: dict[str, dict[str, Any]], expected: str
) -> None:
    assert expected in refusal(tmp_path, table, **sections)


def test_rows_that_do_not_fit_in_memory_are_an_error_that_suggests_streaming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encoded(*_: Any) -> None:
        raise MemoryError("Unable to allocate 50.0 MiB")

    monkeypatch.setattr(PreparedJob, "encode_rows", encoded)
    found = refusal(tmp_path, rows(30))
    assert "do not fit in memory, 1 numbers each: Unable to allocate 50.0 MiB (write stream = true in [data]" in found
    assert "(lower split.test, or exclude" in refusal(tmp_path, rows(200), data={"stream": True})


def test_large_encoded_rows_are_noted_with_a_hint_at_streaming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any("stream" in note for note in prepare(job(tmp_path, rows(200))).notes)
    monkeypatch.setattr("training.pipeline.preparation._MEMORY_NOTE_BYTES", 700)
    assert any("GiB of memory; stream = true" in note for note in prepare(job(tmp_path, rows(200))).notes)
    assert not any("GiB" in note for note in prepare(job(tmp_path, rows(200), data={"stream": True})).notes)


def test_faults_of_several_columns_are_reported_at_once(tmp_path: Path) -> None:
    table = "w,x,y\n" + "".join(f"w{i},1,{'ab'[i % 2]}\n" for i in range(2)) + "1,x,a\n"
    assert "2 faults" in refusal(tmp_path, table, data={"kinds": {"w": "number", "x": "number"}})


@pytest.mark.parametrize("stream", [False, True])
def test_categories_that_only_held_out_rows_have_are_a_note_or_one_fault(tmp_path: Path, stream: bool) -> None:
    table = rows(60, "red,{c}")
    held = sorted(prepare(job(tmp_path, table, data={"stream": stream})).split.test.tolist())
    if stream:
        held = [line - 1 for line in prepare(job(tmp_path, table, data={"stream": True})).dataset.lines or []][-6:]
    lines = table.splitlines()
    for row in held[:4]:
        lines[row + 1] = lines[row + 1].replace("red", "green")
    lines[held[4] + 1] = lines[held[4] + 1].replace("red", "blue")
    table = "\n".join(lines)
    prepared = prepare(job(tmp_path, table, data={"stream": stream}))
    assert "categories that no training row has count as unknown: x ('green', 'blue')" in prepared.notes
    train_and_evaluate(prepared)
    with pytest.raises(DataError) as caught:
        prepare(job(tmp_path, table, data={"unknown": "refuse", "stream": stream}))
    first = f"row {held[0] + 1}" if stream else f"line {held[0] + 2}"
    expected = f"column x: no training row has 2 categories of 5 held-out rows, such as 'green' in {first}, 'blue' in "
    assert expected in str(caught.value)
    assert str(caught.value).count("column x") == 1
    assert "write unknown = 'bucket' in [data]" in str(caught.value)


@pytest.mark.parametrize("stream", [False, True])
def test_a_column_without_a_value_in_the_training_rows_is_left_out(tmp_path: Path, stream: bool) -> None:
    table = "a," + rows(60, "{i}.5,{c}").replace("\n", "\n,")[:-1]
    prepared = prepare(job(tmp_path, table, data={"stream": stream, "optional": ["a"]}))
    assert prepared.signature.names == ("x",)
    assert "column a has no value in the training rows and is left out" in prepared.notes
    assert (prepared.job.settings.data.columns, prepared.job.settings.data.optional) == (["x"], [])
    train_and_evaluate(prepared)
    assert "no column has a value" in refusal(tmp_path, table, data={"columns": ["a"], "stream": stream})


def test_rows_without_a_target_are_ignored_and_counted(tmp_path: Path) -> None:
    prepared = prepare(job(tmp_path, rows(30) + "3,\n4,?\n"))
    assert len(prepared.dataset) == 30
    assert "ignored rows without a target: lines 32, 33" in prepared.notes


def test_a_constant_column_is_a_note(tmp_path: Path) -> None:
    assert any("column x has one value" in note for note in prepare(job(tmp_path, rows(30, "1,{c}"))).notes)


def test_an_array_of_one_number_is_not_reported_as_constant(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", x=np.arange(40.0)[:, None], y=np.arange(40) % 2)
    content = {"model": {"name": "m"}, "data": {"path": "t.npz"}}
    assert not [note for note in prepare(from_dict(content, tmp_path)).notes if "one value" in note]


@pytest.mark.parametrize("stream", [False, True])
def test_a_few_words_among_numbers_are_missing_values_with_a_note(tmp_path: Path, stream: bool) -> None:
    ages = "x,y\n" + "".join(f"{i % 60},{'ab'[i % 2]}\n" for i in range(300)) + "unknown,a\n-,b\n"
    prepared = prepare(job(tmp_path, ages, data={"stream": stream}))
    assert any(
        "column x: these words are read as missing values: '-' in 1, 'unknown' in 1" in n for n in prepared.notes
    )
    assert (prepared.dataset.kinds, prepared.signature.inputs[0].fill is not None) == ({"x": "number"}, True)
    model = train_and_evaluate(prepared).model
    assert model.predict([["Unknown"], [None]])[0] == model.predict([[None]])[0]


@pytest.mark.parametrize("stream", [False, True])
def test_a_target_of_numbers_with_signs_and_units_is_a_regression(tmp_path: Path, stream: bool) -> None:
    table = "x,y\n" + "".join(f'{i * 3},"${i},000.50"\n' for i in range(1, 100))
    prepared = prepare(job(tmp_path, table, data={"stream": stream}))
    assert prepared.dataset.task == "regression"
    assert "column y is read as numbers ($): '$1,000.50' is 1000.5 " in "\n".join(prepared.notes)
    assert max(prepared.labels(np.arange(len(prepared.dataset)))) >= 60_000


def test_a_few_invalid_numbers_that_turn_a_column_into_a_category_are_noted(tmp_path: Path) -> None:
    ages = "x,y\n" + "".join(f"{i % 60},{'ab'[i % 2]}\n" for i in range(300)) + "unknown 2,a\n"
    (note,) = [note for note in prepare(job(tmp_path, ages)).notes if "as a category" in note]
    assert note.startswith("column x is treated as a category because 1 of its 301 cells is not a number, such as ")
    assert "'unknown 2' in line 302: empty such cells" in note
    stated = prepare(job(tmp_path, ages, data={"kinds": {"x": "category"}})).notes
    few = prepare(job(tmp_path, ages.replace("unknown 2", "5"), data={"columns": ["x"]})).notes
    codes = prepare(job(tmp_path, "x,y\n" + "1,a\n2,b\n3,a\n" * 50 + "other,a\n" * 5)).notes
    assert not [note for note in [*stated, *few, *codes] if "treated as a category" in note]


def test_a_class_without_test_rows_is_a_note(tmp_path: Path) -> None:
    notes = prepare(job(tmp_path, rows(60) + "3,c\n")).notes
    assert any(note.startswith("class 'c' has no test row") for note in notes)
    assert not any("no test row" in note for note in prepare(job(tmp_path, rows(60))).notes)


@given(cells=st.lists(st.tuples(CELL, WORD), min_size=20, max_size=30), seed=st.integers(0, 9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_rows_sent_to_the_service_are_encoded_as_in_training(
    tmp_path: Path, cells: list[tuple[str | None, str | None]], seed: int
) -> None:
    quoted = [(a or "", '"' + (b or "").replace('"', '""') + '"') for a, b in cells]
    table = (
        "a,b,y\n" + "1,red,p\n2,white,q\n" * 3 + "".join(f"{a},{b},{'pq'[i % 2]}\n" for i, (a, b) in enumerate(quoted))
    )
    prepared = prepare(job(tmp_path, table, data={"unknown": "bucket"}, train={"seed": seed}))
    every = np.arange(len(prepared.dataset))
    raw = json.loads(json.dumps(prepared.instances(every), allow_nan=False))
    np.testing.assert_array_equal(prepared.signature.encode(raw), prepared.encode_rows(every))
    named = [dict(zip(prepared.signature.names, row, strict=True)) for row in raw]
    np.testing.assert_array_equal(prepared.signature.encode(named), prepared.encode_rows(every))


def test_preprocessing_is_fitted_on_training_rows_only(tmp_path: Path) -> None:
    prepared = prepare(job(tmp_path, rows(50)))
    learned = prepared.dataset.inputs["x"][prepared.split.training]
    assert prepared.signature.inputs[0].statistics["count"] == len(learned)
    assert prepared.encode_rows(prepared.split.training).mean() == pytest.approx(0, abs=1e-6)


def test_missing_numbers_are_sent_as_null_and_predicted(job_file: Path) -> None:
    prepared = prepare(load(job_file))
    raw = prepared.instances(np.arange(len(prepared.dataset)))
    assert raw[7][0] is None
    assert raw[8][1] is None
    assert len(train_and_evaluate(prepared).model.predict(raw)) == 40


def test_images_are_sent_as_nested_lists(tmp_path: Path) -> None:
    x = np.arange(40 * 6, dtype=np.uint8).reshape(40, 2, 3)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(40) % 2)
    made = from_dict({"model": {"name": "m"}, "data": {"path": "a.npz"}, "train": {"epochs": 1}}, tmp_path)
    prepared = prepare(made)
    assert prepared.evaluation_instances[0] == x[prepared.split.test[0]].tolist()
    assert prepared.signature.output.name == "label"  # type: ignore[union-attr]
    np.testing.assert_array_equal(
        prepared.signature.encode(prepared.evaluation_instances), prepared.encode_rows(prepared.split.test)
    )
    assert json.loads(json.dumps(train_and_evaluate(prepared).model.training))["data"]["rows"] == 40


@pytest.mark.parametrize(
    ("y", "extra", "expected"),
    [
        (np.arange(40) + 0.5, {"task": "classification"}, "expected one integer or string"),
        (np.array(["a", "b"] * 20), {"task": "regression"}, "expected numbers for a regression"),
        (np.zeros((40, 2)), {"target": "one"}, "expected 2 names"),
    ],
)
def test_arrays_that_do_not_fit_the_task_are_rejected(
    tmp_path: Path, y: np.ndarray, extra: dict[str, Any], expected: str
) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((40, 3)), y=y)
    with pytest.raises(DataError, match=expected):
        prepare(from_dict({"model": {"name": "m"}, "data": {"path": "a.npz", **extra}}, tmp_path))


@pytest.mark.parametrize(
    ("y", "target", "labels"),
    [
        (np.array(["b", "a"] * 20), "label", ("a", "b")),
        (np.array([True, False] * 20), "label", (0, 1)),
        (np.arange(40.0), "value", ()),
    ],
)
def test_the_task_is_inferred_from_the_targets_of_arrays(
    tmp_path: Path, y: np.ndarray, target: str, labels: tuple[object, ...]
) -> None:
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).random((40, 3)), y=y)
    prepared = prepare(from_dict({"model": {"name": "m"}, "data": {"path": "a.npz"}}, tmp_path))
    assert prepared.dataset.target_names == (target,)
    assert prepared.dataset.labels == labels


GAPS = "whole,gap,word,y\n" + "".join(
    f"{i},{'' if i % 9 == 4 else i % 5},{'ab'[i % 2] if i % 7 else 'NA'},{'yes' if i % 3 else 'no'}\n"
    for i in range(90)
)


@pytest.mark.parametrize("stream", [False, True])
def test_columns_without_gaps_are_required_and_filled_values_are_reported(tmp_path: Path, stream: bool) -> None:
    if stream:
        pytest.importorskip("pyarrow")
    prepared = prepare(job(tmp_path, GAPS, data={"stream": stream, "columns": ["whole", "gap", "word"]}))
    assert {column.name: column.fill is None for column in prepared.signature.inputs} == {
        "whole": True, "gap": False, "word": False
    }  # fmt: skip
    note = next(note for note in prepared.notes if note.startswith("filled in missing values: "))
    assert re.fullmatch(r"filled in missing values: 10 of gap with [0-4], 13 of word with [ab]", note)


def test_a_gap_in_held_out_rows_alone_makes_a_column_optional(tmp_path: Path) -> None:
    whole = "x,y\n" + "".join(f"{i},{'yes' if i % 3 else 'no'}\n" for i in range(60))
    row = int(prepare(job(tmp_path, whole)).split.test[0])
    lines = whole.splitlines()
    lines[row + 1] = "," + lines[row + 1].partition(",")[2]
    (column,) = prepare(job(tmp_path, "\n".join(lines) + "\n")).signature.inputs
    assert column.fill is not None
    assert column.statistics["missing"] == 0


def test_a_job_makes_columns_optional(tmp_path: Path) -> None:
    (column,) = prepare(job(tmp_path, rows(40))).signature.inputs
    assert column.fill is None
    (optional,) = prepare(job(tmp_path, rows(40), data={"optional": [column.name]})).signature.inputs
    assert optional.fill is not None
    for stream in (False, True):
        every = prepare(job(tmp_path, rows(40), data={"optional": "all", "stream": stream})).signature.inputs
        assert all(column.fill is not None for column in every)
    message = refusal(tmp_path, rows(40), data={"optional": ["nothing"]})
    assert "data.optional: unknown input 'nothing'" in message


@pytest.mark.parametrize("stream", [False, True])
def test_numbers_that_many_rows_lack_get_an_indicator(tmp_path: Path, stream: bool) -> None:
    table = "few,many,y\n" + "".join(
        f"{i % 7}.5,{'' if i % 9 == 0 else i % 5},{'ab'[i % 9 == 0]}\n" for i in range(400)
    ).replace("0.5,", ",", 1)
    prepared = prepare(job(tmp_path, table, data={"stream": stream, "indicators": True}))
    assert [column.width for column in prepared.signature.inputs] == [1, 2]
    rows = [[1.5, None], [1.5, 3], [2.5, 4]]
    features = prepared.signature.encode(rows, dtype=np.float64)
    assert features[:, 2].tolist() == [1, 0, 0]
    np.testing.assert_array_equal(prepared.signature.encode(rows[1:], dtype=np.float64), features[1:])
    train_and_evaluate(prepared)
    off = prepare(job(tmp_path, table, data={"stream": stream}))
    assert [column.width for column in off.signature.inputs] == [1, 1]


def recipe_table(count: int) -> str:
    return "x,z,when,y\n" + "".join(
        f"{i % 17},{i % 5},2024-{1 + i % 12:02}-01,{i % 23 + i % 17}\n" for i in range(count)
    )


@pytest.mark.parametrize("count", [30, 200])
def test_a_job_without_network_and_training_is_prepared_as_train_init_writes_it(tmp_path: Path, count: int) -> None:
    (tmp_path / "t.csv").write_text(recipe_table(count), encoding="utf-8")
    written = tomllib.loads(draft_job(tmp_path / "t.csv", "y", tmp_path / "t.toml").text)
    written["train"] |= {"seed": 3}
    sections = ("model", "data", "split")
    bare = {name: written[name] for name in sections} | {"train": {"seed": 3}}
    expected = prepare(from_dict(written, tmp_path))
    found = prepare(from_dict(bare, tmp_path))
    assert found.job.settings == expected.job.settings
    assert (found.job.settings.train.ensemble is None) == (count == 30)
    again = prepare(from_dict(found.identity["job"], tmp_path))
    assert again.job.settings == found.job.settings


def test_the_recipe_has_no_ensemble_for_rows_by_time_and_trains_a_network_of_the_job_as_the_fast_one(
    tmp_path: Path,
) -> None:
    (tmp_path / "t.csv").write_text(recipe_table(200), encoding="utf-8")
    content: dict[str, Any] = {"model": {"name": "m"}, "data": {"path": "t.csv", "target": "y"}}
    by_time = prepare(from_dict({**content, "split": {"by": "time", "column": "when"}}, tmp_path)).job.settings
    assert (by_time.train.optimizer, by_time.train.ensemble) == ("adamw", None)
    own = prepare(from_dict({**content, "network": {"layers": [4, "tanh"]}}, tmp_path)).job.settings
    fast = tomllib.loads(draft_job(tmp_path / "t.csv", "y", tmp_path / "t.toml", fast=True).text)
    assert own.train == prepare(from_dict({**fast, "split": {}}, tmp_path)).job.settings.train
    assert (own.network.layers, own.network.parametrization) == ([4, "tanh"], None)
