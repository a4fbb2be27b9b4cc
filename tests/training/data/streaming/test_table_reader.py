"""Streamed CSV and Parquet files: what is read, and the errors of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.training.streams import job
from training.errors import DataError, JobError
from training.pipeline.job import from_dict, prepare


@pytest.mark.parametrize(
    ("content", "sections", "expected"),
    [
        ("size,kind\n1,a\n2,b\n3,a,b\n" + "4,a\n" * 30, {}, "line 4: expected 2 cells, as in the header, found 3"),
        (
            "size,kind\n" + "1,a\n2,b\n" * 6000 + "x,a\n" * 3 + "inf,a\n",
            {},
            "line 12002, column size: expected a finite number, found 'x'; 4 cells are like this, also 'inf' in line "
            "12005 (correct or empty such cells, or write kinds = { 'size' =",
        ),
        ("size,kind\n" + "1,a\n2,b\n" * 60 + "inf,a\n", {"data": {"kinds": {"size": "number"}}}, "expected a finite"),
        ("size,kind\n" + "1,a\n2,a\n" * 60, {}, "expected at least two classes, found only 'a'"),
        ("size,kind\n" + "1,\n2,\n" * 60, {"data": {"task": "classification"}}, "the target is missing in every row"),
        ("size,kind\n" + ",a\n,b\n" * 60, {}, "t.csv: no column has a value in the training rows"),
        ("size,kind\n" + "1,a\n,b\n" * 60, {"data": {"missing": "refuse"}}, "missing values: row 2"),
        ("size,kind\n" + "1,2.5\n2,2.5\n" * 60, {}, "t.csv: column kind: expected a target that varies, found 2.5"),
        ("size,kind\n", {}, "a header and no rows"),
        ("", {}, "the file is empty"),
        ("size,knd\n1,a\n", {}, "data.target: unknown column 'kind' (did you mean 'knd'?)"),
        ("size,kind\n" + "".join(f"1,t{i}\n" for i in range(3000)), {}, "too many classes: 3000 in 3000 rows"),
        ("size,kind\n" + "1,a\n1,b\n" * 6000 + "".join(f"1,{i}t\n" for i in range(1500)), {}, "too many classes: mor"),
        ("size,kind\n1,a\n2,b\n", {}, "split.test: 0.2 of 2 rows rounds to no row"),
        ("size,kind\n1,a\n2,b\n", {"train": {"batch_size": "all"}}, "train.batch_size: 'all' rows of a stream do not"),

    ],
)  # fmt: skip
def test_data_that_cannot_be_streamed_is_reported(tmp_path: Path, content: str, sections: Any, expected: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    sections = {**sections, "data": {"columns": ["size"], **sections.get("data", {})}}
    with pytest.raises((DataError, JobError)) as caught:
        prepare(job(tmp_path / "t.csv", **sections))
    assert expected in str(caught.value)


@pytest.mark.parametrize("header", ["size,kind", "\n\nsize,kind", '"size\nin mm","kind\r\n"', '\r\n"\rsize",kind'])
def test_a_header_ends_on_the_same_line_as_in_memory(tmp_path: Path, header: str) -> None:
    content = header + "\n" + "".join(f"{i}.5,{'ab'[i % 2]}\n" for i in range(60))
    (tmp_path / "t.csv").write_bytes(content.encode())
    data = {"path": "t.csv", "target": "kind"}
    streamed, in_memory = (
        prepare(from_dict({"model": {"name": "m"}, "data": {**data, "stream": stream}}, tmp_path))
        for stream in (True, False)
    )
    assert streamed.signature.names == in_memory.signature.names
    assert sum(streamed.sizes.values()) == sum(in_memory.sizes.values()) == 60


@pytest.mark.parametrize("stream", [True, False])
def test_damaged_parquet_is_reported(tmp_path: Path, stream: bool) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing else")
    content = {"model": {"name": "m"}, "data": {"path": "t.parquet", "target": "kind", "stream": stream}}
    with pytest.raises(DataError, match="not a readable Parquet file"):
        prepare(from_dict(content, tmp_path))


@pytest.mark.parametrize("kind", ["csv", pa.string(), pa.large_string(), pa.dictionary(pa.int16(), pa.string())])
def test_a_missing_number_may_contain_spaces_as_in_memory(tmp_path: Path, kind: Any) -> None:
    cells = [(" ", " NA", "null ", "?", f" {i}.5 ", f"{i}")[i % 6] for i in range(600)]
    kinds = [f"{'ab'[i % 2]}" for i in range(600)]
    (tmp_path / "t.csv").write_text("size,kind\n" + "".join(f"{a},{b}\n" for a, b in zip(cells, kinds, strict=True)))
    columns = {"target": "kind", "columns": ["size"]}
    if kind == "csv":
        found = prepare(job(tmp_path / "t.csv", data=columns))
    else:
        content = pa.table({"size": pa.array(cells).cast(kind), "kind": kinds})
        parquet.write_table(content, tmp_path / "t.parquet")
        found = prepare(job(tmp_path / "t.parquet", data=columns))
    held = dict(zip(found.dataset.lines or [], found.dataset.inputs["size"], strict=True))
    for row, value in held.items():
        np.testing.assert_equal(value, np.nan if (row - 1) % 6 < 4 else row - 1 + 0.5 * ((row - 1) % 6 == 4))
    assert found.signature.inputs[0].statistics["missing"] + np.isnan(list(held.values())).sum() == 400


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"a": [1.0] * 30, "": [2.0] * 30}, "column 2 has no name"),
        ({"a": pa.array([1.0] * 30), "b": pa.array([[5]] * 30)}, "column b: "),
        ({"a": ["1"] * 29 + ["x"]}, "column a: Failed to parse string: 'x'"),
        (
            {"a": [1.0] * 27 + [float("inf")] * 2 + [float("-inf")]},
            "row 28, column a: expected a finite number, found inf; 3 cells are like this, also -inf in row 30",
        ),
    ],
)
def test_unsupported_columns_of_parquet_are_reported(tmp_path: Path, columns: Any, expected: str) -> None:
    parquet.write_table(pa.table({**columns, "kind": ["u", "v"] * 15}), tmp_path / "t.parquet")
    names = [name for name in columns if name]
    with pytest.raises(DataError) as caught:
        prepare(job(tmp_path / "t.parquet", data={"columns": names, "kinds": dict.fromkeys(names, "number")}))
    assert expected in str(caught.value)


def test_duplicate_column_names_of_parquet_are_rejected(tmp_path: Path) -> None:
    values = pa.array([1.0, 2.0])
    parquet.write_table(pa.Table.from_arrays([values, values], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="two columns are named 'a'"):
        prepare(job(tmp_path / "t.parquet"))


def test_nested_columns_and_the_index_of_pandas_are_ignored_with_a_note(tmp_path: Path) -> None:
    odd = {"tags": [[1]] * 200, "raw": [b"x"] * 200, "__index_level_0__": list(range(200))}
    content = pa.table({"size": np.arange(200.0), **odd, "kind": ["u", "v"] * 100})
    parquet.write_table(content, tmp_path / "t.parquet")
    plain = {"model": {"name": "m"}, "data": {"path": "t.parquet", "target": "kind"}}
    prepared = prepare(from_dict(plain, tmp_path))
    assert prepared.signature.names == ("size",)
    assert any(note.endswith("tags, raw, __index_level_0__") for note in prepared.notes)
    with pytest.raises(DataError, match="column tags: expected numbers or strings, found lists"):
        prepare(job(tmp_path / "t.parquet", data={"columns": ["size", "tags"]}))


@pytest.mark.parametrize(("package", "suffix"), [("pyarrow", "parquet"), ("pyarrow", "arrow"), ("openpyxl", "xlsx")])
def test_without_an_extra_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, suffix: str
) -> None:
    (tmp_path / f"t.{suffix}").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(DataError, match=rf"requires {package}, which is not installed \(pip install '{package}>="):
        prepare(job(tmp_path / f"t.{suffix}"))


@pytest.mark.parametrize("stream", [False, True])
def test_ragged_rows_are_read_and_noted_in_memory_and_streamed(tmp_path: Path, stream: bool) -> None:
    rows = "".join(f"{i % 7},{'ab'[i % 2]},{'uv'[i % 3 % 2]}\n" for i in range(90)) + "3\n5,a\n" + "1,b,u,v\n" * 7
    (tmp_path / "t.csv").write_text("size,kind,shape\n" + rows)
    data = {"path": "t.csv", "target": "kind", "stream": stream, "long_rows": "drop"}
    content = {"model": {"name": "m"}, "data": data, "train": {"epochs": 1}, "network": {"layers": [4, "tanh"]}}
    prepared = prepare(from_dict(content, tmp_path))
    short = "2 rows have fewer cells than the header, and the cells at their end count as missing: lines 92, 93"
    assert [note for note in prepared.notes if "fewer cells" in note] == [short]
    left_out = "left out 7 rows with more cells than the header: lines 94, 95, 96, 97, 98 and 2 more"
    assert [note for note in prepared.notes if "left out" in note] == [left_out]
    assert sum(prepared.sizes.values()) == 91  # the short row without a target is ignored
    assert prepared.signature.inputs[1].fill == "u"  # of the row that ends after two cells
