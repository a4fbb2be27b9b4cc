"""Columns of many texts in streams: their codes, their counts, and the columns that rows in memory give."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from tests.training.streams import everything
from training.data import type_inference
from training.data.streaming import table_reader, text_codes
from training.data.streaming.text_codes import TextCodes, count_texts
from training.pipeline import streaming_loader
from training.pipeline.job import PreparedJob, from_dict, prepare, train_and_evaluate

ROWS = 4000


@pytest.fixture(params=[1 << 16, 50])
def remembered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of texts of a column that are kept in memory."""
    monkeypatch.setattr(text_codes, "MAX_REMEMBERED_TEXTS", request.param)
    return int(request.param)


def test_codes_give_their_texts_back(remembered: int) -> None:
    codes = TextCodes("t.csv")
    batches = [["a", None, "b"], [f"{i} \u00e4\ud800\n" for i in range(100)], [None, "b", "", "5 \u00e4\ud800\n"]]
    found = [codes.encode(batch) for batch in batches]
    assert [codes.texts(one) for one in found] == batches
    assert codes.texts(np.concatenate(found)[::-1]) == [text for batch in batches for text in batch][::-1]
    assert found[0][1] == found[2][0] == 0
    assert codes.are_remembered == (remembered > 104)


def test_of_a_long_text_in_the_file_the_hashed_characters_are_kept(remembered: int) -> None:
    codes, long = TextCodes("t.csv"), ["ab" * (i + 3000) for i in range(60)]
    found = codes.texts(codes.encode([*long, "short"]))
    assert found[-1] == "short"
    assert [text[:4096] for text in found[:60] if text] == [text[:4096] for text in long]
    assert len(found[59] or "") == (6118 if remembered > 60 else 4096)


@pytest.mark.parametrize("hashes", [1 << 20, 100])
def test_texts_are_counted_exactly(remembered: int, monkeypatch: pytest.MonkeyPatch, hashes: int) -> None:
    monkeypatch.setattr(text_codes, "_COUNTED_HASHES", hashes)
    drawn = [f"t{i}" for i in np.random.default_rng(0).geometric(0.01, 5000)]
    codes, blocks = TextCodes("t.csv"), []
    for start in range(0, 5000, 500):
        batch = [*drawn[start : start + 500], None]
        names = list(dict.fromkeys(batch))
        blocks.append(codes.encode(names)[[names.index(text) for text in batch]])
    counts, distinct = count_texts(codes, blocks, 20)
    assert distinct == len(set(drawn))
    assert sorted(counts.values()) == sorted(Counter(drawn).values())[-20:]
    assert all(counts[text] == drawn.count(text) for text in counts)
    assert count_texts(codes, [], 20) == ({}, 0)


def write(folder: Path, form: str) -> Path:
    """Write a table with a column of free text, and one whose values pass the limit after the first rows."""
    rng = np.random.default_rng(0)
    words = np.array(["red", "rose", "blue", "lily", "of", "the", "valley", "Garden,", "white"])
    town = np.minimum(rng.geometric(0.02, ROWS), 400)
    town[ROWS // 2 :] = rng.integers(0, 1500, ROWS // 2)
    texts = [" ".join(rng.choice(words, 5)) + f" {i}" for i in range(ROWS)]
    content = pa.table(
        {
            "text": [None if i % 90 == 4 else text for i, text in enumerate(texts)],
            "town": [f"town {i}" for i in town],
            "place": [f"place {i}" for i in town],
            "y": ["yes" if "rose" in text else "no" for text in texts],
        }
    )
    path = folder / f"t.{form}"
    (csv.write_csv if form == "csv" else parquet.write_table)(content, path)
    return path


def prepared(path: Path, **data: Any) -> PreparedJob:
    own = {"path": path.name, "target": "y", "kinds": {"place": "category"}, **data}
    content = {"model": {"name": "m"}, "data": own, "split": {"validation": 0}}
    return prepare(from_dict({**content, "train": {"epochs": 10, "optimizer": "adam", "batch_size": 50}}, path.parent))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_texts_and_many_categories_are_fitted_and_encoded_as_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembered: int, form: str
) -> None:
    """Types are inferred from 1500 rows, in which town is a category; the whole file has more than 1000 towns."""
    monkeypatch.setattr(table_reader, "TYPE_INFERENCE_ROWS", 1500)
    monkeypatch.setattr(streaming_loader, "_MAX_TABLE_VALUES", 256 * 3000)  # the towns, but not the texts
    path = write(tmp_path, form)
    stream = prepared(path, stream=True)
    assert {column.name: column.kind for column in stream.signature.inputs} == {
        "text": "text", "town": "text", "place": "category"
    }  # fmt: skip
    assert any("read as text, with more than 1000 distinct values: town" in note for note in stream.notes)
    assert any("column place has" in note and "all but the 1000 most frequent" in note for note in stream.notes)
    in_memory = prepared(path)
    assert in_memory.dataset.kinds == stream.dataset.kinds
    held_out = np.array(stream.dataset.lines) - 1
    learned = np.setdiff1d(np.arange(ROWS), held_out)
    rows = in_memory.dataset
    assert all(
        stream.dataset.inputs[name].tolist() == values[held_out].tolist() for name, values in rows.inputs.items()
    )
    expected = rows.signature(in_memory.job.settings.data, learned)
    for mine, theirs in zip(stream.signature.inputs, expected.inputs, strict=True):
        if mine.kind == "category" and not remembered > ROWS:  # equally frequent categories are ordered otherwise
            assert sorted(mine.statistics["frequencies"].values()) == sorted(theirs.statistics["frequencies"].values())
            assert mine.statistics["distinct"] == theirs.statistics["distinct"] > 1000
        else:
            assert mine == theirs
    x, _ = everything(stream)
    encoded = stream.signature.encode_columns({name: values[learned] for name, values in rows.inputs.items()})
    assert np.array_equal(x[np.lexsort(x.T)], encoded[np.lexsort(encoded.T)])


def test_a_text_is_learned_from_a_stream(tmp_path: Path) -> None:
    outcome = train_and_evaluate(prepared(write(tmp_path, "csv"), columns=["text"], kinds={}, stream=True))
    assert outcome.metrics["accuracy"] > 0.9 > outcome.baseline["accuracy"]


def test_a_category_of_many_values_is_learned_in_memory_and_streamed(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    town = rng.integers(0, 1200, 6000)
    csv.write_csv(pa.table({"town": [f"t{i}" for i in town], "y": (town % 7).astype(float)}), tmp_path / "t.csv")
    found = [
        train_and_evaluate(prepared(tmp_path / "t.csv", kinds={"town": "category"}, task="regression", stream=stream))
        for stream in (False, True)
    ]
    for outcome in found:
        assert len(outcome.model.signature.inputs[0].categories) == type_inference.MAX_CATEGORIES
        assert outcome.metrics["targets"]["y"]["r2"] > 0.2
        warnings: list[Any] = []
        outcome.model.signature.encode([["nowhere"]], warnings=warnings)
        assert "the 1000 most frequent categories of the training rows do not include 'nowhere'" in str(warnings[0])
