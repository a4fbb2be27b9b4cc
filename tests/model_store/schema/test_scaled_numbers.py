"""Numbers that are compressed by asinh before they are scaled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.schema.columns import Column, NumberColumn
from model_store.schema.columns.scaled_numbers import compress, decompress
from model_store.schema.outputs import RegressionOutput
from model_store.schema.signature import Signature
from model_store.schema.signature_json import read_signature

FINITE = st.floats(allow_nan=False, allow_infinity=False)
WIDTHS = st.floats(min_value=5e-324, max_value=1e308)
OUTPUT = RegressionOutput(("y",), (0.0,), (1.0,))
PRICES: dict[str, Any] = {
    "count": 100,
    "mean": 13.0,
    "std": 40.0,
    "min": 0.01,
    "max": 999.0,
    "missing": 0,
    "deciles": [0.01, 0.5, 0.99, 1.0, 2.5, 4.99, 9.99, 12.0, 20.0, 60.0, 999.0],
    "counts": [1, 9, *[10] * 9],
}


def prices() -> NumberColumn:
    return NumberColumn("price", 3.0, 1.5, None, PRICES, linear_width=0.25)


@given(st.lists(FINITE, min_size=1, max_size=40), WIDTHS)
def test_compressed_numbers_are_finite_and_ascend(values: list[float], width: float) -> None:
    found = compress(np.sort(np.array(values)), width)
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()
    assert (np.abs(found) < 711).all()


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e6))
def test_decompress_inverts_compress(value: float, width: float) -> None:
    compressed = float(compress(np.array([value]), width)[0])
    assert compressed == pytest.approx(math.asinh(value / width), rel=1e-12)
    assert decompress(compressed, width) == pytest.approx(value, rel=1e-9)


def test_compressed_numbers_are_linear_below_the_width_and_logarithmic_above() -> None:
    small, large = compress(np.array([0.01, 0.02]), 1.0), compress(np.array([1e3, 1e6, 1e9]), 1.0)
    assert small == pytest.approx([0.01, 0.02], rel=1e-3)
    assert np.diff(large) == pytest.approx([math.log(1000)] * 2, rel=1e-6)
    assert compress(np.array([0.0, -2.0, 2.0]), 1.0).tolist() == [0.0, -math.asinh(2.0), math.asinh(2.0)]


@given(st.lists(st.tuples(FINITE, FINITE, FINITE), min_size=1, max_size=12), st.booleans())
def test_a_table_and_single_rows_have_the_same_bits(rows: list[tuple[float, ...]], indicator: bool) -> None:
    columns = (
        NumberColumn("a", 1.0, 2.0, 0.0, indicator=indicator, linear_width=0.7),
        NumberColumn("b", 0.0, 1e300),
        NumberColumn("c", 5.0, 2.0, linear_width=1e-3),
    )
    signature = Signature(columns, OUTPUT)
    together = signature.encode([list(row) for row in rows], dtype=np.float64)
    named = [dict(zip("abc", row, strict=True)) for row in rows]
    assert signature.encode(named, dtype=np.float64).tobytes() == together.tobytes()
    table = np.array(rows, np.float64)
    before = table.copy()
    assert signature.encode_table(table, dtype=np.float64).tobytes() == together.tobytes()
    assert (table == before).all()
    assert all(
        signature.encode([list(row)], dtype=np.float64)[0].tobytes() == one.tobytes()
        for row, one in zip(rows, together, strict=True)
    )


def test_a_column_without_a_width_has_the_json_of_earlier_versions() -> None:
    assert "linear_width" not in Signature((NumberColumn("a"),), OUTPUT).config()["inputs"][0]
    config = Signature((prices(),), OUTPUT).config()
    assert config["inputs"][0]["linear_width"] == 0.25
    assert read_signature(config).inputs == (prices(),)


def test_range_and_bins_are_those_of_the_plain_numbers() -> None:
    column: Column = prices()
    low, high = column.range_limits()
    below, inside, above = column.to_feature(np.array([0.001, 500.0, 2000.0])).tolist()
    assert below < low < inside < high < above
    assert column.range_problem(above) == "2000 is outside the training range, 0.01 to 999"
    bins = column.bins(np.float32)
    assert bins is not None
    assert bins.edges is not None
    assert len(bins.edges) == 11
    features = column.to_feature(np.array(PRICES["deciles"])).astype(np.float32)
    assert np.searchsorted(bins.edges, features).tolist() == list(range(11))
    assert NumberColumn("a", linear_width=1e-300).range_limits() == pytest.approx((-710.48, 710.48), abs=0.01)


def test_examples_of_a_column_without_statistics_are_plain_numbers() -> None:
    column = NumberColumn("a", offset=math.asinh(80.0), scale=2.0, linear_width=0.5)
    assert column.typical_value() == pytest.approx(40.0)
    assert column.draw_values(2, np.random.default_rng(0)) == pytest.approx([40.0, 40.0])


def test_descriptions_name_the_scale() -> None:
    assert prices().summarize("{:g}".format) == "0.01 to 999, mean 13, asinh scale"
    assert prices().describe_statistics(PRICES, str).endswith(", asinh scale")
    assert prices().describe_statistics({"min": None, "max": None}, str) == ""
