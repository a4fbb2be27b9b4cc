"""Streams: jobs on files of any size learn what jobs in memory learn, by the same rules, and repeat to the bit."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import Result
from pyarrow import csv, parquet

from model_store.nn import Linear, Sequential, Tanh
from model_store.registry.store import open_store
from training import MSE, SGD, train
from training.data.fitting import NumericSummary, summarize
from training.data.streaming import dataset, record_file, source
from training.engine.checkpoint import Checkpoint
from training.engine.loop import TrainingState
from training.errors import DataError, JobError
from training.pipeline import streaming_loader
from training.pipeline.job import PreparedJob, from_dict, load, prepare, train_and_evaluate

ROWS = 5000


def table(rows: int = ROWS) -> dict[str, list[Any]]:
    """Numbers, texts, missing values, and a target that they tell."""
    rng = np.random.default_rng(3)
    size, weight = rng.standard_normal(rows) * 3 + 10, rng.random(rows)
    colour = rng.integers(0, 3, rows)
    return {
        "size": [None if i % 50 == 7 else float(v) for i, v in enumerate(size.round(3))],
        "weight": weight.round(6).tolist(),
        "colour": [None if i % 70 == 3 else ("red", "white", "blue, pale")[c] for i, c in enumerate(colour)],
        "kind": [("rose", "lily")[int(v + c > 10.5 + w)] for v, c, w in zip(size, colour, weight, strict=True)],
        "price": (size * 2 + colour + rng.standard_normal(rows) / 10).round(4).tolist(),
    }


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces so small that a few thousand rows are many of them."""
    monkeypatch.setattr(record_file, "CHUNK_ROWS", 32)
    monkeypatch.setattr(streaming_loader, "BLOCK_ROWS", 512)
    monkeypatch.setattr(streaming_loader, "PIECE_VALUES", 700)
    monkeypatch.setattr(source, "BATCH_BYTES", 1 << 14)
    monkeypatch.setattr(source, "BATCH_ROWS", 700)


@pytest.fixture(params=["csv", "parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The table as a file."""
    found = tmp_path / f"t.{request.param}"
    (csv.write_csv if request.param == "csv" else parquet.write_table)(pa.table(table()), found)
    return found


def job(path: Path, **sections: dict[str, Any]) -> Any:
    content: dict[str, Any] = {
        "model": {"name": "m"},
        "data": {"path": path.name, "target": "kind", "columns": ["size", "weight", "colour"], "stream": True},
        "train": {"epochs": 4, "batch_size": 50, "learning_rate": 0.2},
    }
    for name, keys in sections.items():
        content[name] = {**content.get(name, {}), **keys}
    return from_dict(content, path.parent)


def everything(prepared: PreparedJob) -> tuple[np.ndarray, np.ndarray]:
    """All training rows of a stream, in their order."""
    found = [(x.copy(), y.copy()) for x, y, _, _ in prepared.samples.epoch_blocks(TrainingState(Sequential([])), 50)]
    return np.concatenate([x for x, _ in found]), np.concatenate([y for _, y in found])


def test_a_stream_learns_as_well_as_memory_does(path: Path) -> None:
    outcome = train_and_evaluate(prepare(job(path)))
    assert outcome.metrics["accuracy"] > 0.95 > outcome.baseline["accuracy"]
    assert outcome.model.training["job"]["data"]["stream"] is True
    assert sum(outcome.model.training["split"].values()) == outcome.model.training["data"]["rows"] == ROWS


def test_a_regression_streams_too(path: Path) -> None:
    outcome = train_and_evaluate(prepare(job(path, data={"target": "price"}, train={"learning_rate": 0.02})))
    assert outcome.metrics["targets"]["price"]["r2"] > 0.9
    assert outcome.baseline["answer"] == pytest.approx([np.mean(table()["price"])], rel=0.01)


def test_the_signature_is_that_of_the_rows_in_memory(path: Path, tmp_path: Path) -> None:
    """Every statistic but the mean and deviation, whose sums are made in another order, to the bit."""
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
    assert np.array_equal(x, prepared.signature.encode_columns(expected.dataset.inputs))
    assert np.allclose(x, expected.x_training, atol=1e-6)
    assert np.array_equal(y, expected.samples.y)


def test_summaries_join(path: Path) -> None:
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(size) * 5 + 100 for size in (1, 10, 1000, 3)]
    joined: NumericSummary = summarize(values[0])
    for more in values[1:]:
        joined = joined.merge(summarize(more))
    whole = summarize(np.concatenate(values))
    assert vars(joined) == pytest.approx(vars(whole), rel=1e-12)
    constant = summarize(np.full(3, 0.1)).merge(summarize(np.full(7, 0.1)))
    assert constant == summarize(np.full(10, 0.1))


def test_an_epoch_has_every_row_once_and_in_another_order_each_time(path: Path) -> None:
    prepared = prepare(job(path))
    expected, _ = everything(prepared)
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(2):
        pieces = [
            x.copy() for x, _, order, first in prepared.samples.epoch_blocks(TrainingState(Sequential([]), rng), 50)
        ]
        assert len(pieces) > len(expected) / 512
        assert all(len(piece) % 50 == 0 for piece in pieces[:-1])
        seen.append(np.concatenate(pieces))
    for found in seen:
        assert np.array_equal(np.sort(found.view("V20").ravel()), np.sort(expected.view("V20").ravel()))
    assert not np.array_equal(seen[0], seen[1])
    moved = np.abs(np.argsort(seen[0][:, 1], kind="stable") - np.argsort(expected[:, 1], kind="stable"))
    assert np.median(moved) > len(expected) / 10


def test_what_was_yielded_before_may_be_written_over_but_no_batch_is_learned_twice(path: Path) -> None:
    """A batch as long as a piece is a piece's whole memory: `train` must take the rows that are in it now."""
    seen = []

    class Noting(MSE):
        def loss(self, y_true: Any, y_pred: Any) -> float:
            seen.append(y_pred.copy())
            return super().loss(y_true, y_pred)

    prepared = prepare(job(path))
    size = streaming_loader.PIECE_VALUES // prepared.signature.width
    network = Sequential([Linear(5, 2, rng=np.random.default_rng(0))])
    train(network, prepared.samples, None, Noting(), SGD(network, 1e-12), 2, size, on_epoch=None)
    x, _ = everything(prepared)
    assert np.allclose(np.concatenate(seen), np.tile(network(x), (2, 1)), atol=1e-5)


@pytest.mark.slow
def test_the_same_job_gives_the_same_bytes_whatever_the_pieces(
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


class Killed(BaseException):
    pass


@pytest.mark.parametrize("fatal", [1, 9, 10, 11, 37, 72, 73, 200])
def test_a_stream_goes_on_where_it_was_killed(path: Path, tmp_path: Path, fatal: int) -> None:
    prepared = prepare(job(path))

    def run(checkpoint: Checkpoint | None) -> list[Any]:
        rng = np.random.default_rng(1)
        network = Sequential([Linear(5, 3, rng=rng), Tanh(), Linear(3, 2, rng=rng)])
        errors = train(
            network, prepared.samples, None, MSE(), SGD(network), 4, 50, rng=rng, on_epoch=None, checkpoint=checkpoint
        )  # fmt: skip
        return [errors, rng.random(), *(array.tolist() for array in network.parameters())]

    class Mortal(Checkpoint):
        left = fatal

        def save(self) -> None:
            super().save()
            self.left -= 1
            if not self.left:
                raise Killed

    with pytest.raises(Killed):
        run(Mortal(tmp_path / "c.npz", {}, seconds=0))
    assert run(Checkpoint(tmp_path / "c.npz", {}, resume=True)) == run(None)


def test_a_learning_rate_is_found_on_a_block_and_folds_are_refused(train: Callable[..., Result], path: Path) -> None:
    toml = path.with_suffix(".toml")
    toml.write_text(
        f'[model]\nname = "m"\n[data]\npath = "{path.name}"\ntarget = "kind"\nstream = true\n[train]\nepochs = 2\n'
    )
    assert train(toml, "--find-rate").exit_code == 0
    found = train(toml, "--folds", 3)
    assert found.exit_code == 2
    fix = "Parquet is always streamed" if path.suffix == ".parquet" else "write stream = false, or no folds"
    assert f"data.stream: cross-validation needs the rows in memory ({fix}" in found.stderr


def test_no_more_rows_are_held_out_than_memory_can_bear(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MAX_HELD_OUT_ROWS", 100)
    prepared = prepare(job(path))
    assert 60 < prepared.sizes["test"] < 150
    assert 60 < prepared.sizes["validation"] < 150
    assert any("at most about 100 rows each are held out" in note for note in prepared.notes)


def test_deciles_of_very_many_rows_are_those_of_a_sample(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = prepare(job(path)).signature.inputs[1].statistics["deciles"]
    monkeypatch.setattr(dataset, "MAX_SAMPLE_ROWS", 1000)
    found = prepare(job(path)).signature.inputs[1].statistics["deciles"]
    assert found != exact
    assert found == pytest.approx(exact, abs=0.05)


def test_the_command_streams_checks_and_publishes(train: Callable[..., Result], path: Path) -> None:
    toml = path.with_suffix(".toml")
    toml.write_text(
        f'[model]\nname = "m"\n[data]\npath = "{path.name}"\ntarget = "kind"\nstream = true\n[train]\nepochs = 2\n'
    )
    answer = json.loads(train("check", toml, "--json").stdout)
    assert answer["columns"][0]["missing"] == sum(value is None for value in table()["size"])
    assert sum(answer["split"].values()) == sum(answer["target"]["classes"].values()) == ROWS
    found = train(toml)
    assert found.exit_code == 0, found.output
    assert f"{ROWS} rows" in found.stdout
    assert open_store(path.parent / "models").versions("m") == [1]


# Arrays --------------------------------------------------------------------------------------------------------------


def images(rows: int = 900) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, rows).astype(np.uint8)
    x = rng.integers(0, 40, (rows, 4, 4)).astype(np.uint8)
    x[np.arange(rows), labels, 1] += 150
    x[:, 3, 3] = 0
    return x, labels


def idx(path: Path, values: np.ndarray) -> None:
    content = b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("form", ["npz", "packed", "idx", "gz"])
def test_arrays_stream(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = images()
    monkeypatch.setattr(source, "BATCH_BYTES", 1 << 12)  # fewer images than labels are looked at first
    if form in {"npz", "packed"}:
        (np.savez if form == "npz" else np.savez_compressed)(tmp_path / "t.npz", x=x, y=y)
        data = {"path": "t.npz", "stream": True}
    else:
        names = {"images": f"images.{form}", "labels": f"labels.{form}"}
        for name, values in zip(names.values(), (x, y), strict=True):
            idx(tmp_path / name, values)
        data = {**names, "stream": True}
    content = {"model": {"name": "m"}, "data": data, "train": {"epochs": 5, "batch_size": 20, "learning_rate": 0.3}}
    prepared = prepare(from_dict(content, tmp_path))
    expected = prepare(from_dict({**content, "data": {**data, "stream": False}}, tmp_path)).signature
    assert prepared.signature.inputs[0].scale == expected.inputs[0].scale
    assert prepared.signature.output == expected.output
    assert not prepared.samples.nonzero_features[15]
    outcome = train_and_evaluate(prepared)
    assert outcome.metrics["accuracy"] == 1
    assert outcome.model.predict(prepared.evaluation_instances[:3])


def test_large_rows_that_lie_sorted_by_class_come_to_the_network_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block of rows of 3 KB is a few thousand: it needs short chunks to have its share of every class."""
    monkeypatch.undo()
    monkeypatch.setattr(streaming_loader, "BLOCK_BYTES", 4 << 20)
    monkeypatch.setattr(record_file, "CHUNK_BYTES", 32 << 10)
    rows, classes = 5000, 10
    x = np.random.default_rng(0).standard_normal((rows, 784), np.float32)
    np.savez(tmp_path / "t.npz", x=x, y=(np.arange(rows) * classes // rows).astype(np.uint8))
    content = {"model": {"name": "m"}, "data": {"path": "t.npz", "stream": True, "task": "classification"}}
    samples = prepare(from_dict(content, tmp_path)).samples
    learned = samples.epoch_blocks(TrainingState(Sequential([]), np.random.default_rng(0)), 50)
    first = np.concatenate([y.copy() for _, y, _, _ in islice(learned, 4)])  # of one block
    assert first.sum(axis=0).min() > len(first) / classes / 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", ["standard", "none"])
@pytest.mark.parametrize("given", ["u1", "i1", "u2", "i2", "i4", "i8", "f4", "f8"])
def test_the_network_is_given_what_the_service_gives_it_to_the_bit(
    tmp_path: Path, given: str, scale: str, dtype: str
) -> None:
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((300, 7)) * 40).astype(given)
    np.savez(tmp_path / "t.npz", x=x, y=rng.standard_normal(300))
    content = {
        "model": {"name": "m"},
        "data": {"path": "t.npz", "stream": True, "scale": scale},
        "network": {"dtype": dtype},
        "split": {"validation": 0},
    }
    prepared = prepare(from_dict(content, tmp_path))
    taught = np.setdiff1d(np.arange(300), np.array(prepared.dataset.lines) - 1)
    found, _ = everything(prepared)
    assert found.dtype == dtype
    assert np.array_equal(found, prepared.signature.encode_columns({"features": x[taught]}, dtype))


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "sections", "expected"),
    [
        ("size,kind\n1,a\n2,b\n3\n" + "4,a\n" * 30, {}, "line 4: expected 2 cells, as in the header, found 1"),
        ("size,kind\n" + "1,a\n2,b\n" * 6000 + "x,a\n", {}, "(correct the cell, or write kinds = { 'size' ="),
        ("size,kind\n" + "1,a\n2,b\n" * 60 + "inf,a\n", {"data": {"kinds": {"size": "number"}}}, "expected a finite"),
        ("size,kind\n" + "1,a\n2,a\n" * 60, {}, "expected at least two classes, found only 'a'"),
        ("size,kind\n" + "1,\n2,\n" * 60, {"data": {"task": "classification"}}, "the target is missing in every row"),
        ("size,kind\n" + ",a\n,b\n" * 60, {}, "t.csv: column size: all values in the training rows are missing"),
        ("size,kind\n" + "1,a\n,b\n" * 60, {"data": {"missing": "refuse"}}, "missing values: row 2"),
        ("size,kind\n" + "1,2.5\n2,2.5\n" * 60, {}, "t.csv: column kind: expected a target that varies, found 2.5"),
        ("size,kind\n", {}, "a header and no rows"),
        ("", {}, "the file is empty"),
        ("size,knd\n1,a\n", {}, "data.target: unknown column 'kind' (did you mean 'knd'?)"),
        ("size,kind\n" + "".join(f"t{i},{i % 2}\n" for i in range(3000)), {}, "too many for a category"),
        ("size,kind\n1,a\n2,b\n", {}, "no row was drawn"),
        ("size,kind\n1,a\n2,b\n", {"train": {"batch_size": "all"}}, "train.batch_size: 'all' rows of a stream do not"),
        ("size,kind\n1,a\n2,b\n", {"split": {"test": 0}}, "split.test: expected test rows, as a stream"),
    ],
)  # fmt: skip
def test_what_cannot_be_streamed_is_told(tmp_path: Path, content: str, sections: Any, expected: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    sections = {**sections, "data": {"columns": ["size"], **sections.get("data", {})}}
    with pytest.raises((DataError, JobError)) as caught:
        prepare(job(tmp_path / "t.csv", **sections))
    assert expected in str(caught.value)


@pytest.mark.parametrize("header", ["size,kind", "\n\nsize,kind", '"size\nin mm","kind\r\n"', '\r\n"\rsize",kind'])
def test_a_header_ends_where_it_ends_in_memory(tmp_path: Path, header: str) -> None:
    content = header + "\n" + "".join(f"{i}.5,{'ab'[i % 2]}\n" for i in range(60))
    (tmp_path / "t.csv").write_bytes(content.encode())
    data = {"path": "t.csv", "target": "kind"}
    streamed, in_memory = (
        prepare(from_dict({"model": {"name": "m"}, "data": {**data, "stream": stream}}, tmp_path))
        for stream in (True, False)
    )
    assert streamed.signature.names == in_memory.signature.names
    assert sum(streamed.sizes.values()) == sum(in_memory.sizes.values()) == 60


def test_a_category_that_only_rows_held_out_have_is_told_with_its_row(tmp_path: Path) -> None:
    rows = "".join(
        f"{'rare' if i % 40 == 5 else 'often'}{i if i % 40 == 5 else ''},{'ab'[i % 2]}\n" for i in range(400)
    )
    (tmp_path / "t.csv").write_text("colour,kind\n" + rows)
    with pytest.raises(DataError, match=r"row \d+, column colour: expected one of .*"):
        prepare(job(tmp_path / "t.csv", data={"columns": ["colour"]}))
    prepared = prepare(job(tmp_path / "t.csv", data={"columns": ["colour"], "unknown": "bucket"}))
    assert not prepared.samples.nonzero_features[-1]


def test_parquet_is_always_streamed_and_damage_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing else")
    content = {"model": {"name": "m"}, "data": {"path": "t.parquet", "target": "kind"}}
    with pytest.raises(DataError, match="not a readable Parquet file"):
        prepare(from_dict(content, tmp_path))
    with pytest.raises(JobError, match="Parquet is always streamed"):
        from_dict({**content, "data": {**content["data"], "stream": False}}, tmp_path)


def test_big_files_are_streamed_unasked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MIN_STREAM_BYTES", 1000)
    csv_job = job(path)
    prepared = prepare(from_dict({"model": {"name": "m"}, "data": {"path": path.name, "target": "kind"}}, path.parent))
    assert prepared.stream is not None
    assert csv_job.settings.data.stream is True


@pytest.mark.parametrize("kind", ["csv", pa.string(), pa.large_string(), pa.dictionary(pa.int16(), pa.string())])
def test_a_missing_number_may_have_spaces_as_in_memory(tmp_path: Path, kind: Any) -> None:
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
        ({"a": pa.array([1.0] * 30), "b": pa.array([5] * 30, pa.duration("s"))}, "column b: "),
        ({"a": ["1"] * 29 + ["x"]}, "column a: Failed to parse string: 'x'"),
        ({"a": [1.0] * 29 + [float("inf")]}, "row 30, column a: expected a finite number"),
    ],
)
def test_columns_of_parquet_that_are_no_inputs_are_named(tmp_path: Path, columns: Any, expected: str) -> None:
    parquet.write_table(pa.table({**columns, "kind": ["u", "v"] * 15}), tmp_path / "t.parquet")
    names = [name for name in columns if name]
    with pytest.raises(DataError) as caught:
        prepare(job(tmp_path / "t.parquet", data={"columns": names, "kinds": dict.fromkeys(names, "number")}))
    assert expected in str(caught.value)


def test_two_columns_of_parquet_with_one_name_are_refused(tmp_path: Path) -> None:
    values = pa.array([1.0, 2.0])
    parquet.write_table(pa.Table.from_arrays([values, values], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="two columns are named 'a'"):
        prepare(job(tmp_path / "t.parquet"))


def test_nested_columns_and_the_index_of_pandas_are_left_out_and_told(tmp_path: Path) -> None:
    odd = {"tags": [[1]] * 200, "raw": [b"x"] * 200, "__index_level_0__": list(range(200))}
    content = pa.table({"size": np.arange(200.0), **odd, "kind": ["u", "v"] * 100})
    parquet.write_table(content, tmp_path / "t.parquet")
    plain = {"model": {"name": "m"}, "data": {"path": "t.parquet", "target": "kind"}}
    prepared = prepare(from_dict(plain, tmp_path))
    assert prepared.signature.names == ("size",)
    assert any(note.endswith("tags, raw, __index_level_0__") for note in prepared.notes)
    with pytest.raises(DataError, match="column tags: expected numbers or strings, found lists"):
        prepare(job(tmp_path / "t.parquet", data={"columns": ["size", "tags"]}))


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"x": np.zeros((30, 0)), "y": np.zeros(30)}, "x: expected values, found the empty shape (30, 0)"),
        ({"x": np.zeros((30, 2)), "y": np.array(["a"] * 30, object)}, "y: expected plain values, found Python objects"),
        ({"x_train": np.zeros((30, 2)), "y": np.zeros(30)}, "expected an array 'x', found x_train, y"),
    ],
)
def test_arrays_that_cannot_be_streamed_are_told_as_in_memory(tmp_path: Path, arrays: Any, expected: str) -> None:
    np.savez(tmp_path / "t.npz", **arrays)
    for streamed in (True, False):
        data = {"path": "t.npz", "stream": streamed}
        with pytest.raises(DataError) as caught:
            prepare(from_dict({"model": {"name": "m"}, "data": data}, tmp_path))
        assert expected in str(caught.value)


def test_without_pyarrow_the_message_says_how_to_get_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'forward-pass\[arrow\]'"):
        prepare(job(path))


def test_a_full_temporary_directory_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record_file.os, "write", fails)
    with pytest.raises(DataError, match=r"No space left on device .set TMPDIR to a directory with more space"):
        prepare(job(path))


def test_the_examples_stream(examples: Path) -> None:
    outcome = train_and_evaluate(prepare(load(examples / "penguins.toml", {"data.stream": True, "train.epochs": 60})))
    assert outcome.metrics["accuracy"] > 0.9
