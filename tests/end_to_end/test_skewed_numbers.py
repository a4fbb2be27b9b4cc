"""Prices on an asinh scale: trained in memory and streamed, written, and asked."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.artifact import npz
from model_store.schema.columns import NumberColumn
from training.cli.scaffold import draft_job
from training.config.settings import DataSection
from training.data.fitting.columns import fit_number, is_skewed
from training.data.fitting.statistics import NumberStatistics, skewness
from training.errors import DataError, JobError
from training.pipeline.job import PreparedJob, from_dict, prepare, train_and_evaluate

ROWS = 200


def table(folder: Path) -> Path:
    prices = np.exp(np.random.default_rng(1).normal(1.0, 2.0, ROWS))
    lines = [f"{price:.2f},{i % 7},{('red', 'blue')[i % 2]},{'pq'[int(price > 3)]}" for i, price in enumerate(prices)]
    path = folder / "t.csv"
    path.write_text("price,size,colour,y\n" + "\n".join(lines) + "\n")
    return path


def prepared(folder: Path, **data: Any) -> PreparedJob:
    table(folder)
    data = {"path": "t.csv", "target": "y", **data}
    job = {"model": {"name": "m"}, "data": data, "split": {"test": 0, "validation": 0}, "train": {"epochs": 1}}
    return prepare(from_dict(job, folder))


def linear_widths(found: PreparedJob) -> dict[str, float | None]:
    return {one.name: one.linear_width for one in found.signature.inputs if isinstance(one, NumberColumn)}


@pytest.mark.parametrize("stream", [False, True])
def test_skewed_columns_are_compressed_and_standardised(tmp_path: Path, stream: bool) -> None:
    found = prepared(tmp_path, asinh="skewed", stream=stream)
    price, size = (column for column in found.signature.inputs if isinstance(column, NumberColumn))
    assert size.linear_width is None
    with (tmp_path / "t.csv").open() as file:
        prices = np.array([float(row["price"]) for row in csv.DictReader(file)])
    assert price.linear_width == pytest.approx(float(np.quantile(prices, 0.01)), rel=1e-12)
    features = price.to_feature(prices)
    assert (features.mean(), features.std()) == pytest.approx((0, 1), abs=1e-9)
    trained = train_and_evaluate(found).model
    npz.write(tmp_path / "m.npz", trained)
    read = npz.read(tmp_path / "m.npz")
    read.check_golden()
    assert read.signature == trained.signature
    assert prepared(tmp_path, asinh="skewed", stream=not stream).signature.inputs == found.signature.inputs


def test_listed_columns_are_compressed_whatever_their_skewness(tmp_path: Path) -> None:
    widths = linear_widths(prepared(tmp_path, asinh=["size"]))
    assert widths["price"] is None
    assert widths["size"] == 1.0
    assert not any(linear_widths(prepared(tmp_path)).values())


@pytest.mark.parametrize("stream", [False, True])
def test_other_columns_cannot_be_listed(tmp_path: Path, stream: bool) -> None:
    with pytest.raises(DataError, match=r"data\.asinh: expected columns of numbers, found 'colour', a category"):
        prepared(tmp_path, asinh=["price", "colour"], stream=stream)
    with pytest.raises(DataError, match=r"data\.asinh: unknown input 'prize'.*'price'"):
        prepared(tmp_path, asinh=["prize"], stream=stream)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"asinh": True}, "'skewed', or a list of column names"),
        ({"asinh": ["size", "size"]}, "'size' is listed twice"),
        ({"path": "a.npz", "asinh": "skewed"}, "only tables have named columns"),
    ],
)
def test_an_invalid_setting_is_rejected(tmp_path: Path, data: dict[str, Any], problem: str) -> None:
    with pytest.raises(JobError, match=rf"data\.asinh: .*{problem}"):
        prepared(tmp_path, **data)


def test_init_writes_a_job_that_compresses_skewed_columns(tmp_path: Path) -> None:
    text = draft_job(table(tmp_path), "y", tmp_path / "t.toml").text
    assert 'asinh = "skewed"' in text


NUMBERS = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30)


@given(NUMBERS, st.sampled_from(["standard", "robust", "none"]))
def test_every_column_of_numbers_can_be_compressed(values: list[float], scaling: str) -> None:
    statistics = NumberStatistics.from_values(np.array(values))
    is_skewed(statistics)
    column = fit_number("a", statistics, "impute", scaling, asinh=True)
    assert column is not None
    assert column.scale > 0
    assert np.isfinite(column.to_feature(np.array(values))).all()
    assert column.statistics == fit_number("a", statistics, "impute", scaling).statistics  # type: ignore[union-attr]


def test_a_constant_and_missing_values_are_not_compressed() -> None:
    for values in ([0.0] * 5, [3.0] * 5, [0.3, 0.1 + 0.2]):
        column = fit_number("a", NumberStatistics.from_values(np.array(values)), "impute", "standard", asinh=True)
        assert column is not None
        assert column.linear_width is None
    assert fit_number("a", NumberStatistics.from_values(np.array([np.nan])), "impute", "standard", asinh=True) is None
    assert DataSection().asinh is None


def test_skewness_is_that_of_the_central_moments() -> None:
    assert skewness(np.array([0.0] * 9 + [1.0])) == pytest.approx((1 - 0.2) / 0.3)  # of a Bernoulli distribution
    assert is_skewed(NumberStatistics.from_values(np.array([0.0] * 9 + [1.0])))
    assert not is_skewed(NumberStatistics.from_values(np.array([-1.0] * 9 + [100.0])))
    assert not is_skewed(NumberStatistics.from_values(np.arange(10.0)))
