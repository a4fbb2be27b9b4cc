"""Range warnings are the first 100 of a request, in the order of rows and columns, and no other is formatted."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from model_store.artifact.model import Model
from model_store.registry.store import Store
from model_store.schema.columns import ArrayColumn, CategoryColumn, DateColumn, NumberColumn, scaled_numbers
from model_store.schema.signature import RegressionOutput, Signature
from service.inference import range_warnings
from tests.service.conftest import MakeClient, network

OUTPUT = RegressionOutput(("y",), (0.0,), (1.0,))
SEEN = {"min": 0.0, "max": 1.0, "mean": 0.5, "std": 0.1}


def model(*columns: Any) -> Model:
    signature = Signature(columns, OUTPUT)
    return Model(network(signature.width, 1, 0), signature)


def warnings_of(client: Any, name: str, rows: Any) -> list[tuple[str, str]]:
    if isinstance(rows, np.ndarray):
        np.save(body := io.BytesIO(), rows)
        sent = {"data": body.getvalue(), "content_type": "application/x-npy"}
    else:
        sent = {"json": {"instances": rows}}
    response = client.post(f"/models/{name}/predict?warnings=true", **sent)
    assert response.status_code == 200, response.text
    return [(each["location"], each["problem"]) for each in response.json["warnings"]]


def test_a_warning_names_the_first_feature_of_its_column_alone(store: Store, make_client: MakeClient) -> None:
    date = DateColumn("day", statistics={"min": 0.0, "max": 86_400.0}, cycles=("year",))
    number = NumberColumn("x", offset=0.5, scale=0.1, fill=0.5, statistics=SEEN, indicator=True)
    store.publish("mixed", model(CategoryColumn("c", ("a", "b")), number, date, NumberColumn("free")))
    client = make_client(store)
    rows = [["a", 0.5, "1970-01-01", 1e9], ["b", 7, "1971-01-01", 0], ["b", -3, "1970-01-02", 0]]
    assert warnings_of(client, "mixed", rows) == [
        ("instances.1.x", "7 is outside the training range, 0 to 1"),
        ("instances.1.day", "the date is outside the training period, 1970-01-01 to 1970-01-02"),
        ("instances.2.x", "-3 is outside the training range, 0 to 1"),
    ]


def test_an_array_has_one_warning_with_its_first_value(store: Store, make_client: MakeClient) -> None:
    store.publish("image", model(ArrayColumn("image", (2, 2), statistics=SEEN | {"max": 200.0})))
    images = np.array([[[0, 200], [7, 9]], [[1, 250], [255, 3]]], np.uint8)
    assert warnings_of(make_client(store), "image", images) == [
        ("instances.1.image", "250 is outside the training range, 0 to 200")
    ]


@pytest.mark.parametrize("values_at_once", [1, 2**17])
def test_as_many_values_are_formatted_as_a_response_has(
    store: Store, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, values_at_once: int
) -> None:
    """With 100 of each column, a request of 1 kB took 3 s of a model of 10,000 columns."""
    monkeypatch.setattr(range_warnings, "_BLOCK_VALUES", values_at_once)
    columns, rows = 60, 50
    store.publish("wide", model(*(NumberColumn(f"n{i}", statistics=SEEN) for i in range(columns))))
    formatted: list[float] = []
    problem = scaled_numbers.scaled_range_problem
    monkeypatch.setattr(
        "model_store.schema.columns.number.scaled_range_problem",
        lambda column, feature: formatted.append(feature) or problem(column, feature),
    )
    values = np.full((rows, columns), 0.5)
    values[2:, ::2] = np.arange(rows - 2)[:, np.newaxis] + 2
    found = warnings_of(make_client(store), "wide", values)
    outside = [(i, j) for i in range(2, rows) for j in range(0, columns, 2)]
    assert found == [(f"instances.{i}.n{j}", f"{i} is outside the training range, 0 to 1") for i, j in outside[:100]]
    assert len(formatted) == 100


def test_a_long_row_is_compared_in_pieces(
    store: Store, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positions of four million values outside the range took 168 MB."""
    monkeypatch.setattr(range_warnings, "_BLOCK_VALUES", 10)
    lengths: list[int] = []
    nonzero = np.nonzero
    store.publish("long", model(ArrayColumn("x", (95,), statistics=SEEN)))
    client = make_client(store)
    rows = np.zeros((3, 95))
    rows[0, 33:], rows[2, [0, 94]] = 7, (8, 9)
    with monkeypatch.context() as patched:
        patched.setattr(np, "nonzero", lambda values: lengths.append(values.size) or nonzero(values))
        assert warnings_of(client, "long", rows) == [
            ("instances.0.x", "7 is outside the training range, 0 to 1"),
            ("instances.2.x", "8 is outside the training range, 0 to 1"),
        ]
    assert sum(lengths) >= rows.size
    assert max(lengths) <= 10
