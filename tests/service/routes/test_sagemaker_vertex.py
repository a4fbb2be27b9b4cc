"""The contracts of SageMaker and Vertex AI, and CSV and .npy bodies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from io import BytesIO

import numpy as np
import pytest

from model_store.registry.store import Store, open_store
from service.config import Settings
from tests.service.conftest import PENGUIN, assert_error, fault_locations, price
from tests.service.server.test_fast_path import fast_path_of, take


def npy(array: np.ndarray) -> bytes:
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture
def lone(tmp_path) -> Store:
    store = open_store(tmp_path / "lone")
    store.publish("price", price())
    return store


def test_ping_is_503_without_a_model(client, make_client, tmp_path):
    assert client.get("/ping").status_code == 200
    assert make_client(open_store(tmp_path / "empty")).get("/ping").status_code == 503


def test_invocations_use_the_only_model(lone, make_client):
    client = make_client(lone)
    _, model = lone.load("price")
    body = {"instances": [[3, 80]], "parameters": {"confidence": 1}}
    response = client.post("/invocations", json=body)
    assert response.json == {"predictions": model.predict([[3, 80]])}
    assert response.headers["X-Model-Version"] == "1"
    assert_error(client.post("/predict", json=body), 422, "invalid_request")


def test_invocations_reject_parameters_of_the_native_protocol(lone, make_client):
    client = make_client(lone)
    for query in ("top_k=2", "receipt=true", "warnings=true"):
        error = assert_error(
            client.post(f"/invocations?{query}", json={"instances": [[3, 80]]}), 422, "invalid_request"
        )
        assert fault_locations(error) == [query.partition("=")[0]]
    assert client.post("/invocations?added=by-a-gateway", json={"instances": [[3, 80]]}).status_code == 200


def test_invocations_need_a_model_name_if_there_are_several(client):
    error = assert_error(client.post("/invocations", json={"instances": [[3, 80]]}), 422, "invalid_request")
    assert fault_locations(error) == ["model"]
    assert client.post("/invocations", json={"model": "price", "instances": [[3, 80]]}).status_code == 200


def test_the_paths_that_vertex_sets_are_served(lone, make_client):
    settings = Settings.from_environ(
        {"AIP_HTTP_PORT": "8080", "AIP_HEALTH_ROUTE": "/alive", "AIP_PREDICT_ROUTE": "/v1/endpoints/7:predict"}
        | {"SERVE_HOST": "127.0.0.1", "SERVE_PORT": "8000"}
    )
    assert (settings.host, settings.port) == ("0.0.0.0", 8080)
    client = make_client(lone, health_route=settings.health_route, predict_route=settings.predict_route)
    assert client.get("/alive").status_code == 200
    answer = client.post("/v1/endpoints/7:predict", json={"instances": [[3, 80]], "parameters": {}})
    assert answer.json.keys() == {"predictions"}


def test_vertex_may_set_a_path_that_is_already_an_endpoint(lone, make_client):
    client = make_client(lone, health_route="/healthz", predict_route="/predict")
    answer = client.post("/predict?wsgi_bridge=1", json={"instances": [[3, 80]], "parameters": {"confidence": 1}})
    assert answer.json.keys() == {"predictions"}
    assert take(fast_path_of(client), b'{"instances": [[3, 80]]}', "/predict") is None
    assert client.post("/models/price/predict", json={"instances": [[3, 80]]}).json.keys() > {"predictions"}


@pytest.mark.parametrize("path", ["/ping", "/alive", "/healthz"])
def test_health_checks_of_platforms_are_not_logged(lone, make_client, caplog, path):
    client = make_client(lone, health_route="/alive")
    with caplog.at_level("INFO", "service.access"):
        client.get("/models")
        client.get(path)
    assert [record.msg.route for record in caplog.records] == ["/models"]


@pytest.mark.parametrize("path", ["/models/penguins/predict", "/models/penguins/versions/1/predict"])
@pytest.mark.parametrize("header", ["island,mass,sex\n", "sex,mass,island\n", ""])
def test_csv_bodies_may_have_a_header(client, path, header):
    cells = ["Biscoe", "4200.5", "MALE"]
    text = header + ",".join(reversed(cells) if header.startswith("sex") else cells) + "\n"
    expected = client.post("/models/penguins/predict", json={"instances": [PENGUIN | {"sex": "MALE"}]}).json
    assert client.post(path, data=text, content_type="text/csv; charset=utf-8").json == expected


@pytest.mark.parametrize("path", ["/invocations", "/models/price/predict"])
def test_the_media_type_declares_the_header(lone, make_client, path):
    client = make_client(lone)

    def post(text: str, header: str):
        return client.post(path, data=text, content_type=f"text/csv; charset=utf-8; header={header}")

    by_name = client.post(path, json={"instances": [{"rooms": 3, "area": 80}]}).json
    assert post("area,rooms\n80,3\n", "present").json == by_name
    assert post("3,80\n", "absent").json == by_name
    assert fault_locations(assert_error(post("3,80\n", "present"), 422, "invalid_request")) == ["line 1"]
    found = fault_locations(assert_error(post("rooms,area\n3,80\n", "absent"), 422, "invalid_request"))
    assert found == ["line 1, column rooms", "line 1, column area"]
    assert fault_locations(assert_error(post("3,80\n", "maybe"), 422, "invalid_request")) == ["Content-Type"]
    for second in ("header=absent", "HEADER=present", "header*=utf-8''present"):
        error = assert_error(post("3,80\n", f"absent; {second}"), 422, "invalid_request")
        assert error["faults"][0]["problem"] == "expected the parameter header once, found 2 times"
    assert post("3,80\n", 'absent; x="; header=present"').json == by_name


def test_errors_in_csv_are_reported_by_line(client):
    text = "island,mass,sex\nBiscoe,4000,MALE\nBisco,heavy,MALE\n"
    response = client.post("/models/penguins/predict", data=text, content_type="text/csv")
    assert set(fault_locations(assert_error(response, 422, "invalid_request"))) == {
        "line 3, column mass",
        "line 3, column island",
    }
    for wrong in ("", "island,mass,sex\n", "\xff", 'island,mass,sex\n"Biscoe'):
        data = wrong.encode("latin-1")
        response = client.post("/models/penguins/predict", data=data, content_type="text/csv")
        assert response.status_code == 422, wrong


def test_csv_with_more_rows_than_the_limit_is_413(store, make_client):
    client = make_client(store, max_instances=3)
    for header in ("", "rooms,area\n"):
        bodies = [header + "3,80\n" * count for count in (3, 4)]
        responses = [client.post("/models/price/predict", data=body, content_type="text/csv") for body in bodies]
        assert responses[0].status_code == 200
        assert fault_locations(error := assert_error(responses[1], 413, "too_many_rows")) == ["rows"]
        assert "expected at most 3 rows in a request for this model, found more" in error["message"]


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f8", "<i2", "|u1"])
def test_npy_bodies_are_the_only_tensor(client, dtype):
    for name, rows in (("image", np.arange(8).reshape(2, 2, 2)), ("price", np.array([[3, 80], [4, 90]]))):
        expected = client.post(f"/models/{name}/predict", json={"instances": rows.tolist()}).json
        data = npy(np.asfortranarray(rows.astype(dtype)))
        assert client.post(f"/models/{name}/predict", data=data, content_type="application/x-npy").json == expected


def test_invalid_npy_bodies_are_reported(client):
    def post(name: str, data: bytes):
        return client.post(f"/models/{name}/predict", data=data, content_type="application/x-npy")

    whole = npy(np.ones((1, 2)))
    assert_error(post("penguins", whole), 422, "invalid_request")
    assert_error(post("price", npy(np.ones((1, 3)))), 422, "invalid_request")
    assert_error(post("price", npy(np.array(["a", "b"]))), 422, "invalid_request")
    for wrong in (b"", whole[:-1], whole[:20], b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 70000, npy(np.array([{}]))):
        assert_error(post("price", wrong), 400, "broken_body")


def test_csv_and_npy_need_a_model_in_the_url_if_there_are_several(client, lone, make_client):
    response = client.post("/predict", data="3,80\n", content_type="text/csv")
    assert fault_locations(assert_error(response, 422, "invalid_request")) == ["model"]
    lone.publish("price", price(1))
    answer = make_client(lone).post("/predict", data="3,80\n", content_type="text/csv").json
    assert (answer["model"], answer["version"]) == ("price", 2)


SAGEMAKER = {"SERVE_PORT": "{port}", "SERVE_HOST": "0.0.0.0"}  # the host that the image sets
BINDING = {"SAGEMAKER_BIND_TO_PORT": "{port}"}  # set for containers that share an instance
VERTEX = {"AIP_HTTP_PORT": "{port}", "AIP_HEALTH_ROUTE": "/v1/health", "AIP_PREDICT_ROUTE": "/v1/endpoints/7:predict"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environ", "health", "predict"),
    [(SAGEMAKER, "/ping", "/invocations"), (BINDING, "/ping", "/invocations"), (VERTEX, *list(VERTEX.values())[1:])],
    ids=["sagemaker", "sagemaker, port by name", "vertex"],
)
def test_a_platform_can_start_call_and_stop_the_service(lone, tmp_path, environ, health, predict):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {name: text.format(port=port) for name, text in environ.items()}
    platform = {**os.environ, **own, "MODEL_STORE": str(lone.root), "SERVE_CACHE_DIR": str(tmp_path / "cache")}
    base = f"http://127.0.0.2:{port}"  # reachable only if the service listens on all interfaces
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "service"], env=platform, stdout=log, stderr=log)
    try:
        while True:
            try:
                # SageMaker waits 2 s for /ping.
                with urllib.request.urlopen(base + health, timeout=2) as answer:
                    assert answer.status == 200
                    break
            except urllib.error.URLError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.1)
        _, model = lone.load("price")
        for data, kind in (
            (b'{"instances": [[3, 80]], "parameters": {}}', "application/json"),
            (b"3,80\n", "text/csv"),
            (npy(np.array([[3.0, 80.0]])), "application/x-npy"),
        ):
            request = urllib.request.Request(base + predict, data, {"Content-Type": kind})
            with urllib.request.urlopen(request, timeout=5) as answer:
                assert json.load(answer) == {"predictions": model.predict([[3, 80]])}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0  # SIGKILL follows after 30 s
