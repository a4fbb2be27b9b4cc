"""Keys: who may ask what, where nobody needs one, and what a stranger is told."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from model_store.registry.store import Store, open_store
from service.cli import main
from service.config import Settings, SettingsError
from service.security import api_keys
from service.security.api_keys import AccessDeniedError, ApiKey, ApiKeys, KeyFileError, generate_key, parse_key_file
from tests.service.conftest import MakeClient, assert_error, price

ROWS = {"instances": [[3, 80]]}
KEY_OF = {scope: f"fp_{scope}" for scope in api_keys.SCOPES}
HEALTH = ["/", "/healthz", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready"]


def line(name: str, scopes: str, secret: str) -> str:
    return f"{name} {scopes} sha256:{hashlib.sha256(secret.encode()).hexdigest()}\n"


def bearer(scope: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEY_OF[scope]}"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A key for each scope."""
    path = tmp_path / "keys"
    path.write_text("# who asks\n\n" + "".join(line(f"of-{scope}", scope, KEY_OF[scope]) for scope in api_keys.SCOPES))
    return path


@pytest.fixture
def guarded(store: Store, make_client: MakeClient, file: Path) -> FlaskClient:
    return make_client(store, keys_file=str(file), admin=True)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# --- the file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at least one key"),
        ("# nobody\n", "at least one key"),
        ("shop predict\n", "line 1: expected a name, its scopes and the hash"),
        ("shop predict, metrics sha256:" + 64 * "0", "found 4 words"),
        ("shop predict sha256:" + 63 * "0", "64 hexadecimal digits"),
        ("shop predict " + 64 * "0", "expected sha256:"),
        ("shop predict fp_thekeyitself", "serve keygen makes such a line"),
        ("shop everything sha256:" + 64 * "0", "expected scopes of predict, metrics, admin"),
        ("sh/op predict sha256:" + 64 * "0", "expected a name"),
    ],
)
def test_a_file_that_is_not_one_of_keys_is_refused_with_the_place(text: str, said: str) -> None:
    with pytest.raises(KeyFileError, match="keys") as refused:
        parse_key_file(text, "keys")
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "text", ["fp_secret", "shop fp_secret sha256:x", "fp_secret! predict x", "a predict fp_secret"]
)
def test_a_key_that_stands_where_it_should_not_is_not_repeated(text: str) -> None:
    with pytest.raises(KeyFileError) as refused:
        parse_key_file(text, "keys")
    assert "secret" not in str(refused.value)


def test_all_faults_of_a_file_are_told_at_once() -> None:
    with pytest.raises(KeyFileError) as refused:
        parse_key_file("a predict x\nb nothing sha256:" + 64 * "0" + "\n", "keys")
    assert [fault.split(":")[0] for fault in refused.value.faults] == ["keys line 1", "keys line 2"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"x" * (api_keys.MAX_FILE_BYTES + 1), b""])
def test_the_service_does_not_start_without_the_keys_it_was_told_of(
    store: Store, make_client: MakeClient, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match="SERVE_KEYS_FILE"):
        make_client(store, keys_file=str(path))


def test_a_new_key_is_known_by_its_hash_alone() -> None:
    secret, key = generate_key("shop", ("predict", "metrics"))
    assert secret.startswith(api_keys.KEY_PREFIX)
    assert len(secret) > 40
    assert secret not in str(key)
    assert parse_key_file(str(key), "keys") == [key]
    assert generate_key("shop", ("predict",))[0] != secret


# --- checking


def test_a_key_is_good_for_its_scopes_and_no_others(file: Path) -> None:
    keys = ApiKeys(file)
    for scope in api_keys.SCOPES:
        keys.require_scope(f"Bearer {KEY_OF[scope]}", scope)
        for other in set(api_keys.SCOPES) - {scope}:
            with pytest.raises(AccessDeniedError) as refused:
                keys.require_scope(f"Bearer {KEY_OF[scope]}", other)
            assert (refused.value.status, refused.value.code) == (403, "forbidden")
            assert refused.value.fault.fix == f"send one that has it; serve keygen NAME --scope {other} makes one"
            assert f'scope="{other}"' in refused.value.challenge


@pytest.mark.parametrize(
    "authorization",
    [
        None, "", "Bearer", "Bearer ", "Bearer fp_", "Bearer fp_predic", "Bearer fp_predictx", "Bearer FP_PREDICT",
        "Basic fp_predict", "fp_predict", "Bearer fp_predict fp_predict", "Bearer, fp_predict", "Bearer \xff\ud800",
        "Bearer " + hashlib.sha256(b"fp_predict").hexdigest(), "Bearer sha256:" + 64 * "0", "Bearer " + "x" * 8000,
    ],
)  # fmt: skip
def test_whatever_is_not_a_key_is_not_known(file: Path, authorization: str | None) -> None:
    keys = ApiKeys(file)
    with pytest.raises(AccessDeniedError) as refused:
        keys.require_scope(authorization, "predict")
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")
    assert refused.value.challenge.startswith("Bearer realm=")


@pytest.mark.parametrize("authorization", ["Bearer fp_predict", "bearer fp_predict", "BEARER  fp_predict "])
def test_the_word_bearer_may_be_written_in_any_case(file: Path, authorization: str) -> None:
    ApiKeys(file).require_scope(authorization, "predict")


def test_keys_of_several_scopes_and_a_name_with_two_keys(file: Path) -> None:
    file.write_text(line("shop", "predict,metrics", "old") + line("shop", "predict", "new"))
    keys = ApiKeys(file)
    keys.require_scope("Bearer old", "metrics")
    keys.require_scope("Bearer new", "predict")
    with pytest.raises(AccessDeniedError):
        keys.require_scope("Bearer new", "metrics")


def comparisons(check: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> int:
    compared: list[bytes] = []

    def compare(known: bytes, asked: bytes) -> bool:
        compared.append(known)
        return hmac_compare_digest(known, asked)

    hmac_compare_digest = hmac.compare_digest
    with monkeypatch.context() as patched:
        patched.setattr(api_keys.hmac, "compare_digest", compare)
        with contextlib.suppress(AccessDeniedError):
            check()
    return len(compared)


def test_every_key_is_compared_in_constant_time_whichever_it_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("".join(line(f"caller-{n}", "predict", f"key-{n}") for n in range(20)))
    keys = ApiKeys(file)
    for secret in ("key-0", "key-19", "nobody's"):
        assert comparisons(lambda secret=secret: keys.require_scope(f"Bearer {secret}", "predict"), monkeypatch) == 20

    class Hasty(ApiKeys):
        """What a check without this defence would do: stop at the first key that fits."""

        def require_scope(self, authorization: str | None, scope: str) -> None:
            digest = hashlib.sha256(str(authorization).removeprefix("Bearer ").encode()).digest()
            next(known for known, _ in self._digests if api_keys.hmac.compare_digest(known, digest))

    hasty = Hasty(file)
    assert comparisons(lambda: hasty.require_scope("Bearer key-0", "predict"), monkeypatch) == 1


# --- the file changes


def test_keys_are_swapped_when_the_file_changes(file: Path) -> None:
    clock = Clock()
    keys = ApiKeys(file, clock)
    file.write_text(line("new", "predict", "fp_new"))
    keys.require_scope("Bearer fp_predict", "predict")  # looked at once a second
    clock.now += api_keys.RELOAD_CHECK_SECONDS
    keys.require_scope("Bearer fp_new", "predict")
    with pytest.raises(AccessDeniedError):
        keys.require_scope("Bearer fp_predict", "predict")


def test_a_link_that_is_turned_to_another_file_is_followed(file: Path, tmp_path: Path) -> None:
    link, other = tmp_path / "link", tmp_path / "other"
    link.symlink_to(file)
    other.write_text(file.read_text().replace("of-predict", "by-predict"))
    clock = Clock()
    keys = ApiKeys(link, clock)
    other.write_text(line("new", "predict", "fp_new"))
    (tmp_path / "turned").symlink_to(other)
    (tmp_path / "turned").replace(link)
    clock.now += api_keys.RELOAD_CHECK_SECONDS
    keys.require_scope("Bearer fp_new", "predict")


@pytest.mark.parametrize("damage", ["broken", "empty", "gone"])
def test_a_file_that_cannot_be_read_any_more_leaves_its_keys_in_force_and_is_told_of(
    store: Store, make_client: MakeClient, file: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(store, keys_file=str(file))
    good = file.read_text()
    assert client.get("/readyz").get_json()["status"] == "ready"
    if damage == "gone":
        file.unlink()
    else:
        file.write_text("" if damage == "empty" else good[:-2])
    with caplog.at_level(logging.ERROR, "service"):
        ready = client.get("/readyz", headers=bearer("metrics")).get_json()
        client.get("/readyz")
    assert ready["status"] == "degraded"
    assert [problem["location"] for problem in ready["problems"]] == ["keys"]
    assert len(caplog.records) == 1
    assert client.post("/models/price/predict", json=ROWS, headers=bearer("predict")).status_code == 200
    assert client.post("/models/price/predict", json=ROWS).status_code == 401
    assert "forward_pass_problems 1.0" in client.get("/metrics", headers=bearer("metrics")).get_data(as_text=True)

    file.write_text(good + line("one-more", "predict", "fp_more"))
    assert client.get("/readyz", headers=bearer("metrics")).get_json()["problems"] == []
    assert (
        client.post("/models/price/predict", json=ROWS, headers={"Authorization": "Bearer fp_more"}).status_code == 200
    )


# --- over HTTP


def test_without_a_file_nobody_needs_a_key(client: FlaskClient) -> None:
    assert client.post("/models/price/predict", json=ROWS).status_code == 200
    assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize("path", HEALTH)
def test_health_is_open(guarded: FlaskClient, path: str) -> None:
    assert guarded.get(path).status_code == 200


def test_who_has_no_key_is_told_the_status_alone(guarded: FlaskClient, client: FlaskClient) -> None:
    assert guarded.get("/readyz").get_json() == {"status": "ready"}
    assert guarded.get("/readyz", headers={"Authorization": "Bearer fp_nobody"}).get_json() == {"status": "ready"}
    assert "price" in guarded.get("/readyz", headers=bearer("metrics")).get_json()["models"]
    assert "price" in client.get("/readyz").get_json()["models"]  # where nobody needs a key


def refusals(client: FlaskClient) -> dict[tuple[str, str], int]:
    """{(method, rule): status} of every address, asked by a stranger."""
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


def test_every_other_address_asks_for_a_key(guarded: FlaskClient, client: FlaskClient) -> None:
    asked = refusals(guarded)
    assert {rule for (_, rule), status in asked.items() if status != 401} == set(HEALTH)
    assert ("POST", "/predict") in asked
    assert 401 not in refusals(client).values()


@pytest.mark.parametrize(
    "path", ["/nothing/here", "/models/unknown", "/models/price/predict/", "/models//price", "/metrics/"]
)
def test_a_stranger_is_not_told_which_addresses_and_models_there_are(guarded: FlaskClient, path: str) -> None:
    assert guarded.get(path).status_code == 401


def test_the_figures_and_the_repository_need_scopes_of_their_own(guarded: FlaskClient) -> None:
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
def test_a_refusal_has_the_shape_of_its_protocol_and_says_nothing_of_the_models(
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


def test_examples_that_a_holder_of_a_key_is_given_send_it(guarded: FlaskClient, client: FlaskClient) -> None:
    wrong = {"instances": [["x", 80]]}
    lesson = guarded.post("/models/price/predict", json=wrong, headers=bearer("predict")).get_json()["error"]["example"]
    assert '-H "Authorization: Bearer $FORWARD_PASS_KEY"' in lesson["curl"]
    assert KEY_OF["predict"] not in lesson["curl"]
    assert (
        "Authorization" not in client.post("/models/price/predict", json=wrong).get_json()["error"]["example"]["curl"]
    )


@pytest.mark.parametrize("path", ["/models/price/predict", "/v2/models/price/infer", "/nowhere"])
def test_what_stands_behind_the_question_mark_is_never_logged(
    guarded: FlaskClient, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """There a key stands that was put into the address."""
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


def test_the_openapi_document_says_that_keys_are_needed(guarded: FlaskClient, client: FlaskClient) -> None:
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


# --- the second listener

MAIN, SECOND = "http://localhost:8000", "http://localhost:8001"


@pytest.mark.parametrize("path", ["/metrics", "/v2/repository/index", "/v2/repository/models/price/unload"])
def test_what_is_administrative_is_answered_by_the_second_listener_alone(
    store: Store, make_client: MakeClient, path: str
) -> None:
    method = "GET" if path == "/metrics" else "POST"
    split = make_client(store, admin=True, admin_port=8001)
    assert split.open(path, method=method, base_url=MAIN).status_code == 404
    assert split.open(path, method=method, base_url=MAIN, headers={"Host": "localhost:8001"}).status_code == 404
    assert split.open(path, method=method, base_url=MAIN, headers={"X-Forwarded-Port": "8001"}).status_code == 404
    assert split.open(path, method=method, base_url=SECOND).status_code == 200
    # Without a second listener there is no such rule.
    assert make_client(store, admin=True).open(path, method=method, base_url=MAIN).status_code == 200


def test_the_second_listener_answers_everything_else_too(store: Store, make_client: MakeClient) -> None:
    split = make_client(store, admin_port=8001)
    for base in (MAIN, SECOND):
        assert split.post("/models/price/predict", json=ROWS, base_url=base).status_code == 200
        assert split.get("/healthz", base_url=base).status_code == 200


def test_the_repository_is_closed_by_default_and_opens_on_a_listener_of_its_own() -> None:
    assert not Settings.from_environ({}).admin
    with pytest.raises(SettingsError, match="SERVE_ADMIN_PORT"):
        Settings.from_environ({"SERVE_ADMIN": "true"})
    assert Settings.from_environ({"SERVE_ADMIN": "true", "SERVE_ADMIN_PORT": "8001"}).admin


# --- no address, no path


def test_the_repository_never_takes_a_path_or_an_address(tmp_path: Path, make_client: MakeClient) -> None:
    store = open_store(tmp_path / "models")
    store.publish("price", price())
    open_store(tmp_path / "elsewhere").publish("bait", price())  # a model that would load, if somebody fetched it
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
def test_the_repository_takes_no_file_from_a_caller(store: Store, make_client: MakeClient, parameters: Any) -> None:
    client = make_client(store, admin=True)
    answer = client.post("/v2/repository/models/price/load", json={"parameters": parameters})
    assert answer.status_code == 400
    assert "loaded from the store" in answer.get_json()["error"]


# --- serve keygen


def test_keygen_prints_a_key_and_files_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    secrets = []
    for words in (["shop"], ["grafana", "--scope", "metrics"], ["both", "--scope", "predict", "--scope", "admin"]):
        done = CliRunner().invoke(main, ["keygen", *words, "--file", str(path)])
        assert done.exit_code == 0, done.output
        secrets.append(done.stdout.strip())
    assert all(secret not in path.read_text() for secret in secrets)
    keys = ApiKeys(path)
    keys.require_scope(f"Bearer {secrets[0]}", "predict")
    keys.require_scope(f"Bearer {secrets[1]}", "metrics")
    keys.require_scope(f"Bearer {secrets[2]}", "admin")


def test_keygen_without_a_file_shows_the_line_for_one() -> None:
    done = CliRunner().invoke(main, ["keygen", "shop"], env={"SERVE_KEYS_FILE": ""})
    secret = done.stdout.strip()
    shown = done.stderr.split(":  ")[1]
    (key,) = parse_key_file(shown, "keys")
    assert key == ApiKey("shop", ("predict",), hashlib.sha256(secret.encode()).digest())


def test_keygen_leaves_a_file_alone_that_is_not_one_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("buy milk\n")
    done = CliRunner().invoke(main, ["keygen", "shop", "--file", str(path)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert path.read_text() == "buy milk\n"
    named = CliRunner().invoke(main, ["keygen", "no such name"])
    assert named.exit_code == 2
    assert "NAME: expected a name of letters, digits and . _ @ -, 64 at most; found 'no such name'" in named.stderr


# --- the lesson


def test_the_line_that_is_taught_has_the_callers_key_from_the_shell_and_never_in_print(guarded):
    paths = ("/models/price/predict", "/v1/models/price:predict", "/v2/models/price/infer")
    for path, scope in (*((path, "predict") for path in paths), ("/v2/repository/models/price/load", "admin")):
        response = guarded.post(path, json=[], headers=bearer(scope))
        text = response.get_data(as_text=True).replace('\\"', '"')
        assert 'curl -s -H "Authorization: Bearer $FORWARD_PASS_KEY" http://localhost' in text
        assert KEY_OF[scope] not in text


@pytest.mark.parametrize("path", ["/nothing", "/models/price/example", "/v2/models/price/example", "/models/pric"])
def test_a_stranger_is_taught_nothing_of_the_models(guarded, path):
    for method in ("GET", "POST"):
        response = guarded.open(path, method=method)
        assert response.status_code in {401, 404, 405}
        assert "instances" not in response.get_data(as_text=True)
        assert "rooms" not in response.get_data(as_text=True)


def test_the_curl_lines_of_the_page_send_a_key_where_one_is_needed(guarded: FlaskClient, client: FlaskClient) -> None:
    sent = "-H &#34;Authorization: Bearer $FORWARD_PASS_KEY&#34; http://localhost/models/price/predict -d "
    assert sent in guarded.get("/docs", headers=bearer("predict")).text
    assert "FORWARD_PASS_KEY" not in client.get("/docs").text
