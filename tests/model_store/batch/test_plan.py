"""The plan of a batch job: its parts, their names, and which other plans it accepts in its folder."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from functools import reduce
from operator import getitem
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from model_store.batch.plan import BatchOptions, Plan, ScoredModel, make_plan
from model_store.errors import ConflictError, InputError, StoreError
from model_store.storage.input_files import list_input_files, matches
from model_store.tables.options import TableOptions

MODEL = ScoredModel("chess", 2, "ab" * 32)


def plan_of(*patterns: object, options: BatchOptions | None = None) -> Plan:
    files = list_input_files(map(str, patterns))
    return make_plan(MODEL, files, options or BatchOptions(), lambda table: None)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "more").mkdir(parents=True)
    table = pa.table({"age": range(10), "town": ["Bath"] * 10})
    parquet.write_table(table, folder / "b.parquet", row_group_size=4)
    parquet.write_table(table, folder / "more" / "c.parquet", row_group_size=10)
    (folder / "a.csv").write_text("age,town\n" + "30,Bath\n" * 20)
    (folder / "_log.csv").write_text("ignored\n")
    return folder


def test_files_are_found_by_name_folder_and_pattern(inputs: Path) -> None:
    def names(*patterns: str) -> list[str]:
        return [str(Path(file.location).relative_to(inputs)) for file in list_input_files(patterns)]

    assert names(f"{inputs}") == names(f"{inputs}/*") == ["a.csv", "b.parquet"]
    assert names(f"{inputs}/**/*.parquet") == ["b.parquet", "more/c.parquet"]
    assert names(f"{inputs}/b.parquet", f"{inputs}/[ab].*") == ["a.csv", "b.parquet"]
    assert names(f"{inputs}/_log.csv") == ["_log.csv"]
    with pytest.raises(InputError, match="expected files, found none"):
        names(f"{inputs}/*.parq")


@pytest.mark.parametrize(
    ("pattern", "location", "expected"),
    [
        ("s3://b/in/*.parquet", "s3://b/in/x.parquet", True),
        ("s3://b/in/*.parquet", "s3://b/in/y/x.parquet", False),
        ("s3://b/**/*.parquet", "s3://b/in/y/x.parquet", True),
        ("s3://b/in/", "s3://b/in/x.parquet", True),
        ("s3://b/in/?[!x].csv", "s3://b/in/ay.csv", True),
        ("s3://b/in/?[!x].csv", "s3://b/in/ax.csv", False),
        ("s3://b/in/*", "s3://b/in/_SUCCESS", False),
    ],
)
def test_patterns_of_objects(pattern: str, location: str, expected: bool) -> None:
    assert matches(pattern, location) is expected


def test_a_row_group_a_range_of_bytes_and_another_file_are_a_part_each(inputs: Path) -> None:
    plan = plan_of(inputs, options=BatchOptions(range_bytes=64))
    parts = list(plan.parts())
    assert [part.key for part in parts] == [f"part-{i:06}.parquet" for i in range(6)]
    assert [part.span for part in parts[:3]] == [(0, 64), (64, 128), (128, 169)]
    assert [(part.row_group, part.first_row) for part in parts[3:]] == [(0, 0), (1, 4), (2, 8)]
    assert parts[4].location == f"{inputs}/b.parquet row group 1"
    assert parts[1].location == f"{inputs}/a.csv bytes 64 to 128"
    assert plan_of(f"{inputs}/a.csv").part_count == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", gzip.compress(b"age,town\n" + os.urandom(200).hex().encode() + b",Bath\n")),
        ("a.csv", "age,town\n30,Bath\n".encode("utf-16") * 20),
        ("a.csv", b'age,town\n30,"Ba\nth"\n' * 20),
        ("a.jsonl", b'{"age": 30, "town": "Bath"}\n' * 20),
    ],
    ids=["compressed", "utf-16", "line-breaks-in-cells", "json-lines"],
)
def test_text_that_ranges_of_bytes_could_break_is_one_part(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert plan_of(tmp_path / name, options=BatchOptions(range_bytes=64)).part_count == 1


def test_whole_files_are_one_part(inputs: Path) -> None:
    assert plan_of(inputs / "a.csv", options=BatchOptions(range_bytes=64, whole_files=True)).part_count == 1


def test_a_plan_equals_what_its_json_says(inputs: Path) -> None:
    options = BatchOptions(("größe",), "absent", TableOptions(separator="\t"), range_bytes=64)
    for given in (options, BatchOptions(None)):
        plan = plan_of(inputs, options=given)
        assert Plan.from_json(plan.to_json(), "out") == plan
    with pytest.raises(StoreError, match=r"out: expected the plan of a batch job.*choose another output folder"):
        Plan.from_json(b'{"format": 2}', "out")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("model", "digest"), 5),
        (("model", "name"), None),
        (("model", "version"), True),
        (("options",), []),
        (("options", "keep"), [["id"]]),
        (("options", "header"), ["present"]),
        (("options", "table"), None),
        (("options", "table", "decimal"), {}),
        (("options", "whole_files"), 1),
        (("files",), 3),
        (("files", 0), None),
        (("files", 0, "location"), None),
        (("files", 0, "location"), ["a.csv"]),
        (("files", 0, "size"), 1.5),
        (("files", 0, "row_groups"), ["7"]),
        (("files", 0, "range_ends"), 7),
    ],
    ids=str,
)
def test_a_value_of_another_type_in_a_plan_is_an_error_of_the_plan(
    inputs: Path, path: tuple[str | int, ...], value: object
) -> None:
    plain = json.loads(plan_of(inputs).to_json())
    *parents, last = path
    reduce(getitem, parents, plain)[last] = value
    with pytest.raises(StoreError, match=r"out: expected the plan of a batch job.*choose another output folder"):
        Plan.from_json(json.dumps(plain).encode(), "out")


def test_a_plan_names_how_another_one_differs(inputs: Path) -> None:
    plan = plan_of(inputs)
    plan.check_equal(plan_of(inputs), "out")
    other = replace(plan, model=ScoredModel("chess", 3, "cd" * 32))
    with pytest.raises(ConflictError, match=r"expected predictions of chess/3 .*continue it with chess/2, or choose"):
        other.check_equal(plan, "out")
    with pytest.raises(ConflictError, match=r"expected decimal = ',', found None; use the same options"):
        plan_of(inputs, options=BatchOptions(table=TableOptions(decimal=","))).check_equal(plan, "out")
    (inputs / "a.csv").write_text("age,town\n31,Bath\n")
    with pytest.raises(ConflictError, match=r"a\.csv has changed since the job began"):
        plan_of(inputs).check_equal(plan, "out")
    (inputs / "d.csv").write_text("age,town\n")
    with pytest.raises(ConflictError, match=r"expected the 1 input files of the job, found 2: .*d\.csv is new"):
        plan_of(inputs / "a.csv", inputs / "d.csv").check_equal(plan_of(inputs / "a.csv"), "out")
    with pytest.raises(ConflictError, match=r"found 1: .*d\.csv is no longer among them"):
        plan_of(inputs / "a.csv").check_equal(plan_of(inputs / "a.csv", inputs / "d.csv"), "out")


def test_a_file_that_is_no_table_is_an_error(inputs: Path) -> None:
    (inputs / "notes.md").write_text("hello")
    (inputs / "bad.parquet").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.md: expected a table"):
        plan_of(inputs)
    with pytest.raises(InputError, match=r"bad\.parquet: not a readable Parquet file"):
        plan_of(inputs / "bad.parquet")


def test_a_file_that_changes_after_it_was_listed_is_not_read(inputs: Path) -> None:
    (file,) = list_input_files([f"{inputs}/a.csv"])
    file.open().close()
    (inputs / "a.csv").write_text("age,town\n")
    with pytest.raises(StoreError, match="the file has changed"):
        file.open()
