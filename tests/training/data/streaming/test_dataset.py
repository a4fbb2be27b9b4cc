"""Streamed jobs: they learn what jobs in memory learn, by the same rules, and repeat bit for bit."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import Result
from pyarrow import csv, ipc, parquet

from model_store.registry.store import open_store
from model_store.tables.arrow_file import ArrowFile
from tests.training.streams import ROWS, everything, job, table
from training.config.settings import DataSection
from training.data.fitting.statistics import NumericSummary, summarize
from training.data.streaming import dataset, record_file, row_draw, source
from training.data.tables import open_job_table
from training.errors import DataError
from training.pipeline.job import from_dict, load, prepare, train_and_evaluate


def test_a_streamed_job_is_as_accurate_as_one_in_memory(path: Path) -> None:
    outcome = train_and_evaluate(prepare(job(path)))
    assert outcome.metrics["accuracy"] > 0.95 > outcome.baseline["accuracy"]
    assert outcome.model.training["job"]["data"]["stream"] is True
    assert sum(outcome.model.training["split"].values()) == outcome.model.training["data"]["rows"] == ROWS


def test_a_regression_can_be_streamed(path: Path) -> None:
    outcome = train_and_evaluate(prepare(job(path, data={"target": "price"}, train={"learning_rate": 0.02})))
    assert outcome.metrics["targets"]["price"]["r2"] > 0.9
    assert outcome.baseline["answer"] == pytest.approx([np.mean(table()["price"])], rel=0.01)


def test_the_signature_equals_that_of_the_rows_in_memory(path: Path, tmp_path: Path) -> None:
    """All statistics are equal to the bit, except mean and deviation, which are summed in another order."""
    prepared = prepare(job(path, split={"validation": 0}))
    learned = {name: [] for name in ("size", "weight", "colour", "kind")}
    kept = set(prepared.dataset.lines or [])
    for row, cells in enumerate(zip(*(table()[name] for name in learned), strict=True), 1):
        if row not in kept:
            for values, cell in zip(learned.values(), cells, strict=True):
                values.append(cell)
    csv.write_csv(pa.table(learned), tmp_path / "learned.csv")
    expected = prepare(job(tmp_path / "learned.csv", data={"stream": False}, split={"test": 0, "validation": 0}))
    assert len(prepared.samples) == len(expected.samples)
    for mine, theirs in zip(prepared.signature.inputs, expected.signature.inputs, strict=True):
        if mine.kind == "category":
            assert mine == theirs
            continue
        assert mine.fill == theirs.fill
        for key, value in theirs.statistics.items():
            assert mine.statistics[key] == (pytest.approx(value, rel=1e-12) if key in {"mean", "std"} else value)
    x, y = everything(prepared)
    encoded = prepared.signature.encode_columns(expected.dataset.inputs)
    mine, theirs = np.lexsort(x.T), np.lexsort(encoded.T)  # candidates that are not held out come late
    assert np.array_equal(x[mine], encoded[theirs])
    assert np.allclose(x[mine], expected.x_training[theirs], atol=1e-6)
    assert np.array_equal(y[mine], expected.samples.y[theirs])


def test_summaries_merge(path: Path) -> None:
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(size) * 5 + 100 for size in (1, 10, 1000, 3)]
    joined: NumericSummary = summarize(values[0])
    for more in values[1:]:
        joined = joined.merge(summarize(more))
    whole = summarize(np.concatenate(values))
    assert vars(joined) == pytest.approx(vars(whole), rel=1e-12)
    constant = summarize(np.full(3, 0.1)).merge(summarize(np.full(7, 0.1)))
    assert constant == summarize(np.full(10, 0.1))


@pytest.mark.slow
def test_the_same_job_gives_the_same_bytes_with_any_batch_size_of_the_source(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "models")
    digests = []
    for size in (1 << 12, 1 << 16):
        monkeypatch.setattr(source, "BATCH_BYTES", size)
        monkeypatch.setattr(source, "BATCH_ROWS", size >> 6)
        prepared = prepare(job(path))
        digests.append(([prepared.dataset.lines], prepared.sizes))
    assert digests[0] == digests[1]
    models = [store.publish("m", train_and_evaluate(prepare(job(path))).model).digest for _ in range(2)]
    assert models[0] == models[1]


def test_the_learning_rate_finder_uses_a_block(train: Callable[..., Result], path: Path) -> None:
    toml = path.with_suffix(".toml")
    toml.write_text(
        f'[model]\nname = "m"\n[data]\npath = "{path.name}"\ntarget = "kind"\nstream = true\n[train]\nepochs = 2\n'
    )
    assert train(toml, "--find-rate").exit_code == 0


def test_the_number_of_held_out_rows_is_limited(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_draw, "MAX_HELD_OUT_ROWS", 100)
    prepared = prepare(job(path))
    assert 90 <= prepared.sizes["test"] <= 100  # the number of rows of a CSV file is estimated
    assert 90 <= prepared.sizes["validation"] <= 100
    assert any("at most about 100 rows each are held out" in note for note in prepared.notes)


def test_deciles_of_many_rows_are_computed_from_a_sample(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = prepare(job(path)).signature.inputs[1].statistics["deciles"]
    monkeypatch.setattr(dataset, "MAX_SAMPLE_ROWS", 1000)
    found = prepare(job(path)).signature.inputs[1].statistics["deciles"]
    assert found != exact
    assert found == pytest.approx(exact, abs=0.05)


def test_the_command_checks_and_publishes_a_streamed_job(train: Callable[..., Result], path: Path) -> None:
    toml = path.with_suffix(".toml")
    toml.write_text(
        f'[model]\nname = "m"\n[data]\npath = "{path.name}"\ntarget = "kind"\nstream = true\n[train]\nepochs = 2\n'
    )
    shown = json.loads(train("check", toml, "--json").stdout)
    assert shown["columns"][0]["missing"] == sum(value is None for value in table()["size"])
    assert sum(shown["split"].values()) == sum(shown["target"]["classes"].values()) == ROWS
    found = train(toml)
    assert found.exit_code == 0, found.output
    assert f"{ROWS} rows" in found.stdout
    assert open_store(path.parent / "models").versions("m") == [1]


def test_a_category_only_in_held_out_rows_is_reported_with_its_row(tmp_path: Path) -> None:
    rows = "".join(
        f"{'rare' if i % 40 == 5 else 'often'}{i if i % 40 == 5 else ''},{'ab'[i % 2]}\n" for i in range(400)
    )
    (tmp_path / "t.csv").write_text("colour,kind\n" + rows)
    with pytest.raises(DataError, match=r"column colour: no training row has .* held-out row.*, such as .* in row \d+"):
        prepare(job(tmp_path / "t.csv", data={"columns": ["colour"]}))
    prepared = prepare(job(tmp_path / "t.csv", data={"columns": ["colour"], "unknown": "bucket"}))
    assert prepared.samples.constant_features[-1]


def test_large_files_are_streamed_by_default(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MIN_STREAM_BYTES", 1000)
    csv_job = job(path)
    prepared = prepare(from_dict({"model": {"name": "m"}, "data": {"path": path.name, "target": "kind"}}, path.parent))
    assert prepared.stream is not None
    assert csv_job.settings.data.stream is True


@pytest.mark.parametrize("name", ["t.parquet", "t.csv.gz", "t.csv.xz", "t.npz", "idx.gz"])
def test_a_small_file_that_expands_to_a_large_one_is_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """`train init` took 4 GB for a Parquet file of 1 MB with 150 million equal cells."""
    monkeypatch.setattr(dataset, "MIN_STREAM_BYTES", 2 << 20)
    path = tmp_path / name
    for rows, expected in ((1000, False), (400_000, True)):
        zeros = np.zeros(rows)
        if name == "t.parquet":
            parquet.write_table(pa.table({"a": zeros, "y": zeros}), path)
        elif name == "t.npz":
            np.savez_compressed(path, x=zeros[:, None], y=zeros)
        else:
            content = b"a,y\n" + b"0.0,0\n" * rows
            path.write_bytes(lzma.compress(content) if name.endswith(".xz") else gzip.compress(content))
        assert path.stat().st_size < 100_000
        assert dataset.is_streamed(DataSection(path=name), tmp_path) is expected
    path.write_bytes(path.read_bytes()[:50])
    assert dataset.is_streamed(DataSection(path=name), tmp_path) is False


def test_a_file_of_many_short_rows_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train init` took over 1.1 GB for 132 MB of rows of two digits, in 8 kB of bz2."""
    monkeypatch.setattr(dataset, "MIN_STREAM_BYTES", 2 << 20)
    digits = [str(digit) for digit in np.random.default_rng(0).integers(10, size=400_000)]
    for columns, expected in ((2, True), (10, False)):
        rows = [",".join(digits[i : i + columns]) for i in range(0, len(digits), columns)]
        (tmp_path / "t.csv.gz").write_bytes(gzip.compress("\n".join(["a,y", *rows]).encode(), 1))
        assert dataset.is_streamed(DataSection(path="t.csv.gz"), tmp_path) is expected


@pytest.mark.parametrize("name", ["t.csv.gz", "t.arrow"])
def test_a_file_that_is_compressed_a_hundredfold_is_streamed_earlier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """`train init` took 5.4 GB and 88 s of processor time for 15 kB of Arrow with 20 million equal rows."""
    monkeypatch.setattr(dataset, "MIN_STREAM_BYTES", 8 << 20)
    for numbers, expected in ((np.zeros(100_000), True), (np.random.default_rng(0).random(100_000), False)):
        if name == "t.arrow":
            table = pa.table({"y": numbers})
            with ipc.new_file(tmp_path / name, table.schema, options=ipc.IpcWriteOptions(compression="zstd")) as file:
                file.write_table(table)
        else:
            (tmp_path / name).write_bytes(gzip.compress("\n".join(["y", *map(str, numbers)]).encode(), 6))
        assert dataset.is_streamed(DataSection(path=name), tmp_path) is expected


@pytest.mark.parametrize("file_type", [ipc.new_file, ipc.new_stream])
def test_an_arrow_file_of_empty_columns_is_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_type: Any
) -> None:
    """The rows of an Arrow stream were not counted: 90 kB with 1,500 empty columns and a million rows took 6.5 GB."""
    monkeypatch.setattr(dataset, "MIN_STREAM_BYTES", 8 << 20)
    for rows, expected in ((100, False), (10_000, True)):
        table = pa.table({f"c{i}": pa.nulls(rows) for i in range(20)})
        with file_type(tmp_path / "t.arrow", table.schema) as written:
            written.write_table(table, max_chunksize=5000)
        file = open_job_table(tmp_path / "t.arrow", DataSection(path="t.arrow"))
        assert isinstance(file, ArrowFile)
        assert file.count_rows() == rows
        assert dataset.is_streamed(DataSection(path="t.arrow"), tmp_path) is expected


def test_a_full_temporary_directory_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record_file.os, "write", fails)
    with pytest.raises(DataError, match=r"No space left on device .set TMPDIR to a directory with more space"):
        prepare(job(path))


def test_an_example_can_be_streamed(examples: Path) -> None:
    outcome = train_and_evaluate(prepare(load(examples / "penguins.toml", {"data.stream": True, "train.epochs": 60})))
    assert outcome.metrics["accuracy"] > 0.9


@pytest.mark.parametrize("most", [200_000, 500])
def test_a_stream_without_test_rows_is_evaluated_on_training_rows(
    path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(dataset, "MAX_HELD_OUT_ROWS", most)
    prepared = prepare(job(path, split={"test": 0}))
    assert prepared.sizes == {"training": ROWS * 9 // 10, "validation": ROWS // 10, "test": 0}
    outcome = train_and_evaluate(prepared)
    assert outcome.metrics["of"] == "training rows"
    assert outcome.metrics["rows"] == min(ROWS * 9 // 10, most)
    assert outcome.metrics["accuracy"] > 0.95
    assert prepared.dataset.lines is not None
    evaluated = [prepared.dataset.lines[row] for row in prepared.split.training]
    validated = [prepared.dataset.lines[row] for row in prepared.split.validation]
    assert not set(evaluated) & set(validated)
