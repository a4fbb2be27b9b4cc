"""Columns of Arrow get the bits that the service gives equal rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from model_store.batch.encoding import encode_record_batch, numbers
from model_store.errors import InputError
from tests.model_store.conftest import chess, pictures

AGES = [30.5, None, 0.1, -7.0, 1e-300, 2.0**53 + 2]


@pytest.mark.parametrize("kind", [pa.float64(), pa.string(), pa.large_string(), pa.decimal128(38, 10)], ids=str)
def test_rows_are_encoded_as_those_of_a_request(kind: Any) -> None:
    model = chess()
    ages = [age if age is None or abs(age) > 1e-9 else 0.0 for age in AGES] if pa.types.is_decimal(kind) else AGES
    texts = [None if age is None else str(age) for age in ages]
    given = pa.array(ages, kind) if kind == pa.float64() else pa.array(texts, pa.string()).cast(kind)
    towns = ["Bath", "York"] * 3
    batch = pa.record_batch({"town": pa.array(towns).dictionary_encode(), "age": given, "id": range(6)})
    features, filled = encode_record_batch(model.signature, batch, model.network.dtype)
    rows = [{"age": age, "town": town} for age, town in zip(ages, towns, strict=True)]
    assert features.tobytes() == model.encode(rows).tobytes()
    assert filled == {"age": 1}


def test_numbers_of_other_types_are_those_of_their_decimal_texts() -> None:
    assert numbers(pa.array([0.1, None], pa.float32())).tolist()[0] == 0.1
    assert numbers(pa.array([2**53 + 1], pa.int64())).tolist() == [float(2**53 + 1)]
    assert numbers(pa.array([1.5], pa.float16())).tolist() == [1.5]
    assert math.isnan(numbers(pa.array([None], pa.int8()))[0])
    assert numbers(pa.array([True])) is None
    assert numbers(pa.array([math.inf])) is None


def test_missing_values_are_null_nan_and_the_texts_that_mean_it() -> None:
    model = chess()
    for ages in (pa.array([None, math.nan]), pa.array(["", " n/a"]), pa.array([r"\N", None])):
        batch = pa.record_batch({"town": ["Bath", "York"], "age": ages})
        features, filled = encode_record_batch(model.signature, batch, model.network.dtype)
        assert features.tobytes() == model.encode([[None, "Bath"], [None, "York"]]).tobytes()
        assert filled == {"age": 2}
    features, filled = encode_record_batch(model.signature, pa.record_batch({"town": ["Bath"]}), "float32")
    assert (features.tobytes(), filled) == (model.encode([[None, "Bath"]]).tobytes(), {"age": 1})


def test_every_fault_of_every_column_is_named() -> None:
    batch = pa.record_batch({"age": [30.0, math.inf, math.nan], "town": ["Bth", "York", None]})
    with pytest.raises(InputError) as error:
        encode_record_batch(chess().signature, batch, "float32")
    assert [fault.location for fault in error.value.faults] == ["rows.0.town", "rows.1.age", "rows.2.town"]
    assert "did you mean 'Bath'?" in error.value.faults[0].fix


def test_rows_that_are_arrays_are_read_from_all_columns() -> None:
    model, rng = pictures(), np.random.default_rng(0)
    pixels = rng.integers(0, 16, (5, 36))
    columns = {f"p{i}": pixels[:, i] for i in range(36)}
    features, _ = encode_record_batch(model.signature, pa.record_batch(columns), "float64")
    assert features.tobytes() == model.encode(pixels.tolist()).tobytes()
    with pytest.raises(InputError, match=r"rows\.1: expected 6 x 6 x 1|rows\.1"):
        encode_record_batch(model.signature, pa.record_batch(columns | {"p3": [1, 17, 1, 1, 1]}), "float64")
