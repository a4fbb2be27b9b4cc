"""The statistics and the repository API of the Open Inference Protocol."""

from service.telemetry.exposition import ExpositionWriter
from tests.service.conftest import break_version, price, text_error, with_golden
from tests.service.protocols.test_open_inference import PENGUINS, PRICE, infer


def test_statistics_count_rows_and_requests(own_client):
    infer(own_client, "penguins", PENGUINS)
    infer(own_client, "penguins", PENGUINS)
    (found,) = own_client.get("/v2/models/penguins/stats").json["model_stats"]
    assert (found["inference_count"], found["execution_count"], found["version"]) == (4, 2, "1")
    assert found["inference_stats"]["compute_infer"]["count"] == 2
    assert found["inference_stats"]["fail"] == {"count": 0, "ns": 0}
    text_error(infer(own_client, "penguins", PRICE), 400)
    (found,) = own_client.get("/v2/models/penguins/stats").json["model_stats"]
    assert found["inference_stats"]["success"]["count"] == 2
    assert found["inference_stats"]["fail"]["count"] == 1
    assert 0 < found["inference_stats"]["fail"]["ns"] < 1e9
    assert found["inference_stats"]["cache_hit"] == {"count": 0, "ns": 0}
    assert len(own_client.get("/v2/models/stats").json["model_stats"]) == 3


def test_statistics_of_many_models_read_the_counters_once(client, monkeypatch):
    """Reading them for each of a hundred models blocked a worker for 14 s."""
    infer(client, "penguins", PENGUINS)
    read = []
    monkeypatch.setattr(
        ExpositionWriter, "_totals", lambda self, totals=ExpositionWriter._totals: read.append(1) or totals(self)
    )
    assert len(client.get("/v2/models/stats").json["model_stats"]) == 3
    assert len(read) == 1


def test_repository_api_is_disabled_by_default(client):
    for path in ("index", "models/price/load", "models/price/unload"):
        assert "SERVE_ADMIN" in text_error(client.post(f"/v2/repository/{path}"), 404)


def test_models_are_unloaded_and_loaded_again(store, make_client):
    client = make_client(store, admin=True)
    assert "model_repository" in client.get("/v2").json["extensions"]
    unload = {"parameters": {"unload_dependents": False}}
    assert client.post("/v2/repository/models/price/unload", json=unload).status_code == 200
    assert "unloaded" in text_error(infer(client, "price", PRICE), 503)
    assert client.get("/v2/models/price/ready").status_code == 503
    states = {each["name"]: each for each in client.post("/v2/repository/index").json}
    assert (states["price"]["state"], states["price"]["reason"]) == ("UNAVAILABLE", "unloaded")
    ready = client.post("/v2/repository/index", json={"ready": True}).json
    assert {each["name"] for each in ready} == {"image", "penguins"}
    assert client.post("/v2/repository/models/price/load", json={}).status_code == 200
    assert infer(client, "price", PRICE).status_code == 200


def test_a_service_whose_models_are_all_unloaded_is_not_ready(store, make_client):
    client = make_client(store, admin=True)
    checks = ("/readyz", "/v2/health/ready", "/ping")
    for name in ("price", "image", "penguins"):
        assert [client.get(path).status_code for path in checks] == [200] * 3
        client.post(f"/v2/repository/models/{name}/unload")
    assert [client.get(path).status_code for path in checks] == [503] * 3
    assert client.get("/readyz").json["status"] == "unavailable"
    assert set(client.get("/readyz").json["models"].values()) == {None}
    assert client.get("/healthz").status_code == client.get("/v2/health/live").status_code == 200
    client.post("/v2/repository/models/image/load")
    assert [client.get(path).status_code for path in checks] == [200] * 3
    assert client.get("/readyz").json["models"] == {"image": 1, "penguins": None, "price": None}


def test_an_unloaded_model_stays_unloaded_when_another_service_uses_the_same_cache(store, make_client):
    """Two containers may share a cache, and each has the process id 1."""
    client = make_client(store, admin=True)
    client.post("/v2/repository/models/price/unload")
    assert infer(make_client(store, admin=True), "price", PRICE).status_code == 200
    assert "unloaded" in text_error(infer(client, "price", PRICE), 503)
    assert client.post("/v2/repository/models/image/unload").status_code == 200


def test_load_syncs_with_the_store_and_rejects_files(store, make_client):
    client = make_client(store, admin=True)
    store.publish("other", with_golden(price(5), [[3, 80]]))
    assert client.get("/v2/models/other/ready").status_code == 404
    assert client.post("/v2/repository/models/other/load", json={}).status_code == 200
    assert client.get("/v2/models/other/ready").status_code == 200
    text_error(client.post("/v2/repository/models/nothing/load", json={}), 404)
    text_error(client.post("/v2/repository/models/nothing/unload"), 404)
    body = {"parameters": {"file:1/model": "AAAA"}}
    assert "file:1/model" in text_error(client.post("/v2/repository/models/other/load", json=body))
    for wrong in ([], {"parameters": 3}):
        text_error(client.post("/v2/repository/models/other/load", json=wrong))
    text_error(client.post("/v2/repository/index", json={"ready": 1}))


def test_index_reports_why_a_version_is_unavailable(store, make_client):
    store.publish("price", with_golden(price(1), [[3, 80]]))
    break_version(store, "price", 2)
    client = make_client(store, admin=True)
    states = {(e["name"], e["version"]): e for e in client.post("/v2/repository/index", json={}).json}
    assert states["price", "1"]["state"] == "READY"
    assert states["price", "2"]["state"] == "UNAVAILABLE"
    assert states["price", "2"]["reason"]
