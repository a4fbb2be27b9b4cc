"""What all responses share (error format, request id, headers, metrics, log), metadata, OpenAPI and the page."""

import gc
import logging
import re
import shutil
import weakref
from datetime import UTC, datetime

import jsonschema
import pytest
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families

from model_store.artifact.model import Model
from model_store.nn import Linear, Sequential
from model_store.registry.publication import Publication, encode_publication, put_publication
from model_store.registry.store import open_store
from model_store.schema.signature import ArrayColumn, NumberColumn, RegressionOutput, Signature
from service.routes.docs import _ERROR_CODES
from tests.service.conftest import PENGUIN, assert_error, move, price
from tests.service.server.server_process import ROOT

ROW = {"instances": [[3.0, 80.0]]}
PAGES = ("/", "/healthz", "/readyz", "/models", "/models/price", "/models/price/versions/1", "/openapi.json", "/docs")


BROWSER = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}


def test_root_is_json_for_programs_and_a_page_for_browsers(client):
    assert client.get("/").json == {"status": "alive"}
    assert client.get("/", headers={"Accept": "*/*"}).json == {"status": "alive"}
    page = client.get("/", headers=BROWSER)
    assert (page.status_code, page.mimetype, page.headers["Vary"]) == (200, "text/html", "Accept, Accept-Encoding")


def test_pages_can_be_turned_off(store, make_client):
    client = make_client(store, pages=False)
    assert client.get("/", headers=BROWSER).json == {"status": "alive"}
    for path in ("/docs", "/xor", "/static/page.js"):
        error = assert_error(client.get(path, headers=BROWSER), 404, "not_found")
        assert "/docs" not in error["message"]
    assert "SERVE_PAGES=on" in client.get("/docs").json["error"]["message"]
    assert client.get("/openapi.json").status_code == 200


def test_health_and_readiness(client):
    assert client.get("/healthz").json == {"status": "ok"}
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json == {"status": "ready", "models": {"image": 1, "penguins": 1, "price": 1}, "problems": []}


def test_models_are_listed_with_versions_and_aliases(client, store, registry):
    store.publish("price", price(1))
    move(store, "price", "champion", 1)
    registry.refresh()
    listed = {model["name"]: model for model in client.get("/models").json["models"]}
    assert listed.keys() == {"image", "penguins", "price"}
    assert listed["price"]["version"] == 2
    assert listed["price"]["versions"] == [1, 2]
    assert listed["price"]["aliases"] == {"champion": 1}
    assert client.get("/models/price/versions/champion").json["version"] == 1


def test_models_show_who_published_a_version_and_when_but_no_other_store(client, store, registry):
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    store.publish("price", price(1), who="ada <script>", when=noon)
    copied = Publication("bob", noon).copied("s3://secret/price/7", "cyd", noon)
    store.storage.delete("price/1.json")
    put_publication(store.storage, "price", 1, encode_publication("price", copied))
    registry.refresh()
    ada = {"who": "ada <script>", "when": "2026-01-02T12:00:00+00:00", "recorded": True}
    assert {model["name"]: model["published"] for model in client.get("/models").json["models"]}["price"] == ada
    assert client.get("/models/price").json["published"] == ada
    earlier = client.get("/models/price/versions/1")
    assert earlier.json["published"] == ada | {"who": "bob"}
    assert "secret" not in earlier.text
    assert "published 2026-01-02 by ada &lt;script&gt;" in client.get("/docs").text


def test_model_metadata_has_inputs_output_and_metrics(client):
    model = client.get("/models/penguins").json
    by_name = {column["name"]: column for column in model["inputs"]}
    assert by_name["island"]["categories"] == ["Biscoe", "Dream", "Torgersen"]
    assert by_name["mass"]["seen"]["max"] == 6300.0
    assert (by_name["sex"]["required"], by_name["sex"]["fill"]) == (False, "FEMALE")
    assert model["output"] == {"kind": "classes", "name": "species", "labels": ["Adelie", "Gentoo"]}
    assert model["training"]["metrics"]["accuracy"] == 0.975
    assert len(model["digest"]) == 64


def test_training_paths_and_history_are_not_published(client):
    for page in PAGES:
        assert "secret" not in client.get(page).get_data(as_text=True)
        assert "secret" not in client.get("/models/penguins").get_data(as_text=True)


def test_example_of_a_model_gives_its_recorded_prediction(client):
    for name in ("penguins", "price", "image"):
        example = client.get(f"/models/{name}").json["example"]
        answer = client.post(f"/models/{name}/predict", json={"instances": example["instances"]})
        assert answer.json["predictions"] == example["predictions"]
    assert client.get("/models/penguins").json["example"]["instances"] == [PENGUIN]


@pytest.mark.parametrize("path", ["/nowhere", "/predict/price", "/models/price/nothing", "/static/../app.py", "/%00"])
def test_unknown_endpoint_is_404_in_the_error_format(client, path):
    assert_error(client.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/predict"), ("PUT", "/models/price/predict"), ("POST", "/models"), ("DELETE", "/docs")],
)
def test_wrong_method_is_405_with_allow(client, method, path):
    response = client.open(path, method=method)
    assert_error(response, 405, "method_not_allowed")
    assert response.headers["Allow"]


def test_crash_is_500_without_details_and_logs_the_traceback(client, monkeypatch, caplog):
    def crash(*_):
        raise RuntimeError("the password is 1234")

    monkeypatch.setattr("model_store.schema.signature.Signature.decode_arrays", crash)
    with caplog.at_level(logging.ERROR, "service"):
        response = client.post("/models/price/predict", json=ROW)
    error = assert_error(response, 500, "internal_error")
    assert "1234" not in str(error)
    assert "the password is 1234" in caplog.text
    assert response.json["request_id"] in caplog.text


def test_the_page_and_the_documents_list_the_same_error_codes():
    table = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    rows = [row for row in table.splitlines() if re.match(r"\| [45]\d\d[, \d]* \| `", row)]
    documented = {code for row in rows for code in re.findall(r"`(\w+)`", row.split("|")[2])}
    on_the_page = {code for _, codes, _ in _ERROR_CODES for code in codes}
    assert documented == on_the_page
    assert "bad_request" in documented  # the worker sends it before there is an endpoint


@pytest.mark.parametrize("given", ["abc-123", "0af7651916cd43dd8448eb211c80319c", "a" * 128])
def test_request_id_of_the_client_is_kept(client, given):
    assert client.get("/healthz", headers={"X-Request-Id": given}).headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "a" * 129, "two words", "<script>", "ä", "a\tb"])
def test_malformed_request_id_is_replaced(client, given):
    found = client.get("/healthz", headers={"X-Request-Id": given}).headers["X-Request-Id"]
    assert len(found) == 32
    assert found != given


@pytest.mark.parametrize("path", [*PAGES, "/metrics", "/nowhere", "/static/docs.js"])
def test_every_response_has_security_headers(client, path):
    with client.get(path) as response:
        headers = response.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == ("no-cache" if path.startswith("/static") else "no-store")


def test_head_and_options_are_supported(client):
    assert client.head("/healthz").status_code == 200
    assert "POST" in client.options("/predict").headers["Allow"]


def figures(client):
    text = client.get("/metrics").get_data(as_text=True)
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_requests_rows_and_errors(own_client):
    own_client.post("/models/price/predict", json={"instances": ROW["instances"] * 3})
    own_client.post("/predict", json={"model": "nobody", **ROW})
    found = figures(own_client)
    route = ("route", "/models/<name>/predict")
    answered = (("model", "price"), route, ("status", "200"), ("version", "1"))
    assert found["forward_pass_requests_total", *answered] == 1
    assert found["forward_pass_rows_total", ("model", "price"), ("version", "1")] == 3
    assert found["forward_pass_errors_total", ("code", "unknown_model"), ("model", ""), ("version", "")] == 1
    assert found["forward_pass_request_seconds_count", ("model", "price"), route, ("version", "1")] == 1
    assert found["forward_pass_model_loads_total", ("model", "price")] == 1
    assert found["forward_pass_requests_in_progress",] == 1
    assert [value for key, value in found.items() if key[0] == "forward_pass_model_info"] == [1, 1, 1]
    assert "nobody" not in str(found)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/models/price/predict", {"instances": [["x", 1]]}, 422),
        ("/models/price/versions/1/predict", b"{", 400),
        ("/predict", {"model": "price", "instances": [["x", 1]]}, 422),
        ("/invocations", {"model": "price", "instances": [["x", 1]]}, 422),
        ("/v1/models/price:predict", {"instances": [["x", 1]]}, 400),
        ("/v2/models/price/infer", {"inputs": []}, 400),
    ],
)
def test_a_rejected_request_is_counted_and_logged_for_its_model(client, caplog, path, body, status):
    with caplog.at_level(logging.INFO, "service.access"):
        answer = client.post(path, **({"data": body} if isinstance(body, bytes) else {"json": body}))
    assert answer.status_code == status
    counted = [
        dict(key[1:]) for key, value in figures(client).items() if key[0] == "forward_pass_errors_total" and value
    ]
    assert [(labels["model"], labels["version"]) for labels in counted] == [("price", "1")]
    assert "price/1 rows=0 error=" in caplog.text
    assert not [key for key in figures(client) if key[0] == "forward_pass_rows_total"]


def test_a_failure_after_inference_counts_as_an_error(client, monkeypatch):
    monkeypatch.setattr("model_store.schema.signature.Signature.decode_arrays", lambda *_: 1 / 0)
    assert client.post("/models/price/predict", json=ROW).status_code == 500
    found = figures(client)
    assert found["forward_pass_errors_total", ("code", "internal_error"), ("model", "price"), ("version", "1")] == 1
    assert not [key for key in found if key[0] in {"forward_pass_rows_total", "forward_pass_stage_seconds_count"}]


def test_metrics_follow_a_switch_of_versions(client, store, registry):
    store.publish("price", price(1))
    registry.refresh()
    found = figures(client)
    assert found["forward_pass_model_reloads_total", ("model", "price")] == 1
    labels = [dict(key[1:]) for key in found if key[0] == "forward_pass_model_info"]
    assert {label["model"]: label["version"] for label in labels} == {"image": "1", "penguins": "1", "price": "2"}
    assert len(labels) == 3


def test_requests_are_logged_except_health_checks(client, caplog):
    with caplog.at_level(logging.INFO, "service.access"):
        client.get("/healthz")
        client.get("/readyz")
        client.get("/metrics")
        assert not caplog.records
        client.post("/models/price/predict", json=ROW, headers={"X-Request-Id": "mine"})
        client.get("/models/pengins%0Aforged%1b[31m")
    good, bad = (record.getMessage() for record in caplog.records)
    assert "POST /models/price/predict 200" in good
    assert "price/1 rows=1 id=mine" in good
    assert "error=unknown_model" in bad
    assert "\n" not in bad
    assert "\x1b" not in bad


COLUMNS = {
    "penguins": {"island": ["Biscoe"], "mass": [4200.5]},
    "price": {"rooms": [3, 4], "area": [80, None]},
    "image": {"pixels": [[[1, 2], [3, 4]], [1, 2, 3, 4]]},
}


def test_openapi_document_is_valid_and_typed_for_each_model(client):
    document = client.get("/openapi.json").json
    validate(document)
    assert document["openapi"] == "3.1.0"
    instance = document["components"]["schemas"]["penguins.instance"]["anyOf"][0]
    assert instance["properties"]["island"]["enum"] == ["Biscoe", "Dream", "Torgersen"]
    assert instance["properties"]["sex"]["type"] == ["string", "null"]
    assert instance["required"] == ["island", "mass"]
    assert "2700 to 6300" in instance["properties"]["mass"]["description"]
    pixels = document["components"]["schemas"]["image.instance"]["anyOf"][0]
    assert (pixels["minItems"], pixels["items"]["items"]["maximum"]) == (2, 16.0)


def test_openapi_document_has_every_endpoint(client):
    paths = client.get("/openapi.json").json["paths"].keys()
    for rule in client.application.url_map.iter_rules():
        path = re.sub(r"<(?:segment:)?(\w+)>", r"{\1}", rule.rule)
        if rule.endpoint.startswith("model_pages."):  # what the page of a model fetches
            continue
        if rule.endpoint in {"pages.report_index", "pages.report", "pages.report_styles"}:
            continue
        if rule.endpoint not in {"static", "pages.root", "network.xor", "docs.docs", "docs.slash", "docs.openapi"}:
            assert path in paths


def test_real_requests_and_responses_match_the_openapi_document(client):
    document = client.get("/openapi.json").json

    def check(value, schema):
        jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)

    def schema(path, method, status):
        answer = document["paths"][path][method]["responses"][status]
        while "$ref" in answer:
            answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        return answer["content"]["application/json"]["schema"]

    def asked(path):
        return document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]

    for name in ("penguins", "price", "image"):
        path = f"/models/{name}/predict"
        body = {"instances": client.get(f"/models/{name}").json["example"]["instances"]}
        check(body, asked(path))
        check(client.post(path, json=body).json, schema(path, "post", "200"))
        check(client.post("/predict", json={"model": name, **body}).json, schema("/predict", "post", "200"))
        check(client.post(path, json={}).json, schema(path, "post", "422"))
        check(client.post(path, data="{").json, schema(path, "post", "400"))
        check(client.get(f"/models/{name}").json, schema("/models/{name}", "get", "200"))
        for columns in ({"instances": body["instances"]}, {"inputs": COLUMNS[name]}):
            check(columns, asked(f"/v1/models/{name}:predict"))
            response = client.post(f"/v1/models/{name}:predict", json=columns)
            check(response.json, schema(f"/v1/models/{name}:predict", "post", "200"))
        tensors = client.get(f"/v2/models/{name}/example").json
        check(tensors, asked(f"/v2/models/{name}/infer"))
        answer = client.post(f"/v2/models/{name}/infer", json=tensors).json
        check(answer, schema(f"/v2/models/{name}/infer", "post", "200"))
        for path, wrong in (
            (f"/v1/models/{name}:predict", {"inputs": 3}),
            (f"/v2/models/{name}/infer", {"inputs": []}),
        ):
            with pytest.raises(jsonschema.ValidationError):
                check(wrong, asked(path))
            check(client.post(path, json=wrong).json, schema(path, "post", "400"))
    ranked = client.post("/models/penguins/predict?top_k=1&receipt=true", json={"instances": [PENGUIN]}).json
    check(ranked, schema("/models/penguins/predict", "post", "200"))
    check(ranked, schema("/predict", "post", "200"))
    table = {"inputs": [{"name": "instances", "shape": [2, 2], "datatype": "INT8", "data": [3, 80, 4, 90]}]}
    check(table, asked("/v2/models/price/infer"))
    for path in ("/models", "/healthz", "/readyz"):
        check(client.get(path).json, schema(path, "get", "200"))
    with pytest.raises(jsonschema.ValidationError):
        check({"instances": [{**PENGUIN, "island": "Bisco"}]}, asked("/models/penguins/predict"))


def test_openapi_document_has_media_types_and_retry_after(client):
    document = client.get("/openapi.json").json
    binary = "application/octet-stream"
    for path in ("/v2/models/{name}/infer", "/v2/models/price/infer"):
        operation = document["paths"][path]["post"]
        assert binary in operation["requestBody"]["content"]
        assert binary in operation["responses"]["200"]["content"]
    for path in ("/predict", "/invocations"):
        # In words: generators of clients know no such bodies.
        assert "(text/csv)" in document["paths"][path]["post"]["description"]
    for kind in ("E503", "P503"):
        assert "Retry-After" in document["components"]["responses"][kind]["headers"]


def test_openapi_document_keeps_its_component_names(client):
    """Generated clients name their classes after them."""
    schemas = client.get("/openapi.json").json["components"]["schemas"].keys()
    of_model = ("instance", "prediction", "request", "response", "v1.request", "v1.rows", "v1.columns", "v1.response")
    explained = ("explain", "explanation", "v1.explain.request", "v1.explain.response")
    explained += ("v1.explain.rows", "v1.explain.columns")
    assert schemas == {
        *("Answer", "Error", "ErrorBody", "Example", "Fault", "Health", "Lesson", "Model", "ModelLine", "Models"),
        *("Alias", "AliasMove", "Aliases", "MoveAlias", "ProtectAlias", "RollBackAlias"),
        *("Network", "NetworkLayer", "WeightArray", "Activations", "ActivationsRequest", "LayerValues"),
        *("Predict", "Publication", "Ready", "Receipt", "InputColumn", "Output", "PredictedExample", "Traffic"),
        *("Conformal", "ExplainLimits", "Explanation", "V1ExplainRequest", "V1ExplainResponse"),
        *("Empty", "ErrorText", "InvocationRequest", "InvocationResponse"),
        *("V1Metadata", "V1ModelMetadata", "V1ModelSpec", "V1ModelStatus", "V1Models", "V1PredictRequest"),
        *("V1PredictResponse", "V1SignatureDef", "V1Status", "V1VersionStatus"),
        *("V2Duration", "V2Example", "V2Health", "V2InferRequest", "V2InferResponse", "V2InferStatistics"),
        *("V2ModelConfig", "V2ModelMetadata", "V2ModelReady", "V2ModelStatistics", "V2RepositoryChange"),
        *("V2RepositoryEntry", "V2RepositoryIndex", "V2RepositoryQuery", "V2RequestedOutput", "V2ServerMetadata"),
        *("V2Statistics", "V2Tensor", "V2TensorConfig", "V2TensorMetadata"),
        *(
            f"{name}.{part}"
            for name in ("image", "penguins", "price")
            for part in (*of_model, *explained, "v2.request", "v2.response")
        ),
    }


def operations(document):
    return [each for path in document["paths"].values() for each in path.values()]


def test_every_operation_has_an_id_of_its_own_whatever_the_models_names(client, store, registry):
    for name in ("predict", "model", "models", "version", "model_predict", "get_model"):
        store.publish(name, price(1))
    registry.refresh()
    ids = [operation["operationId"] for operation in operations(client.get("/openapi.json").json)]
    assert len(set(ids)) == len(ids)
    assert {"list_models", "predict", "predict_price", "v1_price", "v2_price", "get_v2_models_name_config"} <= {*ids}


def test_every_request_and_response_is_typed_by_a_component(client):
    document = client.get("/openapi.json").json
    bodies = [each["requestBody"] for each in operations(document) if "requestBody" in each]
    bodies += [answer for each in operations(document) for answer in each["responses"].values()]
    assert len(bodies) > 100
    for body in bodies:
        while "$ref" in body:
            body = document["components"]["responses"][body["$ref"].rpartition("/")[2]]
        for media_type, content in body["content"].items():
            schemas = content["schema"].get("anyOf", [content["schema"]])
            assert all("$ref" in schema for schema in schemas) or media_type in {
                "text/plain",
                "application/octet-stream",
            }


@pytest.mark.parametrize("name", ["penguins", "image", "price"])
def test_responses_of_other_protocols_match_the_openapi_document(client, name):
    document = client.get("/openapi.json").json
    for path, operation in document["paths"].items():
        if "get" not in operation or not path.startswith(("/v", "/models", "/ping")):
            continue
        url = path.replace("{name}", name).replace("/versions/{version}", "/versions/1").replace("{version}", "latest")
        schema = operation["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        answer = client.get(url)
        assert answer.status_code == 200, url
        jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(answer.json)


def test_openapi_document_follows_the_store(client, store, registry):
    client.get("/openapi.json")
    store.publish("rent", price(1))
    registry.refresh()
    assert "/models/rent/predict" in client.get("/openapi.json").json["paths"]


def test_reference_page_escapes_text_of_models(client):
    page = client.get("/docs").get_data(as_text=True)
    assert "Ink &amp; slant of &lt;b&gt;an image&lt;/b&gt;" in page
    assert "Accuracy 97.5 % on 69 test rows" in page
    assert "?warnings=true" in page
    assert "?receipt=true" in page
    assert "http://localhost/models/penguins/predict" in page
    assert " style=" not in page
    assert "onclick" not in page
    assert "<script>" not in page


def test_reference_page_without_a_model_shows_how_to_train_one(make_client, tmp_path):
    from model_store.registry.store import open_store

    page = make_client(open_store(tmp_path / "none")).get("/docs")
    assert page.status_code == 200
    assert "train examples/penguins.toml" in page.get_data(as_text=True)


@pytest.mark.parametrize(
    "training", [{}, {"metrics": 3}, {"metrics": {"classes": {"a": 1}}}, {"metrics": {}, "baseline": []}]
)
def test_reference_page_accepts_metrics_of_any_form(make_client, store, training):
    from model_store.artifact.model import Model

    model = price(1)
    store.publish("price", Model(model.network, model.signature, training=training))
    assert make_client(store).get("/docs").status_code == 200


def test_reference_page_shows_the_metrics_of_a_loss(make_client, store):
    model = price(1)
    figures = {"rmse": 2.0, "mae": 1.0, "r2": 0.5, "pinball_loss": 0.25, "d2": 0.75, "coverage": 0.895}
    metrics = {"rows": 40, "of": "test rows", "quantile": 0.9, "targets": {"price": figures}}
    training = {"metrics": metrics, "baseline": {"targets": {"price": {**figures, "coverage": 0.9}}}}
    store.publish("price", Model(model.network, model.signature, training=training))
    page = make_client(store).get("/docs").get_data(as_text=True)
    for words in ("always predicts the 0.9 quantile", "pinball loss", "D²", "0.7500", "89.5 %"):
        assert words in page


@pytest.mark.parametrize("statistics", [{"min": "a", "max": 3}, {"min": {}, "max": []}, {"mean": "x"}, {"mean": [1]}])
def test_reference_page_accepts_column_statistics_of_any_form(make_client, tmp_path, statistics):
    store = open_store(tmp_path / "odd")
    for column in (NumberColumn("x", statistics=statistics), ArrayColumn("image", (2, 2), statistics=statistics)):
        signature = Signature((column,), RegressionOutput(("y",), (0.0,), (1.0,)))
        store.publish(column.kind, Model(Sequential([Linear(signature.width, 1)]), signature))
    client = make_client(store)
    assert client.get("/readyz").json["status"] == "ready"
    for path in ("/docs", "/openapi.json", "/models/number", "/models/array"):
        assert client.get(path).status_code == 200
    assert client.post("/models/number/predict?warnings=true", json={"instances": [[1]]}).json["warnings"] == []


def test_openapi_document_does_not_keep_a_replaced_version_in_memory(client, store, registry):
    replaced = weakref.ref(registry.find("price").model)
    client.get("/openapi.json")
    store.publish("price", price(1))
    registry.refresh()
    gc.collect()
    assert replaced() is None
    assert client.get("/openapi.json").status_code == 200


def test_metrics_have_the_content_type_of_their_format(client):
    assert client.get("/metrics").content_type == "text/plain; version=0.0.4; charset=utf-8"


def test_without_the_directory_of_the_counts_only_metrics_fail(own_client):
    shutil.rmtree(own_client.application.extensions["recorder"].metrics.counters.directory)
    found = own_client.get("/metrics")
    assert (found.status_code, found.json["error"]["code"]) == (503, "metrics_unavailable")
    assert "restart the service to count again" in found.json["error"]["message"]
    assert own_client.post("/models/price/predict", json=ROW).status_code == 200
    assert own_client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/models/price/predict", "price"),
        ("/models/price/versions/1/predict", "price"),
        ("/models/price/versions/9/predict", None),
        ("/v1/models/price:predict", "price"),
        ("/v2/models/price/infer", "price"),
        ("/models/unknown/predict", None),
        ("/predict", None),
        ("/healthz", None),
    ],
)
def test_the_model_of_a_path_is_known_without_its_body(client, path, name):
    served = client.application.extensions["registry"].version_at(path)
    assert name == (served and served.name)


@pytest.mark.parametrize("path", ["/models//price", "/models/price//", "/models/price//predict"])
def test_double_slashes_in_a_path_get_an_error_in_json(client, path):
    found = client.get("http://h" + path)
    assert (found.status_code, found.json["error"]["code"]) == (404, "not_found")
