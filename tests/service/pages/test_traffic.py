"""The page /traffic: its figures as JSON, and the page in a browser."""

from __future__ import annotations

import time
from typing import Any

import jsonschema
import pytest

from service.pages.reload_log import changes, state_of
from service.registry.snapshot import Snapshot
from tests.service.conftest import MakeClient, break_version, penguins, price
from tests.service.pages.conftest import DESK, check_layout, in_browser
from tests.service.security.keys import line
from tests.service.server.server_process import until

ROW = {"instances": [[3, 80]]}


def test_figures_are_those_of_the_requests(own_client: Any) -> None:
    for _ in range(3):
        own_client.post("/models/price/predict", json=ROW)
    own_client.post("/models/price/predict", json={"instances": [["no", 80]]})
    own_client.post("/models/nothing/predict", json=ROW)
    found = own_client.get("/traffic").json
    [version] = found["versions"]
    assert (version["model"], version["version"], version["requests"], version["failed"]) == ("price", "1", 4, 1)
    assert version["rows"] == 3
    assert {error["code"]: error["count"] for error in found["errors"]} == {"invalid_request": 1, "unknown_model": 1}
    assert found["batches"] == [{"from": 1, "to": 1, "passes": 3}]
    assert found["now"]["requests_per_second"] > 0
    assert {stage["stage"] for stage in found["stages"]} == {"queue", "parse", "compute", "serialise", "total"}
    assert all(stage["p50_seconds"] is not None for stage in found["stages"])
    assert len(found["series"]) == 60
    assert [each["status"] for each in found["recent"]] == [404, 422, 200, 200, 200]
    assert {each["subject"] for each in found["reloads"]} == {"image", "penguins", "price"}
    document = own_client.get("/openapi.json").json
    jsonschema.Draft202012Validator(document["components"]["schemas"]["Traffic"]).validate(found)


def test_a_model_and_a_time_can_be_chosen(own_client: Any) -> None:
    own_client.post("/models/price/predict", json=ROW)
    own_client.post("/models/penguins/predict", json={"instances": [["Biscoe", 4200, None]]})
    found = own_client.get("/traffic?model=price&minutes=5").json
    assert (found["model"], found["minutes"], len(found["series"])) == ("price", 5, 5)
    assert [each["model"] for each in found["versions"]] == ["price"]
    assert {each["model"] for each in found["recent"]} == {"price"}
    assert {each["subject"] for each in found["reloads"]} == {"price"}
    assert own_client.get("/traffic?model=price/7").json["versions"] == []
    assert own_client.get("/traffic").json["minutes"] == 60
    (fault,) = own_client.get("/traffic?minutes=999").json["error"]["faults"]
    assert (fault["location"], fault["problem"]) == ("minutes", "expected one of 5, 15, 60, found '999'")


def test_changes_of_what_is_served_are_logged(store: Any, make_client: MakeClient) -> None:
    client = make_client(store)
    client.get("/traffic")
    registry = client.application.extensions["registry"]
    store.publish("price", price(1))
    registry.refresh()
    client.get("/traffic")
    store.publish("penguins", penguins(1))
    break_version(store, "penguins", 2)
    registry.refresh()
    log = client.get("/traffic").json["reloads"]
    assert "serves version 2 instead of 1" in next(each["text"] for each in log if each["subject"] == "price")
    assert next(each["kind"] for each in log if each["subject"] == "penguins/2") == "problem"


def test_a_solved_problem_and_a_removed_model_are_changes() -> None:
    before = {"models": {"old": {"version": 1, "why": "", "aliases": {"canary": 1}}}, "problems": {"old/2": "damaged"}}
    assert list(changes(before, state_of(Snapshot()))) == [
        {"subject": "old", "text": "removed from the store", "kind": "served"},
        {"subject": "old/2", "text": "the problem is solved", "kind": "solved"},
    ]
    now = {"models": {"old": {"version": 1, "why": "", "aliases": {"canary": 2}}}, "problems": {}}
    assert [each["text"] for each in changes(before, now)] == ["alias canary: 1 → 2", "the problem is solved"]


def test_a_key_needs_the_scope_of_the_metrics(store: Any, make_client: MakeClient, tmp_path: Any) -> None:
    keys = tmp_path / "keys"
    keys.write_text(line("grafana", "metrics", "fp_metrics") + line("app", "predict", "fp_predict"))
    client = make_client(store, keys_file=str(keys))
    page = client.get("/traffic", headers={"Accept": "text/html"})
    assert (page.status_code, page.mimetype) == (401, "text/html")
    assert "<code>metrics</code>" in page.text
    assert client.get("/traffic", headers={"Authorization": "Bearer fp_predict"}).status_code == 403
    assert client.get("/traffic", headers={"Authorization": "Bearer fp_metrics"}).json["versions"] == []


def test_only_the_admin_listener_has_the_page(store: Any, make_client: MakeClient) -> None:
    client = make_client(store, admin_port=9001)
    ports = {port: {"SERVER_PORT": port} for port in ("8000", "9001")}
    assert client.get("/traffic", environ_overrides=ports["8000"]).status_code == 404
    assert client.get("/traffic", environ_overrides=ports["9001"]).status_code == 200
    for port, has_link in (("8000", False), ("9001", True)):
        page = client.get("/", headers={"Accept": "text/html"}, environ_overrides=ports[port]).text
        assert ('href="./traffic"' in page) is has_link


@pytest.mark.slow
def test_the_figures_are_the_same_whichever_worker_answers(own_server: Any) -> None:
    server = own_server()
    for _ in range(20):
        server.ask("POST", "/models/price/predict", ROW)

    def counted() -> bool:
        versions = [server.ask("GET", "/traffic")[1]["versions"] for _ in range(6)]
        return all([each["requests"] for each in answer] == [20] for answer in versions)

    until(counted)
    until(lambda: len(server.ask("GET", "/traffic")[1]["recent"]) >= 20)


@pytest.mark.parametrize("_", [pytest.param(0, marks=in_browser, id="browser")])
def test_the_page_shows_requests_as_they_come_as_text(open_page: Any, server: Any, _: int) -> None:
    page = open_page(server, "/traffic", DESK)
    server.ask("POST", "/models/price/predict", ROW)
    server.ask("GET", "/models/<img%20src=x%20onerror=alert(1)>\u202e".encode("latin-1", "replace").decode("latin-1"))
    page.locator("[data-part=versions] td", has_text="price/1").first.wait_for()
    page.locator("[data-part=recent] td", has_text="/models/").first.wait_for()
    assert page.locator("main img").count() == 0
    page.get_by_label("Model").select_option("price")
    page.locator("[data-part=reloads] td", has_text="price").first.wait_for()
    check_layout(page)


@pytest.mark.parametrize("_", [pytest.param(0, marks=in_browser, id="browser")])
def test_polling_sleeps_while_the_page_is_hidden(open_page: Any, server: Any, _: int) -> None:
    page = open_page(server, "/traffic", DESK)
    page.locator(".status", has_text="updated").wait_for()
    asked: list[float] = []
    page.on("request", lambda request: asked.append(time.monotonic()))
    page.evaluate("Object.defineProperty(document, 'hidden', { get: () => window.isHidden ?? false })")
    page.evaluate("window.isHidden = true")
    page.wait_for_timeout(2500)
    before = len(asked)
    page.wait_for_timeout(4500)
    assert len(asked) == before
    page.evaluate("window.isHidden = false; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(500)
    assert len(asked) == before + 1
