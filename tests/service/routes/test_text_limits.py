"""The characters of a request that are hashed, those in columns of text, are limited equally in every protocol."""

from __future__ import annotations

import json
from typing import Any

import pytest

from model_store.artifact.model import Model
from model_store.registry.store import Store
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
