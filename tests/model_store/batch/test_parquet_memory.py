"""Columns that a batch job keeps take memory in proportion to their file."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from model_store.batch import parquet_memory, scoring
from model_store.batch.parquet_memory import plain_tables, rows_of_batch, shared_texts
from model_store.tables.arrow_file import ArrowFile
from model_store.tables.formats import open_table
from model_store.tables.options import TableOptions

LENGTH, ROWS = 1 << 18, 1200  # 315 MB


def write(folder: Path, column: Any, **options: Any) -> Path:
    """Write rows of the model `chess`, and a column to keep."""
    table = pa.table({"age": [30.0] * len(column), "town": ["Bath"] * len(column), "k": column})
    parquet.write_table(
        table, folder / "rows.parquet", compression="zstd", dictionary_pagesize_limit=1 << 24, **options
    )
    return folder / "rows.parquet"


def opened(path: Path) -> ArrowFile:
    table = open_table(path.name, lambda: path.open("rb"), TableOptions())
    assert isinstance(table, ArrowFile)
    return table


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.string(), pa.binary(LENGTH)], ids=str)
def test_a_small_file_of_long_values_is_an_error(models: Any, tmp_path: Path, kind: Any) -> None:
    path = write(tmp_path, pa.repeat(pa.scalar(b"x" * LENGTH, pa.binary()).cast(kind), ROWS))
    assert path.stat().st_size < 2000
    result = models("predict", "chess", str(path), "--keep-all", "--output", f"{tmp_path}/out/", code=3)
    assert "rows.parquet row group 0 column k: expected " in result.stderr
    assert f" {LENGTH * ROWS // 1000}" in result.stderr
    assert not list((tmp_path / "out").glob("part-*"))


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()], ids=str)
def test_rows_share_the_bytes_of_a_dictionary(tmp_path: Path, kind: Any) -> None:
    table = opened(write(tmp_path, pa.array([b"\xff" * 1000] * 500, kind)))
    (batch,) = table.batches(["k"], 1000, [0])
    assert batch.nbytes < 4000


def test_a_list_of_many_numbers_in_a_small_file_is_an_error(models: Any, tmp_path: Path) -> None:
    numbers = pa.ListArray.from_arrays(pa.array(range(0, 70_000_001, 70_000), pa.int32()), pa.repeat(0.0, 70_000_000))
    path = write(tmp_path, numbers)
    result = models("predict", "chess", str(path), "--keep", "k", "--output", f"{tmp_path}/out/", code=3)
    assert "column k: expected values that differ, found 5600000" in result.stderr


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (["x"], pa.list_(pa.string())),
        ([b"x"], pa.large_list(pa.binary())),
        ({"a": "x"}, pa.struct([("a", pa.string())])),
        ([("x", 1)], pa.map_(pa.string(), pa.int8())),
        ([{"a": [b"x"]}], pa.list_(pa.struct([("a", pa.list_(pa.binary()))]))),
    ],
    ids=str,
)
def test_texts_and_bytes_in_other_types_are_not_kept(models: Any, tmp_path: Path, value: Any, kind: Any) -> None:
    path = write(tmp_path, pa.array([value] * 3, kind))
    result = models("predict", "chess", str(path), "--keep-all", "--output", f"{tmp_path}/out/", code=3)
    assert "rows.parquet column k: texts or bytes within lists, maps, structs" in result.stderr
    assert "name the columns to keep in --keep" in result.stderr
    assert not (tmp_path / "out").exists()
    models("predict", "chess", str(path), "--keep", "age", "--output", f"{tmp_path}/out/")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"\xff", None, b"\x00\x01"], pa.binary()),
        pa.array([b"\xff\x01", None, b"\x00\x01"], pa.binary(2)),
        pa.array([uuid.UUID(int=1).bytes, None, uuid.UUID(int=2).bytes], pa.uuid()),
        pa.array([[1, 2], None, []], pa.list_(pa.int32())),
        pa.array([{"a": 1.5}, None, {"a": None}], pa.struct([("a", pa.float64())])),
        pa.array([[(1, 2)], None, []], pa.map_(pa.int8(), pa.int8())),
        pa.array([True, None, False]),
        pa.array([None, None, None]),
        pa.array(["a", None, "a"]).dictionary_encode(),
        pa.array(["é", None, ""], pa.large_string()),
    ],
    ids=lambda column: str(column.type),
)
def test_columns_of_all_other_types_are_kept(models: Any, tmp_path: Path, column: Any) -> None:
    models("predict", "chess", str(write(tmp_path, column)), "--keep", "k", "--output", f"{tmp_path}/out/")
    found = parquet.read_table(tmp_path / "out" / "part-000000.parquet").column("k")
    assert found.to_pylist() == column.to_pylist()


def test_a_batch_of_wide_rows_has_few_of_them(tmp_path: Path) -> None:
    values = [i.to_bytes(2, "big") * 25_000 for i in range(1000)]  # 50 MB that compress well
    path = write(tmp_path, pa.array(values, pa.binary()), use_dictionary=False)
    assert path.stat().st_size < 1 << 20
    table = opened(path)
    assert 600 < rows_of_batch(table, ["age", "k"], 0, 16_384) < 700
    assert rows_of_batch(table, ["age"], 0, 16_384) == 16_384


def test_different_values_that_compress_well_are_an_error(models: Any, tmp_path: Path) -> None:
    values = [i.to_bytes(2, "big") * 50_000 for i in range(1000)]
    path = write(tmp_path, pa.array(values, pa.binary()), use_dictionary=False)
    assert path.stat().st_size < 1 << 20
    result = models("predict", "chess", str(path), "--keep-all", "--output", f"{tmp_path}/out/", code=3)
    assert "row group 0 column k: expected values that differ, found 100" in result.stderr
    models("predict", "chess", str(path), "--output", f"{tmp_path}/other/")


def test_texts_that_are_written_as_deltas_are_an_error_with_its_fix(models: Any, tmp_path: Path) -> None:
    path = write(tmp_path, pa.array(["a", "ab"]), use_dictionary=False, column_encoding={"k": "DELTA_BYTE_ARRAY"})
    result = models("predict", "chess", str(path), "--keep", "k", "--output", f"{tmp_path}/out/", code=3)
    assert "write the file again, with dictionaries or plain values" in result.stderr


def test_repeated_values_are_written_a_few_megabytes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_memory, "_BATCH_BYTES", 1000)
    codes = pa.array([0, 1, None, 2] * 50, pa.int32())
    column = pa.DictionaryArray.from_arrays(codes, pa.array(["x" * 100, "y" * 300, "z" * 2000]))
    table = pa.table({"k": column, "p": range(200)})
    pieces = list(plain_tables(table))
    assert max(sum(len(text or "") for text in piece["k"].to_pylist()) for piece in pieces) == 2000
    assert all(piece.schema == pieces[0].schema for piece in pieces)
    assert pa.concat_tables(pieces).to_pylist() == table.to_pylist()
    (empty,) = plain_tables(table.slice(0, 0))
    assert empty.schema == pieces[0].schema


def test_texts_of_workbooks_and_arrow_files_are_shared_by_rows() -> None:
    texts = shared_texts(["long"] * 1000 + [""])
    assert texts.dictionary.to_pylist() == ["long", ""]
    assert texts.to_pylist() == ["long"] * 1000 + [""]


def test_the_same_rows_are_written_with_small_batches(
    models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, pa.array([f"{i % 7}" * (i % 5) for i in range(100)]))
    models("predict", "chess", str(path), "--keep-all", "--output", f"{tmp_path}/one/")
    monkeypatch.setattr(parquet_memory, "_BATCH_BYTES", 50)
    monkeypatch.setattr(scoring, "_ROW_GROUP_BYTES", 100)
    models("predict", "chess", str(path), "--keep-all", "--output", f"{tmp_path}/many/")
    one, many = (parquet.ParquetFile(tmp_path / name / "part-000000.parquet") for name in ("one", "many"))
    assert (one.num_row_groups, many.num_row_groups > 10) == (1, True)
    assert one.read().equals(many.read())
