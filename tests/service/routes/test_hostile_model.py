"""A model whose every string is hostile: pages, error responses, curl commands and the log."""

from __future__ import annotations

import json
import logging
import shlex

import pytest

from model_store.registry.store import Store
from service.telemetry.logging import TextFormatter
from tests.model_store.cli.test_hostile_strings import assert_visible, hostile
from tests.service.conftest import MakeClient


def test_pages_and_curl_commands_of_a_hostile_model_are_visible(
    store: Store, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    store.publish("evil", hostile())
    with caplog.at_level(logging.DEBUG, "service"):
        client = make_client(store)
        page = client.get("/docs", headers={"Accept": "text/html"})
        assert page.status_code == 200
        assert_visible(page.text.replace("\t", " "), lines=False)
        faulty = client.post("/models/evil/predict", json={"instances": [{"x": 1}]})
        curl = faulty.json["error"]["example"]["curl"]
    assert_visible(curl)
    body = json.loads(shlex.split(curl)[-1])  # the escapes keep the meaning of the body
    assert client.post("/models/evil/predict", json=body).status_code == 200
    for record in caplog.records:
        assert TextFormatter().format(record).isprintable()
