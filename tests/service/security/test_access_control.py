"""Access over HTTP: which endpoints require which scope on which port, and what errors reveal."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from flask.testing import FlaskClient

from model_store.registry.store import Store, open_store
from service.config import Settings, SettingsError
from service.security.api_keys import generate_key
from tests.service.conftest import MakeClient, assert_error, price
from tests.service.security.keys import HEALTH, KEY_OF, ROWS, bearer

MAIN, SECOND = "http://localhost:8000", "http://localhost:8001"


def test_without_a_key_file_no_key_is_required(client: FlaskClient) -> None:
    assert client.post("/models/price/predict", json=ROWS).status_code == 200
    assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize("path", HEALTH)
def test_health_endpoints_require_no_key(guarded: FlaskClient, path: str) -> None:
    assert guarded.get(path).status_code == 200


def test_readiness_without_a_key_has_only_the_status(guarded: FlaskClient, client: FlaskClient) -> None:
    assert guarded.get("/readyz").get_json() == {"status": "ready"}
    assert guarded.get("/readyz", headers={"Authorization": "Bearer fp_nobody"}).get_json() == {"status": "ready"}
    assert "price" in guarded.get("/readyz", headers=bearer("metrics")).get_json()["models"]
    assert "price" in client.get("/readyz").get_json()["models"]  # no key is required


def refusals(client: FlaskClient) -> dict[tuple[str, str], int]:
    """Return {(method, rule): status} of requests to every endpoint without a key."""
    found = {}
    for rule in client.application.url_map.iter_rules():
        path = rule.rule
        for name in rule.arguments:
            for kind in ("", "segment:", "path:"):
                path = path.replace(f"<{kind}{name}>", "price")
        for method in rule.methods & {"GET", "POST"}:
            found[method, rule.rule] = client.open(
                path, method=method, json=ROWS if method == "POST" else None
            ).status_code
    return found


def test_every_other_endpoint_requires_a_key(guarded: FlaskClient, client: FlaskClient) -> None:
    asked = refusals(guarded)
    assert {rule for (_, rule), status in asked.items() if status != 401} == {
        *HEALTH,
        "/docs/",
        "/static/<path:filename>",
        "/static/runtime.js",
        "/static/charts.css",
        "/static/report.css",
    }
    assert ("POST", "/predict") in asked
    assert 401 not in refusals(client).values()


def test_a_browser_without_a_key_gets_a_form_at_docs_that_reveals_nothing(guarded: FlaskClient) -> None:
    html = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    home = guarded.get("/", headers=html)
    assert (home.status_code, home.mimetype) == (401, "text/html")
    page = guarded.get("/docs", headers=html)
    assert page.text == home.text.replace(' aria-current="page"', "")
    assert (page.status_code, page.mimetype) == (401, "text/html")
    assert page.headers["WWW-Authenticate"].startswith("Bearer")
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    assert "price" not in page.text
    assert "penguins" not in page.text
    files = re.findall(r'"./(static/[^"]+)"', page.text)
    assert len(files) == 4
    for file in files:
        with guarded.get(f"/{file}") as answer:
            assert answer.status_code == 200
    assert_error(guarded.get("/docs"), 401, "unauthorized")  # any other program gets JSON
    assert "Endpoints" in guarded.get("/docs", headers=html | bearer("predict")).text
    assert "penguins" in guarded.get("/", headers=html | bearer("predict")).text
    assert guarded.get("/models", headers=html).mimetype == "application/json"


def test_an_unknown_static_file_reveals_nothing_of_the_models(guarded: FlaskClient) -> None:
    answer = guarded.get("/static/nothing.js")
    assert answer.status_code == 404
    assert "example" not in answer.json["error"]
    assert "example" in guarded.get("/static/nothing.js", headers=bearer("predict")).json["error"]


@pytest.mark.parametrize(
    "path", ["/nothing/here", "/models/unknown", "/models/price/predict/", "/models//price", "/metrics/"]
)
def test_without_a_key_unknown_paths_and_models_are_401_too(guarded: FlaskClient, path: str) -> None:
    assert guarded.get(path).status_code == 401


def test_metrics_and_the_repository_require_their_own_scopes(guarded: FlaskClient) -> None:
    assert guarded.get("/metrics", headers=bearer("metrics")).status_code == 200
    assert guarded.get("/metrics", headers=bearer("predict")).status_code == 403
    index = "/v2/repository/index"
    assert guarded.post(index, headers=bearer("admin")).status_code == 200
    for scope in ("predict", "metrics"):
        assert guarded.post(index, headers=bearer(scope)).status_code == 403
        assert guarded.post("/v2/repository/models/price/unload", headers=bearer(scope)).status_code == 403
    assert guarded.post("/predict", json=ROWS | {"model": "price"}, headers=bearer("admin")).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status", "code"), [({}, 401, "unauthorized"), (bearer("metrics"), 403, "forbidden")]
)
def test_401_and_403_have_the_protocols_error_format_and_no_details_of_models(
    guarded: FlaskClient, headers: dict[str, str], status: int, code: str
) -> None:
    answer = guarded.post("/models/price/predict", json=ROWS, headers=headers)
    error = assert_error(answer, status, code)
    assert "example" not in error
    assert [fault["location"] for fault in error["faults"]] == ["Authorization"]
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="forward-pass"')
    for path in ("/v1/models/price:predict", "/v2/models/price/infer", "/v1/models/unknown", "/v2/models/unknown"):
        answer = guarded.post(path, json=ROWS, headers=headers)
        assert answer.status_code == status
        assert answer.mimetype == "application/json"
        assert answer.get_json().keys() == {"error"}
        assert isinstance(answer.get_json()["error"], str)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "rooms" not in answer.get_data(as_text=True)


def test_error_examples_send_the_key(guarded: FlaskClient, client: FlaskClient) -> None:
    wrong = {"instances": [["x", 80]]}
    lesson = guarded.post("/models/price/predict", json=wrong, headers=bearer("predict")).get_json()["error"]["example"]
    assert '-H "Authorization: Bearer $FORWARD_PASS_KEY"' in lesson["curl"]
    assert KEY_OF["predict"] not in lesson["curl"]
    assert (
        "Authorization" not in client.post("/models/price/predict", json=wrong).get_json()["error"]["example"]["curl"]
    )


@pytest.mark.parametrize("path", ["/models/price/predict", "/v2/models/price/infer", "/nowhere"])
def test_query_strings_are_never_logged(guarded: FlaskClient, caplog: pytest.LogCaptureFixture, path: str) -> None:
    """A key may have been put into the URL."""
    with caplog.at_level(logging.DEBUG, "service"):
        answer = guarded.post(f"{path}?key=fp_secret", json=ROWS, headers=bearer("predict"))
    assert answer.status_code >= 400
    assert f"POST {path} {answer.status_code}" in caplog.text
    assert "fp_" not in caplog.text + answer.get_data(as_text=True)


def test_a_key_is_never_logged(guarded: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "service"):
        guarded.post("/models/price/predict", json=ROWS, headers=bearer("predict"))
        guarded.post("/models/price/predict", json=ROWS, headers=bearer("metrics"))
    assert len(caplog.records) == 2
    assert "fp_" not in caplog.text


def test_a_key_in_the_path_the_method_or_the_request_id_is_never_logged(
    guarded: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    secret, _ = generate_key("shop", ("predict",))
    with caplog.at_level(logging.DEBUG, "service"):
        guarded.post(f"/models/{secret}/predict", json=ROWS)
        guarded.post(f"/a/{secret}", json=ROWS, headers=bearer("predict"))
        guarded.open("/healthz", method=secret)
        for escaped in (f"%66p_{secret[3:]}", f"fp%5f{secret[3:]}", "".join(f"%{ord(c):02X}" for c in secret),
                        "".join(f"%2525{ord(c):02x}" for c in secret)):  # fmt: skip
            guarded.application.extensions["recorder"].discard()
            record = guarded.application.extensions["recorder"].begin("GET", f"/models/{escaped}/predict?x")
            assert record.target == "/models/fp_[key]/predict"
        response = guarded.get("/healthz", headers={"X-Request-Id": f"id:{secret}"})
    assert len(caplog.records) == 4
    assert secret[3:] not in caplog.text + str([record.msg.as_dict() for record in caplog.records])
    assert "POST /models/fp_[key]/predict 401" in caplog.text
    assert secret not in response.headers["X-Request-Id"]


def test_a_rejected_request_without_a_key_is_counted_for_no_model(guarded: FlaskClient) -> None:
    """A client without a key could let the errors of a model rise, by requests that do not arrive in time."""
    served_at = guarded.application.extensions["recorder"].served_at
    for headers in ({"Authorization": None}, {"Authorization": "Bearer fp_unknown"}, bearer("metrics")):
        assert served_at("/models/price/predict", headers["Authorization"]) is None
    assert served_at("/models/price/predict", bearer("predict")["Authorization"]).name == "price"


def test_log_lines_have_the_name_of_a_known_key(guarded: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "service"):
        guarded.post("/models/price/predict", json=ROWS, headers=bearer("predict"))
        guarded.post("/models/price/predict", json=ROWS, headers=bearer("metrics"))
        guarded.post("/models/price/predict", json=ROWS, headers={"Authorization": "Bearer fp_unknown"})
    records = [record.msg for record in caplog.records]
    assert [record.as_dict().get("key_name") for record in records] == ["of-predict", "of-metrics", None]
    assert str(records[0]).endswith(" key=of-predict")
    assert " key=" not in str(records[2])


def test_the_openapi_document_declares_required_keys(guarded: FlaskClient, client: FlaskClient) -> None:
    found = guarded.get("/openapi.json", headers=bearer("predict")).get_json()
    assert found["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    paths = {
        path
        for path, operations in found["paths"].items()
        if any(op.get("security") == [] for op in operations.values())
    }
    assert paths == set(HEALTH) & found["paths"].keys()
    for path, method in (("/predict", "post"), ("/v1/models", "get"), ("/v2/models/price/infer", "post")):
        answer = found["components"]["responses"][
            found["paths"][path][method]["responses"]["401"]["$ref"].split("/")[-1]
        ]
        assert "WWW-Authenticate" in answer["headers"]
        schema = answer["content"]["application/json"]["schema"] | {"components": found["components"]}
        jsonschema.Draft202012Validator(schema).validate(guarded.open(path, method=method).json)
    assert "securitySchemes" not in client.get("/openapi.json").get_json()["components"]


@pytest.mark.parametrize("path", ["/metrics", "/v2/repository/index", "/v2/repository/models/price/unload"])
def test_only_the_admin_port_serves_metrics_and_the_repository(
    store: Store, make_client: MakeClient, path: str
) -> None:
    method = "GET" if path == "/metrics" else "POST"
    split = make_client(store, admin=True, admin_port=8001)
    assert split.open(path, method=method, base_url=MAIN).status_code == 404
    assert split.open(path, method=method, base_url=MAIN, headers={"Host": "localhost:8001"}).status_code == 404
    assert split.open(path, method=method, base_url=MAIN, headers={"X-Forwarded-Port": "8001"}).status_code == 404
    assert split.open(path, method=method, base_url=SECOND).status_code == 200
    # Without an admin port there is no such rule.
    assert make_client(store, admin=True).open(path, method=method, base_url=MAIN).status_code == 200


def test_the_admin_port_serves_everything_else_too(store: Store, make_client: MakeClient) -> None:
    split = make_client(store, admin_port=8001)
    for base in (MAIN, SECOND):
        assert split.post("/models/price/predict", json=ROWS, base_url=base).status_code == 200
        assert split.get("/healthz", base_url=base).status_code == 200


def test_the_repository_is_closed_by_default_and_requires_an_admin_port() -> None:
    assert not Settings.from_environ({}).admin
    with pytest.raises(SettingsError, match="SERVE_ADMIN_PORT"):
        Settings.from_environ({"SERVE_ADMIN": "true"})
    assert Settings.from_environ({"SERVE_ADMIN": "true", "SERVE_ADMIN_PORT": "8001"}).admin


def test_the_repository_accepts_no_path_and_no_url(tmp_path: Path, make_client: MakeClient) -> None:
    store = open_store(tmp_path / "models")
    store.publish("price", price())
    open_store(tmp_path / "elsewhere").publish("bait", price())  # a model that would load if it were fetched
    client = make_client(store, admin=True)
    bait = tmp_path / "elsewhere" / "bait"
    assert (
        make_client(open_store(tmp_path / "elsewhere"), admin=True).post("/v2/repository/models/bait/load").status_code
        == 200
    )
    for name in ("../elsewhere/bait", "..%2Felsewhere%2Fbait", str(bait), f"file://{bait}", "s3://bucket/bait", "bait"):
        for path in (f"/v2/repository/models/{name}/load", f"/models/{name}/predict", f"/v2/models/{name}/infer"):
            assert client.post(path, json=ROWS).status_code == 404
        assert client.post("/predict", json=ROWS | {"model": name}).status_code in {404, 422}
        assert client.post("/models/price/predict", json=ROWS | {"version": f"{name}/1"}).status_code in {404, 422}
    assert [each["name"] for each in client.get("/models").get_json()["models"]] == ["price"]


@pytest.mark.parametrize(
    "parameters",
    [{"file:1/model.npz": "AAAA"}, {"file:../../x": "AAAA"}],
)
def test_the_repository_accepts_no_file_from_a_client(store: Store, make_client: MakeClient, parameters: Any) -> None:
    client = make_client(store, admin=True)
    answer = client.post("/v2/repository/models/price/load", json={"parameters": parameters})
    assert answer.status_code == 400
    assert "loaded from the store" in answer.get_json()["error"]


def test_example_commands_take_the_key_from_the_environment(guarded):
    paths = ("/models/price/predict", "/v1/models/price:predict", "/v2/models/price/infer")
    for path, scope in (*((path, "predict") for path in paths), ("/v2/repository/models/price/load", "admin")):
        response = guarded.post(path, json=[], headers=bearer(scope))
        text = response.get_data(as_text=True).replace('\\"', '"')
        assert 'curl -s -H "Authorization: Bearer $FORWARD_PASS_KEY" http://localhost' in text
        assert KEY_OF[scope] not in text


@pytest.mark.parametrize("path", ["/nothing", "/models/price/example", "/v2/models/price/example", "/models/pric"])
def test_errors_without_a_key_have_no_example(guarded, path):
    for method in ("GET", "POST"):
        response = guarded.open(path, method=method)
        assert response.status_code in {401, 404, 405}
        assert "instances" not in response.get_data(as_text=True)
        assert "rooms" not in response.get_data(as_text=True)


def test_the_curl_commands_of_the_docs_page_send_a_key_if_required(guarded: FlaskClient, client: FlaskClient) -> None:
    sent = "-H &#34;Authorization: Bearer $FORWARD_PASS_KEY&#34; http://localhost/models/price/predict -d "
    assert sent in guarded.get("/docs", headers=bearer("predict")).text
    assert "FORWARD_PASS_KEY" not in client.get("/docs").text
