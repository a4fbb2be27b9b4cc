"""`models predict` with a folder as output: a batch job in one process, and in several with static shares."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from model_store.registry.store import Store
from tests.model_store.cli.conftest import read_json

TOWNS = ["Bath", "York", "York"]


def write_inputs(folder: Path, rows: int = 30, group: int = 7) -> Path:
    """Write a Parquet file with several row groups, and a CSV file with the same rows."""
    folder.mkdir(exist_ok=True)
    ages = [None if i % 5 == 0 else 20 + i / 4 for i in range(rows)]
    towns = [TOWNS[i % 3] for i in range(rows)]
    table = pa.table({"id": range(rows), "town": towns, "age": ages, "seen": [[i] for i in range(rows)]})
    parquet.write_table(table, folder / "rows.parquet", row_group_size=group)
    lines = [f"{i},{towns[i]},{'' if ages[i] is None else ages[i]}\n" for i in range(rows)]
    (folder / "rows.csv").write_text("id,town,age\n" + "".join(lines))
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def read_rows(folder: Path, *names: str) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("part-*.parquet"))
    return [row for path in paths for row in parquet.read_table(path, columns=list(names) or None).to_pylist()]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_each_row_has_the_prediction_of_the_model(models, store: Store, tmp_path: Path) -> None:
    folder, model = write_inputs(tmp_path / "in"), store.load("chess", 2)[1]
    rows = parquet.read_table(folder / "rows.parquet").to_pylist()
    expected = model.predict([[row["age"], row["town"]] for row in rows])
    for name in ("rows.parquet", "rows.csv"):
        out = tmp_path / f"out-{name}"
        result = models("predict", "chess/2", f"{folder}/{name}", "--output", f"{out}/", "--keep", "id", "--json")
        found = read_json(result)
        parts = 5 if name == "rows.parquet" else 1
        assert (found["version"], found["parts"], found["written"], found["rows"]) == (2, parts, parts, 30)
        assert found["filled"] == {"age": 6}
        assert "Warning: age: 6 missing values filled in" in result.stderr
        for i, (row, prediction) in enumerate(zip(read_rows(out), expected, strict=True)):
            assert int(row["id"]) == i
            assert row["chess"] == prediction["label"]
            assert {label: row[f"probability_{label}"] for label in ("no", "yes")} == prediction["probabilities"]
        assert (out / "_SUCCESS").exists()


def test_outputs_say_where_they_come_from_and_keep_the_types_of_columns(models, tmp_path: Path) -> None:
    folder = write_inputs(tmp_path / "in")
    models("predict", "chess/2", f"{folder}/*.parquet", "--output", f"{tmp_path}/out/", "--keep-all")
    schema = parquet.read_schema(tmp_path / "out" / "part-000001.parquet")
    assert schema.names == ["id", "town", "age", "seen", "chess", "probability_no", "probability_yes"]
    assert [str(schema.field(name).type) for name in ("id", "town", "age", "chess")] == [
        "int64", "string", "double", "string",
    ]  # fmt: skip
    origin = schema.metadata[b"forward_pass"].decode()
    for part in ('"name": "chess", "version": 2', '"digest": ', "rows.parquet", '"row_group": 1'):
        assert part in origin


def test_a_rerun_writes_only_the_parts_that_are_missing(models, tmp_path: Path) -> None:
    arguments = ("predict", "chess/2", f"{write_inputs(tmp_path / 'in')}/", "--output", f"{tmp_path}/out/", "--json")
    assert read_json(models(*arguments))["written"] == 6
    before, out = digests(tmp_path / "out"), tmp_path / "out"
    dates = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert read_json(models(*arguments))["written"] == 0
    for name in ("part-000002.parquet", "_SUCCESS"):
        (out / name).unlink()
    assert read_json(models(*arguments))["written"] == 1
    assert digests(out) == before
    changed = {path.name for path in out.iterdir() if path.stat().st_mtime_ns != dates[path.name]}
    assert changed == {"part-000002.parquet", "_SUCCESS"}


def test_static_shares_are_the_same_job(models, tmp_path: Path) -> None:
    folder = write_inputs(tmp_path / "in")
    models("predict", "chess/2", f"{folder}/", "--output", f"{tmp_path}/one/")
    for share in ("2/3", "0/3", "1/3"):
        assert not (tmp_path / "many" / "_SUCCESS").exists()
        found = models("predict", "chess/2", f"{folder}/", "--output", f"{tmp_path}/many/", "--part", share, "--json")
        assert read_json(found)["written"] == 2
    assert digests(tmp_path / "many") == digests(tmp_path / "one")


def test_relative_paths_are_the_same_job_as_absolute_ones(models, tmp_path: Path, monkeypatch) -> None:
    write_inputs(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    assert "Wrote 6 parts of 6" in models("predict", "chess/2", "in/*.*", "--output", "out/").stderr
    monkeypatch.chdir(tmp_path / "in")
    assert "Wrote 0 parts of 6" in models("predict", "chess/2", "*.*", "--output", f"{tmp_path}/out").stderr


def test_another_model_and_changed_inputs_are_refused(models, tmp_path: Path) -> None:
    folder = write_inputs(tmp_path / "in")
    arguments = (f"{folder}/", "--output", f"{tmp_path}/out/")
    models("predict", "chess/2", *arguments)
    before = digests(tmp_path / "out")
    message = models("predict", "chess", *arguments, code=5).stderr
    assert "expected predictions of chess/3" in message
    assert "continue it with chess/2, or choose another folder for --output" in message
    assert (
        "expected keep = ('id',), found ()" in models("predict", "chess/2", *arguments, "--keep", "id", code=5).stderr
    )
    (folder / "rows.csv").write_text("town,age\nBath,30\n")
    assert "rows.csv has changed since the job began" in models("predict", "chess/2", *arguments, code=5).stderr
    assert digests(tmp_path / "out") == before


def test_a_part_with_invalid_rows_is_named_and_the_others_are_written(models, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    towns = ["Bath"] * 10
    towns[6] = "Bth"
    parquet.write_table(pa.table({"age": range(10), "town": towns}), folder / "rows.parquet", row_group_size=4)
    (folder / "rows.csv").write_text("age,town\n30,Bath\nold,York\n")
    arguments = ("predict", "chess/2", f"{folder}/", "--output", f"{tmp_path}/out/")
    for written in (2, 0):
        message = models(*arguments, code=3).stderr
        assert f"Wrote {written} parts of 4" in message
        assert "2 of 4 parts have no output yet" in message
        assert "rows.csv line 3, column age: expected a number, found 'old'" in message
        assert "rows.parquet row group 1 row 7, column town: expected one of Bath, York; found 'Bth'" in message
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        "_job.json", "part-000001.parquet", "part-000003.parquet",
    ]  # fmt: skip


@pytest.mark.parametrize("header", [True, False])
def test_ranges_of_a_text_file_are_read_as_the_whole_file(models, tmp_path: Path, monkeypatch, header: bool) -> None:
    monkeypatch.setattr("model_store.batch.plan.RANGE_BYTES", 100)
    folder, ages = tmp_path / "in", [f"{20 + i / 4:.2f}" for i in range(100)]
    folder.mkdir()
    rows = [f"{age};{town}" for age, town in zip(ages, TOWNS * 34, strict=False)]
    text = "\n".join(["age;town;", *(f"{row};".replace(".", ",") for row in rows)] if header else rows)
    (folder / "rows.csv").write_text(text)
    arguments = ("predict", "chess/2", f"{folder}/rows.csv", "--keep-all", "--output")
    assert read_json(models(*arguments, f"{tmp_path}/parts/", "--json"))["parts"] > 10
    models(*arguments, f"{tmp_path}/whole/", "--whole-files")
    assert len(list((tmp_path / "whole").glob("part-*"))) == 1
    found = read_rows(tmp_path / "parts")
    assert found == read_rows(tmp_path / "whole")
    assert (len(found), found[1]["age"], found[1]["town"]) == (100, "20.25", "York")


def test_a_cell_with_a_line_break_across_ranges_is_an_error_not_other_rows(
    models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_store.batch.plan.RANGE_BYTES", 40_000)
    lines = ["30,Bath,plain\n"] * 5000
    lines[4000] = '30,Bath,"' + "broken\n" * 10_000 + '"\n'
    (tmp_path / "rows.csv").write_text("age,town,note\n" + "".join(lines))
    arguments = ("predict", "chess/2", f"{tmp_path}/rows.csv", "--output")
    message = models(*arguments, f"{tmp_path}/out/", code=3).stderr
    assert "use --whole-files" in message
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    models(*arguments, f"{tmp_path}/whole/", "--whole-files")
    assert len(read_rows(tmp_path / "whole")) == 5000


def test_rows_that_are_shorter_than_the_header_are_noted(models, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("model_store.batch.plan.RANGE_BYTES", 40)
    (tmp_path / "rows.csv").write_text("town,note,age\n" + "Bath,x,30\n" * 6 + "York,y\n" + "Bath,x,30\n" * 2)
    result = models("predict", "chess/2", f"{tmp_path}/rows.csv", "--output", f"{tmp_path}/out/")
    assert result.stderr.count("fewer cells than the header") == 1
    assert "rows.csv bytes 40 to 80: 1 row has fewer cells than the header" in result.stderr
    assert len(read_rows(tmp_path / "out")) == 9


def test_empty_inputs_have_empty_outputs(models, tmp_path: Path) -> None:
    table = pa.table({"age": pa.array([], pa.float64()), "town": pa.array([], pa.string())})
    with parquet.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "b.csv").write_text("age,town\n")
    found = models("predict", "chess", f"{tmp_path}/*.*", "--output", f"{tmp_path}/out/", "--keep", "age", "--json")
    assert read_json(found)["rows"] == 0
    for path in (tmp_path / "out").glob("part-*"):
        assert parquet.read_schema(path).names == ["age", "chess", "probability_no", "probability_yes"]


def test_columns_are_checked_before_the_job_begins(models, tmp_path: Path) -> None:
    folder = write_inputs(tmp_path / "in")
    message = models("predict", "chess", f"{folder}/", "--output", f"{tmp_path}/out/", "--keep", "idd", code=3).stderr
    assert "no column 'idd' (did you mean 'id'?)" in message
    parquet.write_table(pa.table({"age": [1]}), folder / "z.parquet")
    message = models("predict", "chess", f"{folder}/", "--output", f"{tmp_path}/out/", code=3).stderr
    assert "z.parquet: expected a header with age, town; found no town" in message
    assert not (tmp_path / "out").exists()


def test_usage_errors(models, tmp_path: Path) -> None:
    folder = write_inputs(tmp_path / "in")
    csv, out = f"{folder}/rows.csv", f"{tmp_path}/out/"
    for arguments, expected in (
        (("--output", out, "--part", "3/3"), "expected a share such as 0/8"),
        (("--output", out, "--part", "0/3", "--cluster", "local"), "either --cluster or --part"),
        (("--output", out, "--cluster", "lokal"), "expected local, local:4 or an address"),
        (("--output", out, "--url", "http://127.0.0.1:1"), "a folder needs the store"),
        (("--output", out, "--keep", "id", "--keep-all"), "either --keep or --keep-all"),
        (("--output", f"{folder}/"), "choose another folder"),
        (("--cluster", "local"), "--cluster needs a folder as --output"),
        (("--part", "0/3", "--output", f"{tmp_path}/x.csv"), "--part needs a folder as --output"),
    ):
        files = [f"{folder}/"] if arguments == ("--output", f"{folder}/") else [csv]
        assert expected in models("predict", "chess", *files, *arguments, code=2).stderr
    message = models("predict", "chess", csv, csv, "--output", f"{tmp_path}/x.csv", code=2).stderr
    assert "Several tables" in message
    assert "Standard input has no parts" in models("predict", "chess", "-", "--output", out, code=2).stderr


IMPORTING = tuple(f"model_store.batch.{name}." for name in ("cluster", "job", "scoring", "encoding"))


def test_missing_extras_are_named(models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_inputs(tmp_path / "in")
    for package, arguments in (("distributed", ("--cluster", "local")), ("pyarrow", ())):
        for name in [name for name in sys.modules if f"{name}.".startswith((f"{package}.", *IMPORTING))]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
        arguments = (f"{folder}/rows.csv", "--output", f"{tmp_path}/out/", *arguments)
        message = models("predict", "chess", *arguments, code=2).stderr
        assert f"needs {package}; install it with: pip install" in message
        monkeypatch.undo()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
