"""API keys: the file, scopes, changes of the file, and `serve keygen`."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from model_store.registry.store import Store
from service.cli import main
from service.config import SettingsError
from service.security import api_keys
from service.security.api_keys import AccessDeniedError, ApiKey, ApiKeys, KeyFileError, generate_key, parse_key_file
from tests.service.conftest import MakeClient
from tests.service.security.keys import KEY_OF, ROWS, bearer, line


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at least one key"),
        ("# nobody\n", "at least one key"),
        ("shop predict\n", "line 1: expected a name, its scopes and the hash"),
        ("shop predict, metrics sha256:" + 64 * "0", "found 4 words"),
        ("shop predict sha256:" + 63 * "0", "64 hexadecimal digits"),
        ("shop predict " + 64 * "0", "expected sha256:"),
        ("shop predict fp_thekeyitself", "`serve keygen` makes such a line"),
        ("shop everything sha256:" + 64 * "0", "expected scopes of predict, metrics, admin"),
        ("sh/op predict sha256:" + 64 * "0", "expected a name"),
    ],
)
def test_an_invalid_key_file_is_rejected_with_the_location(text: str, said: str) -> None:
    with pytest.raises(KeyFileError, match="keys") as refused:
        parse_key_file(text, "keys")
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "text", ["fp_secret", "shop fp_secret sha256:x", "fp_secret! predict x", "a predict fp_secret"]
)
def test_a_secret_in_a_key_file_is_not_quoted(text: str) -> None:
    with pytest.raises(KeyFileError) as refused:
        parse_key_file(text, "keys")
    assert "secret" not in str(refused.value)


def test_all_faults_of_a_key_file_are_reported_at_once() -> None:
    with pytest.raises(KeyFileError) as refused:
        parse_key_file("a predict x\nb nothing sha256:" + 64 * "0" + "\n", "keys")
    assert [fault.split(":")[0] for fault in refused.value.faults] == ["keys line 1", "keys line 2"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"x" * (api_keys.MAX_FILE_BYTES + 1), b""])
def test_the_service_does_not_start_without_its_key_file(
    store: Store, make_client: MakeClient, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match="SERVE_KEYS_FILE"):
        make_client(store, keys_file=str(path))


def test_only_the_hash_of_a_new_key_is_stored() -> None:
    secret, key = generate_key("shop", ("predict", "metrics"))
    assert secret.startswith(api_keys.KEY_PREFIX)
    assert len(secret) > 40
    assert secret not in str(key)
    assert parse_key_file(str(key), "keys") == [key]
    assert generate_key("shop", ("predict",))[0] != secret


def test_a_key_is_valid_for_its_scopes_only(file: Path) -> None:
    keys = ApiKeys(file)
    for scope in api_keys.SCOPES:
        keys.require_scope(f"Bearer {KEY_OF[scope]}", scope)
        for other in set(api_keys.SCOPES) - {scope}:
            with pytest.raises(AccessDeniedError) as refused:
                keys.require_scope(f"Bearer {KEY_OF[scope]}", other)
            assert (refused.value.status, refused.value.code) == (403, "forbidden")
            assert (
                refused.value.fault.fix
                == f"send a key with that scope; create one with: serve keygen NAME --scope {other}"
            )
            assert f'scope="{other}"' in refused.value.challenge


@pytest.mark.parametrize(
    "authorization",
    [
        None, "", "Bearer", "Bearer ", "Bearer fp_", "Bearer fp_predic", "Bearer fp_predictx", "Bearer FP_PREDICT",
        "Basic fp_predict", "fp_predict", "Bearer fp_predict fp_predict", "Bearer, fp_predict", "Bearer \xff\ud800",
        "Bearer " + hashlib.sha256(b"fp_predict").hexdigest(), "Bearer sha256:" + 64 * "0", "Bearer " + "x" * 8000,
    ],
)  # fmt: skip
def test_anything_but_a_valid_key_is_401(file: Path, authorization: str | None) -> None:
    keys = ApiKeys(file)
    with pytest.raises(AccessDeniedError) as refused:
        keys.require_scope(authorization, "predict")
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")
    assert refused.value.challenge.startswith("Bearer realm=")


@pytest.mark.parametrize("authorization", ["Bearer fp_predict", "bearer fp_predict", "BEARER  fp_predict "])
def test_bearer_is_case_insensitive(file: Path, authorization: str) -> None:
    ApiKeys(file).require_scope(authorization, "predict")


def test_a_key_may_have_several_scopes_and_a_name_two_keys(file: Path) -> None:
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


def test_every_key_is_compared_in_constant_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("".join(line(f"caller-{n}", "predict", f"key-{n}") for n in range(20)))
    keys = ApiKeys(file)
    for secret in ("key-0", "key-19", "nobody's"):
        assert comparisons(lambda secret=secret: keys.require_scope(f"Bearer {secret}", "predict"), monkeypatch) == 20

    class Hasty(ApiKeys):
        """A check without this defence: stop at the first key that matches."""

        def require_scope(self, authorization: str | None, scope: str) -> None:
            digest = hashlib.sha256(str(authorization).removeprefix("Bearer ").encode()).digest()
            next(known for known, _ in self._digests if api_keys.hmac.compare_digest(known, digest))

    hasty = Hasty(file)
    assert comparisons(lambda: hasty.require_scope("Bearer key-0", "predict"), monkeypatch) == 1


def test_keys_are_replaced_when_the_file_changes(file: Path) -> None:
    clock = Clock()
    keys = ApiKeys(file, clock)
    file.write_text(line("new", "predict", "fp_new"))
    keys.require_scope("Bearer fp_predict", "predict")  # the file is checked once a second
    clock.now += api_keys.RELOAD_CHECK_SECONDS
    keys.require_scope("Bearer fp_new", "predict")
    with pytest.raises(AccessDeniedError):
        keys.require_scope("Bearer fp_predict", "predict")


def test_a_link_to_another_file_is_followed(file: Path, tmp_path: Path) -> None:
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
def test_the_last_valid_keys_stay_in_force_when_the_file_becomes_unreadable(
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


def test_keygen_prints_the_key_and_stores_its_hash(tmp_path: Path) -> None:
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


def test_keygen_without_a_file_prints_the_line_for_one() -> None:
    done = CliRunner().invoke(main, ["keygen", "shop"], env={"SERVE_KEYS_FILE": ""})
    secret = done.stdout.strip()
    shown = done.stderr.split(":  ")[1]
    (key,) = parse_key_file(shown, "keys")
    assert key == ApiKey("shop", ("predict",), hashlib.sha256(secret.encode()).digest())


def test_keygen_does_not_change_a_file_that_is_not_a_key_file(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("buy milk\n")
    done = CliRunner().invoke(main, ["keygen", "shop", "--file", str(path)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert path.read_text() == "buy milk\n"
    named = CliRunner().invoke(main, ["keygen", "no such name"])
    assert named.exit_code == 2
    assert "NAME: expected a name of letters, digits and . _ @ -, 64 at most; found 'no such name'" in named.stderr
