"""The characters of a request that are hashed, those in columns of text, are limited equally in every protocol."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

import pytest

from model_store.artifact.model import Model
from model_store.registry.store import Store
from model_store.schema.columns import CategoryColumn, DateColumn
from model_store.schema.columns.date_text import DateFormat
from model_store.schema.columns.number_text import PARSE_CHARACTERS, PLAIN_CHARACTERS, NumberFormat
from model_store.schema.columns.text import MAX_HASHED_CHARACTERS, TextColumn
from model_store.schema.signature import NumberColumn, RegressionOutput, Signature
from service.config import Settings
from service.validation.row_limits import RowLimits, TooManyCharactersError
from tests.service.conftest import MakeClient, assert_error, network

ROWS, LENGTH = 8, 100
NATIVE, V2 = "/models/review/predict", "/v2/models/review/infer"
BODY_BYTES = 4 * ROWS * LENGTH  # of which a quarter may be characters of texts


def model() -> Model:
    signature = Signature((TextColumn("text", 8), NumberColumn("stars")), RegressionOutput(("y",), (0.0,), (1.0,)))
    return Model(network(9, 1, 0), signature)


def texts(count: int) -> list[str]:
    return ["word " * (LENGTH // 5)] * count


def by_name(count: int) -> list[Any]:
    return [{"text": text, "stars": 1} for text in texts(count)]


def tensors(count: int) -> list[dict[str, Any]]:
    shape = [count, 1]
    return [
        {"name": "text", "shape": shape, "datatype": "BYTES", "data": texts(count)},
        {"name": "stars", "shape": shape, "datatype": "FP64", "data": [1.0] * count},
    ]


def binary(count: int) -> dict[str, Any]:
    text = texts(1)[0].encode()
    data = (len(text).to_bytes(4, "little") + text) * count
    given = tensors(count)
    del given[0]["data"]
    given[0]["parameters"] = {"binary_data_size": len(data)}
    document = json.dumps({"inputs": given}).encode()
    headers = {"Inference-Header-Content-Length": str(len(document))}
    return {"data": document + data, "headers": headers, "content_type": "application/octet-stream"}


def csv(count: int) -> dict[str, Any]:
    return {"data": "text,stars\n" + f"{texts(1)[0]},1\n" * count, "content_type": "text/csv"}


PROTOCOLS: dict[str, Any] = {
    "native": (NATIVE, lambda n: {"json": {"instances": [[text, 1] for text in texts(n)]}}),
    "native by name": (NATIVE, lambda n: {"json": {"instances": by_name(n)}}),
    "CSV": (NATIVE, csv),
    "SageMaker": ("/invocations", lambda n: {"json": {"model": "review", "instances": by_name(n)}}),
    "TF Serving rows": ("/v1/models/review:predict", lambda n: {"json": {"instances": by_name(n)}}),
    "TF Serving columns": (
        "/v1/models/review:predict",
        lambda n: {"json": {"inputs": {"text": texts(n), "stars": [1] * n}}},
    ),
    "V2": (V2, lambda n: {"json": {"inputs": tensors(n)}}),
    "V2 binary": (V2, binary),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_limits_the_characters_of_texts(
    store: Store, make_client: MakeClient, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are counted before any is hashed: 98 kB of gzip held texts that took 2.6 s."""
    store.publish("review", model())
    client = make_client(store, max_body_bytes=BODY_BYTES)
    path, request = PROTOCOLS[protocol]
    accepted = client.post(path, **request(ROWS))
    assert accepted.status_code == 200, accepted.data
    for encode in ("encode", "encode_columns"):
        monkeypatch.setattr(Signature, encode, lambda *_: pytest.fail("texts were hashed before they were counted"))
    rejected = client.post(path, **request(ROWS + 1))
    assert rejected.status_code == 413
    text = rejected.get_data(as_text=True)
    assert (
        f"expected at most {ROWS * LENGTH} characters of text in a request, found more; send 8 rows at a time" in text
    )
    if not path.startswith("/v"):
        assert_error(rejected, 413, "too_many_rows")


# Each row has a text of 10 characters and one of 8 that no other row has.
KG, DAY = ["1,00{} kg", "2020-01-0{}"]
PARSED_BODY_BYTES = 4 * ROWS * (len(KG.format(1)) + len(DAY.format(1)) + 2 * PARSE_CHARACTERS)


def shipments() -> Model:
    kg = NumberColumn("kg", format=NumberFormat(group=",", unit="kg"))
    signature = Signature((kg, DateColumn("day", scale=1e9)), RegressionOutput(("y",), (0.0,), (1.0,)))
    return Model(network(2, 1, 0), signature)


def binary_texts(columns: dict[str, list[str]]) -> dict[str, Any]:
    inputs, tail = [], b""
    for name, values in columns.items():
        data = b"".join(len(text).to_bytes(4, "little") + text.encode() for text in values)
        parameters = {"binary_data_size": len(data)}
        inputs.append({"name": name, "shape": [len(values)], "datatype": "BYTES", "parameters": parameters})
        tail += data
    document = json.dumps({"inputs": inputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(document))}
    return {"data": document + tail, "headers": headers, "content_type": "application/octet-stream"}


def request_of(protocol: str, count: int) -> dict[str, Any]:
    """Return the request of so many different rows of `shipments` in one of PROTOCOLS."""
    columns = {name: [text.format(i) for i in range(1, count + 1)] for name, text in (("kg", KG), ("day", DAY))}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if protocol == "CSV":
        lines = ["kg,day", *(f'"{row["kg"]}",{row["day"]}' for row in rows)]
        return {"data": "\n".join(lines), "content_type": "text/csv"}
    if protocol == "V2 binary":
        return binary_texts(columns)
    if protocol == "V2":
        tensors = [{"name": n, "shape": [count], "datatype": "BYTES", "data": texts} for n, texts in columns.items()]
        return {"json": {"inputs": tensors}}
    if protocol == "TF Serving columns":
        return {"json": {"inputs": columns}}
    as_lists = [list(row.values()) for row in rows]
    model = {"model": "review"} if protocol == "SageMaker" else {}
    return {"json": model | {"instances": as_lists if protocol == "native" else rows}}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_limits_the_texts_that_are_parsed(
    store: Store, make_client: MakeClient, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are counted before one is parsed: 54 kB of gzip held texts of numbers that took 2.4 s."""
    store.publish("review", shipments())
    client = make_client(store, max_body_bytes=PARSED_BODY_BYTES)
    path = PROTOCOLS[protocol][0]
    accepted = client.post(path, **request_of(protocol, ROWS))
    assert accepted.status_code == 200, accepted.data
    parsed = set[str]()
    for kind in (NumberFormat, DateFormat):
        monkeypatch.setattr(kind, "parse", lambda _, text: parsed.add(text))
    rejected = client.post(path, **request_of(protocol, ROWS + 1))
    assert len(parsed) <= 2  # of one row: to find a header, and for an example in the error
    assert rejected.status_code == 413
    assert (
        f"expected at most {PARSED_BODY_BYTES // 4} characters of text in a request, where another text of a date or "
        "number counts as 10 or more, found more; send 8 rows at a time" in rejected.get_data(as_text=True)
    )


@pytest.mark.parametrize("datatype", ["BYTES", "INT64"])
def test_the_texts_of_binary_tensors_are_counted_before_one_is_read(
    store: Store, make_client: MakeClient, datatype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They had no limit but that of cells: 25 kB of gzip with a million of them took 1.7 s."""
    towns = tuple(CategoryColumn(f"town{i}", ("1", "2")) for i in range(2))
    output = RegressionOutput(("y",), (0.0,), (1.0,))
    store.publish("review", Model(network(4, 1, 0), Signature(towns, output)))
    client = make_client(store, max_body_bytes=16 * 2 * ROWS)

    def request(count: int) -> dict[str, Any]:
        value = b"\1\0\0\0" + b"1" if datatype == "BYTES" else (1).to_bytes(8, "little")
        parameters = {"binary_data_size": len(value) * count}
        tensor = {"shape": [count], "datatype": datatype, "parameters": parameters}
        document = json.dumps({"inputs": [{"name": town.name} | tensor for town in towns]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(document))}
        return {"data": document + 2 * count * value, "headers": headers}

    # The body itself is longer than a limit so small.
    monkeypatch.setattr("service.routes.open_inference.read_body", lambda request, _: request.get_data())
    accepted = client.post(V2, **request(ROWS))
    assert accepted.status_code == 200, accepted.data
    monkeypatch.setattr("service.protocols.open_inference._parse_inputs", lambda *_: pytest.fail("a tensor was read"))
    rejected = client.post(V2, **request(ROWS + 1))
    assert rejected.status_code == 413
    assert f"expected at most {2 * ROWS} texts in tensors, found {2 * ROWS + 2}" in rejected.get_data(as_text=True)


def columns_of(*formats: NumberFormat) -> Model:
    columns = tuple(NumberColumn(f"x{i}", format=each) for i, each in enumerate(formats))
    return Model(network(len(formats), 1, 0), Signature(columns, RegressionOutput(("y",), (0.0,), (1.0,))))


def test_a_text_counts_once_for_each_format() -> None:
    """A model of 300 columns, each with a missing word of its own, parsed 300 times as many texts: 7.3 s."""
    cost = 2 * (PARSE_CHARACTERS + len("5 kg") + PLAIN_CHARACTERS)
    equal = NumberFormat(unit="kg")
    rows = [["5 kg", "5 kg", "12.5", "12.5"], ["6 kg", "6 kg", " -3 ", " -3 "], ["7 kg"] * 4]
    for formats, fit in (([equal] * 4, 2), ([NumberFormat(unit="kg", missing=(f"no {i}",)) for i in range(4)], 1)):
        limit = RowLimits(100, 100, 10**9, cost, 2**20).for_model(columns_of(*formats))
        limit.check_rows("instances", rows[:fit])
        with pytest.raises(TooManyCharactersError, match=f"send {fit} rows? at a time"):
            limit.check_rows("instances", rows)


def test_units_and_bounds_count_more() -> None:
    units = {"g": 0.001, "t": 1000.0}
    counted = [NumberFormat(unit="kg", units=u, bounds=b).parse_characters("5-6") for u in ({}, units) for b in (0, 1)]
    assert counted == [51, 147, 59, 171]
    assert NumberFormat(unit="kg").parse_characters("x" * 10**6) == 48 + 64


def test_ten_thousand_rows_of_twenty_dates_or_plain_numbers_fit() -> None:
    columns = tuple(DateColumn(f"day{i}", scale=1e9) for i in range(20))
    model = Model(network(20, 1, 0), Signature(columns, RegressionOutput(("y",), (0.0,), (1.0,))))
    limits = RowLimits(10_000, 2**20, 2**35, Settings().max_text_characters, Settings().max_cells)
    start = date(1990, 1, 1)
    days = [(start + timedelta(i)).isoformat() for i in range(10_020)]
    limits.for_model(model).check_rows("instances", [days[i : i + 20] for i in range(10_000)])
    numbers = columns_of(*[NumberFormat(missing=("unknown",))] * 20)
    rows = [[f"{i}.{j:02}" for j in range(20)] for i in range(10_000)]
    limits.for_model(numbers).check_cells("rows", [column.name for column in numbers.signature.inputs], rows)


def test_one_row_always_fits_and_of_a_long_text_only_what_is_hashed_counts() -> None:
    limit = RowLimits(100, 100, 10**9, 10, 2**20).for_model(model())
    limit.check_rows("instances", [["x" * 100, 1]])
    limit.check_rows("instances", [["x" * 10, 1], [None, 1], "no row", [], 5])
    for rows in ([["x" * 10, 1], ["x", 1]], [{"text": "x" * 10}, {"text": 5}]):
        with pytest.raises(TooManyCharactersError, match="send 1 row at a time"):
            limit.check_rows("instances", rows)
    limit = RowLimits(100, 100, 10**9, 2 * MAX_HASHED_CHARACTERS, 2**20).for_model(model())
    limit.check_rows("instances", [["x" * 10 * MAX_HASHED_CHARACTERS, 1]] * 2)


def test_a_batch_of_models_predict_is_never_too_long_for_a_service() -> None:
    from model_store.cli.predict.command import _BATCH_CELLS, _TEXT_CELLS

    assert Settings().max_text_characters >= _BATCH_CELLS // _TEXT_CELLS * MAX_HASHED_CHARACTERS
