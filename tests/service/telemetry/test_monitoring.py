"""Every metric of the dashboard and the alerts exists, and a real Prometheus evaluates them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_store.registry.store import open_store
from tests.service.conftest import break_version, move, price
from tests.service.inference.test_drift import area, rooms, town, trained
from tests.service.server.server_process import ROOT, Server, until

FOLDER = ROOT / "examples" / "monitoring"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
ALERTS = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
ROW = {"instances": [{"rooms": 3, "area": 80.0}]}
QUERIES = [
    target["expr"].replace("$model", ".*").replace("$__rate_interval", "10s")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]


def queried_metrics() -> set[str]:
    texts = [*QUERIES, *(rule["expr"] for rule in ALERTS), json.dumps(DASHBOARD["templating"])]
    return {name for text in texts for name in re.findall(r"forward_pass_\w+", text)}


def test_every_metric_of_dashboard_and_alerts_is_exposed(make_client, tmp_path):
    store = open_store(tmp_path / "houses")
    store.publish("houses", trained())
    client = make_client(store)
    rows = [list(row) for row in zip(rooms(300), area(300), town(300), strict=True)]
    client.post("/predict", json={"instances": rows})
    exposed = set(re.findall(r"^(forward_pass_\w+)", client.get("/metrics").get_data(as_text=True), re.MULTILINE))
    assert queried_metrics() - exposed == set()
    assert len(queried_metrics()) > 10


def test_every_metric_is_documented_in_the_operations_guide(make_client, store):
    exposed = set(re.findall(r"^# TYPE (\w+)", make_client(store).get("/metrics").get_data(as_text=True), re.MULTILINE))
    described = set(re.findall(r"^\| `(forward_pass_\w+)`", (ROOT / "docs/operations.md").read_text(), re.MULTILINE))
    assert exposed - described == set()


def test_dashboard_uses_the_provisioned_data_source():
    source = yaml.safe_load((FOLDER / "datasource.yml").read_text())["datasources"][0]["uid"]
    asked = [*DASHBOARD["panels"], *DASHBOARD["templating"]["list"]]
    assert {each["datasource"]["uid"] for each in asked} == {source}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_panels_fill_the_grid_without_overlap():
    taken = [
        (location["x"] + x, location["y"] + y)
        for location in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(location["w"])
        for y in range(location["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) == 23


def test_compose_mounts_existing_files_into_pinned_images():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("prometheus", "grafana"):
        assert services[name]["profiles"] == ["monitoring"]
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", services[name]["image"])
        for volume in services[name]["volumes"]:
            assert not volume.startswith("./") or (ROOT / volume.split(":")[0]).exists()
        assert all(port.split(":-")[1].startswith("127.0.0.1:") for port in services[name]["ports"])


class Prometheus:
    """Debian's Prometheus with the project's configuration, scraping one service every half second."""

    def __init__(self, folder: Path, service: int) -> None:
        text = (FOLDER / "prometheus.yml").read_text()
        assert "service:8001" in text
        text = text.replace("service:8001", f"127.0.0.1:{service}").replace("15s", "500ms")
        (folder / "prometheus.yml").write_text(text)
        shutil.copy(FOLDER / "alerts.yml", folder)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        listen = f"--web.listen-address=127.0.0.1:{self.port}"
        self.log = (folder / "prometheus.log").open("wb")
        self.process = subprocess.Popen(["prometheus", *options, listen], stdout=self.log, stderr=self.log)

    def ask(self, path: str, **query: str) -> Any:
        address = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)["data"]

    def numbers(self, expression: str) -> list[float]:
        return [float(found["value"][1]) for found in self.ask("query", query=expression)["result"]]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Server, Prometheus]]:
    if shutil.which("prometheus") is None:
        pytest.skip("needs Debian's package prometheus")
    store = open_store(tmp_path / "watched")
    store.publish("houses", trained())
    store.publish("price", price())
    server = Server(store, tmp_path)
    prometheus = Prometheus(tmp_path, server.port)
    try:
        yield server, prometheus
    finally:
        prometheus.stop()
        server.stop()


@pytest.mark.slow
def test_real_prometheus_evaluates_every_query_of_the_dashboard(watched):
    server, prometheus = watched
    rows = [list(row) for row in zip(rooms(300), area(300) + 50, town(300), strict=True)]
    until(lambda: query_result(prometheus, "up") == [1.0])

    def traffic() -> None:
        server.ask("POST", "/models/price/predict", ROW)
        server.ask("POST", "/models/houses/predict", {"instances": rows})
        server.ask("POST", "/models/price/predict", {"instances": [["three"]]})

    def every_query_has_a_result() -> bool:
        traffic()
        return all(query_result(prometheus, query) for query in QUERIES)

    until(every_query_has_a_result)
    assert max(prometheus.numbers('forward_pass_input_drift{model="houses", column="area"}')) > 0.25
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule["health"] for rule in rules} == {rule["alert"]: "ok" for rule in ALERTS}


@pytest.mark.slow
def test_counters_survive_killed_workers_and_a_broken_version_raises_its_alert(watched):
    server, prometheus = watched
    asked = 0

    def ask(count: int) -> None:
        nonlocal asked
        for _ in range(count):
            asked += server.ask("POST", "/models/price/predict", ROW)[0] == 200

    total = 'sum(forward_pass_requests_total{model="price"})'
    ask(30)
    until(lambda: query_result(prometheus, total) == [30.0])
    for worker in set(re.findall(r"\[(\d+)\] POST", server.log)):
        os.kill(int(worker), signal.SIGKILL)
    until(lambda: server.ask("GET", "/healthz")[0] == 200)
    ask(30)
    until(lambda: query_result(prometheus, total) == [60.0])
    assert prometheus.numbers("sum(resets(forward_pass_requests_total[1m]))") == [0.0]
    assert asked == 60

    alert = next(rule["expr"] for rule in ALERTS if rule["alert"] == "ModelLoadFailed")
    assert prometheus.numbers(alert) == []
    server.store.publish("price", price(1))
    until(lambda: server.version() == 2)
    until(lambda: query_result(prometheus, 'sum(forward_pass_model_reloads_total{model="price"})') == [1.0])
    move(server.store, "price", "default", 2)
    server.store.publish("price", price(2))
    break_version(server.store, "price", 3)  # before it is requested
    move(server.store, "price", "default", 3)
    until(lambda: query_result(prometheus, alert))


def query_result(prometheus: Prometheus, query: str) -> list[float]:
    """Return the query's numbers; an empty list if one is NaN or Prometheus is not ready."""
    try:
        numbers = prometheus.numbers(query)
    except urllib.error.HTTPError as e:  # it is starting
        e.close()
        return []
    except OSError:
        return []
    return numbers if all(number == number for number in numbers) else []  # noqa: PLR0124 - NaN is not itself
