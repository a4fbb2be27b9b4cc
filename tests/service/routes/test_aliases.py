"""Aliases over HTTP: their history, and the moves of operators."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from flask.testing import FlaskClient

from model_store.registry.store import Store
from service.registry.errors import WouldBlock
from tests.service.conftest import MakeClient, assert_error, fault_locations, move, penguins
from tests.service.security.keys import KEY_OF, bearer, line

DEFAULT = "/models/penguins/aliases/default"
MOVES = [
    (DEFAULT, {"version": 1, "why": "test"}),
    (f"{DEFAULT}/rollback", {"why": "test"}),
    (f"{DEFAULT}/protection", {"protected": True, "why": "test"}),
]


@pytest.fixture
def versions(store: Store) -> Store:
    """Penguins has three versions, and no alias."""
    for seed in (1, 2):
        store.publish("penguins", penguins(seed))
    return store


@pytest.fixture
def operator(versions: Store, make_client: MakeClient) -> FlaskClient:
    return make_client(versions, admin=True)


def aliases(client: FlaskClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/models/penguins/aliases").json["aliases"]
    return found


def test_a_model_without_aliases_shows_that_default_is_the_newest_version(operator: FlaskClient) -> None:
    found = operator.get("/models/penguins/aliases").json
    default = {"version": 3, "is_set": False, "protected": False, "rollback_to": 2, "history": []}
    assert found == {"model": "penguins", "versions": [1, 2, 3], "aliases": {"default": default}}


def test_a_move_is_in_the_store_and_in_its_history_with_who_and_why(operator: FlaskClient, versions: Store) -> None:
    answer = operator.post(DEFAULT, json={"version": 1, "why": "fewer mistakes"})
    assert answer.status_code == 200
    assert versions.resolve("penguins") == 1
    assert answer.json["move"] == aliases(operator)["default"]["history"][0]
    last = versions.history("penguins")[-1]
    assert (last.version, last.why, last.who) == (1, "fewer mistakes", "service, without an API key")
    assert [revision["version"] for revision in aliases(operator)["default"]["history"]] == [1, 3]
    operator.application.extensions["registry"].refresh()
    assert operator.get("/models/penguins").json["version"] == 1


def test_the_name_of_the_key_is_who_moved_an_alias(versions: Store, make_client: MakeClient, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(line("ada", "admin", KEY_OF["admin"]))
    client = make_client(versions, admin=True, keys_file=str(keys))
    assert client.post(DEFAULT, json={"version": 2, "why": "better"}, headers=bearer("admin")).status_code == 200
    assert versions.history("penguins")[-1].who == "ada"


def test_times_of_moves_are_in_utc(operator: FlaskClient, versions: Store) -> None:
    move(versions, "penguins", "default", 2)
    path = versions.root / "penguins" / "aliases" / "default" / "2.json"
    path.chmod(0o600)
    path.write_text(path.read_text().replace("2024-01-01T00:00:00+00:00", "2024-01-01T02:00:00+02:00"))
    assert aliases(operator)["default"]["history"][0]["when"] == "2024-01-01T00:00:00+00:00"


def test_a_rollback_leads_to_the_version_that_was_shown(operator: FlaskClient, versions: Store) -> None:
    operator.post(DEFAULT, json={"version": 1, "why": "a mistake"})
    assert aliases(operator)["default"]["rollback_to"] == 3
    answer = operator.post(f"{DEFAULT}/rollback", json={"why": "it was a mistake"})
    assert (answer.json["move"]["version"], answer.json["move"]["rollback"]) == (3, True)
    assert versions.resolve("penguins") == 3


def test_a_protected_alias_moves_by_a_gate_or_by_force_only(operator: FlaskClient, versions: Store) -> None:
    operator.post(DEFAULT, json={"version": 1, "why": "first"})
    assert operator.post(f"{DEFAULT}/protection", json={"protected": True, "why": "on sale"}).status_code == 200
    assert aliases(operator)["default"]["protected"] is True
    error = assert_error(operator.post(DEFAULT, json={"version": 2, "why": "x"}), 409, "conflict")
    assert "protected" in error["message"]
    assert_error(operator.post(f"{DEFAULT}/rollback", json={"why": "x"}), 409, "conflict")
    failed = operator.post(DEFAULT, json={"version": 2, "why": "x", "gates": ["accuracy>default"]})
    assert "0.975 against 0.975" in assert_error(failed, 409, "gate_failed")["message"]
    assert versions.resolve("penguins") == 1
    assert operator.post(DEFAULT, json={"version": 2, "why": "x", "gates": ["accuracy>=default"]}).status_code == 200
    assert operator.post(DEFAULT, json={"version": 3, "why": "x", "force": True}).status_code == 200
    assert "accuracy>=default" in versions.history("penguins")[-2].why
    assert operator.post(f"{DEFAULT}/protection", json={"protected": False, "why": "over"}).status_code == 200
    assert operator.post(DEFAULT, json={"version": 1, "why": "x"}).status_code == 200


def test_a_move_that_someone_else_was_before_is_refused(operator: FlaskClient, versions: Store) -> None:
    move(versions, "penguins", "default", 2)
    error = assert_error(operator.post(DEFAULT, json={"version": 1, "why": "x", "expected": None}), 409, "conflict")
    assert "expected it to point to nothing, found 2" in error["message"]
    assert operator.post(DEFAULT, json={"version": 1, "why": "x", "expected": 2}).status_code == 200


@pytest.mark.parametrize(
    ("body", "locations"),
    [
        ({"version": 1}, ["why"]),
        ({"why": "x"}, ["version"]),
        ({"version": 1.5, "why": "x"}, ["version"]),
        ({"version": True, "why": "x"}, ["version"]),
        ({"version": 1, "why": ""}, ["why"]),
        ({"version": 1, "why": "x" * 1001}, ["why"]),
        ({"version": 1, "why": "x", "forced": True}, ["forced"]),
        ({"version": 1, "why": "x", "force": "yes"}, ["force"]),
        ({"version": 1, "why": "x", "expected": "1"}, ["expected"]),
        ({"version": 1, "why": "x", "gates": ["nonsense"]}, ["gate"]),
        ({"version": 1, "why": "x", "gates": [1]}, ["gates"]),
        ([1], ["body"]),
    ],
    ids=str,
)
def test_an_invalid_move_is_422_and_moves_nothing(
    operator: FlaskClient, versions: Store, body: Any, locations: list[str]
) -> None:
    error = assert_error(operator.post(DEFAULT, json=body), 422, "invalid_request")
    assert fault_locations(error) == locations
    assert "example" not in error  # a request to predict is none to move an alias
    assert versions.aliases("penguins") == {}


@pytest.mark.parametrize("alias", ["latest", "7", "a b", "-x", "x" * 101])
def test_an_invalid_alias_is_422(operator: FlaskClient, alias: str) -> None:
    answer = operator.post(f"/models/penguins/aliases/{alias}", json={"version": 1, "why": "x"})
    assert fault_locations(assert_error(answer, 422, "invalid_request")) == ["alias"]


@pytest.mark.parametrize("name", ["unknown", "..", "a%2Fb"])
def test_unknown_models_and_versions_are_404(operator: FlaskClient, name: str) -> None:
    assert operator.get(f"/models/{name}/aliases").status_code == 404
    assert operator.post(f"/models/{name}/aliases/default", json={"version": 1, "why": "x"}).status_code == 404
    assert_error(operator.post(DEFAULT, json={"version": 9, "why": "x"}), 404, "not_found")
    assert_error(operator.post("/models/penguins/aliases/canary/rollback", json={"why": "x"}), 404, "not_found")


def test_the_store_is_not_listed_for_an_unknown_model(
    operator: FlaskClient, versions: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(Store, "names", lambda _: read.append("names"))
    monkeypatch.setattr(Store, "versions", lambda *_: read.append("versions"))
    answer = operator.get("/models/pengins/aliases")
    error = assert_error(answer, 404, "unknown_model")
    assert error["message"] == "there is no model 'pengins'; did you mean 'penguins'?"
    assert str(versions.root) not in answer.text
    assert read == []


def test_a_model_that_left_the_store_is_unknown(operator: FlaskClient, versions: Store) -> None:
    shutil.rmtree(versions.root / "penguins")
    answer = operator.get("/models/penguins/aliases")
    assert_error(answer, 404, "unknown_model")
    assert str(versions.root) not in answer.text


def test_moves_are_off_by_default(client: FlaskClient, store: Store) -> None:
    for path, body in MOVES:
        assert_error(client.post(path, json=body), 404, "not_found")
    assert store.aliases("penguins") == {}


def test_moves_require_the_scope_admin(store: Store, make_client: MakeClient, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("".join(line(f"of-{scope}", scope, secret) for scope, secret in KEY_OF.items()))
    client = make_client(store, admin=True, keys_file=str(keys))
    for path, body in MOVES:
        assert client.post(path, json=body).status_code == 401
        for scope in ("predict", "metrics"):
            assert client.post(path, json=body, headers=bearer(scope)).status_code == 403
    assert store.aliases("penguins") == {}
    assert client.get("/models/penguins/aliases", headers=bearer("predict")).status_code == 200


def test_only_the_admin_port_moves_aliases(store: Store, make_client: MakeClient) -> None:
    client = make_client(store, admin=True, admin_port=8001)
    for path, body in MOVES:
        assert client.post(path, json=body, base_url="http://localhost:8000").status_code == 404
    assert store.aliases("penguins") == {}
    assert client.post(MOVES[0][0], json=MOVES[0][1], base_url="http://localhost:8001").status_code == 200


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}], ids=str)
def test_a_page_of_another_origin_cannot_move_an_alias(
    operator: FlaskClient, versions: Store, headers: dict[str, str]
) -> None:
    for path, body in MOVES:
        assert_error(operator.post(path, json=body, headers=headers), 403, "forbidden")
    assert versions.aliases("penguins") == {}


def test_a_store_that_cannot_be_written_is_503(operator: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> bool:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("model_store.registry.alias_log.put_object", refuse)
    answer = operator.post(DEFAULT, json={"version": 1, "why": "x"})
    assert "Read-only file system" in assert_error(answer, 503, "store_unavailable")["message"]
    assert answer.headers["Retry-After"]


def test_a_long_history_is_read_in_part(operator: FlaskClient, versions: Store) -> None:
    for number in range(60):
        move(versions, "penguins", "canary", 1 + number % 2)
    canary = aliases(operator)["canary"]
    assert len(canary["history"]) == 50
    assert canary["history"][0]["number"] == 60
    assert canary["rollback_to"] is None


def test_the_event_loop_does_not_wait_for_the_store(operator: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.registry.registry.ModelRegistry._on_event_loop_thread", lambda _: True)
    for request in (
        lambda: operator.get("/models/penguins/aliases"),
        *(lambda path=path, body=body: operator.post(path, json=body) for path, body in MOVES),
    ):
        with pytest.raises(WouldBlock):
            request()


def test_responses_match_the_openapi_document(operator: FlaskClient) -> None:
    document = operator.get("/openapi.json").json
    answers = [operator.get("/models/penguins/aliases"), *(operator.post(path, json=body) for path, body in MOVES)]
    schema = {"$ref": "#/components/schemas/Aliases", "components": document["components"]}
    for answer in answers:
        assert answer.status_code == 200
        jsonschema.Draft202012Validator(schema).validate(answer.json)
