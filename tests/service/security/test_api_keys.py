"""API keys: the file, scopes, changes of the file, and `serve keygen`."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import json
import logging
import multiprocessing
import os
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from model_store.registry.store import Store
from service.cli import main
from service.config import SettingsError
from service.security import api_keys
from service.security.api_keys import AccessDeniedError, ApiKey, ApiKeys, KeyFileError, generate_key, parse_key_file
from tests.service.conftest import MakeClient
from tests.service.security.keys import KEY_OF, ROWS, bearer, line

BEYOND_UTC = ("9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00")  # have no year between 1 and 9999 in UTC


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


def test_the_message_about_a_file_that_is_no_key_file_is_short() -> None:
    with pytest.raises(KeyFileError) as refused:
        parse_key_file("a line of a log file\n" * 10_000, "keys")
    assert len(str(refused.value)) < 3000
    assert refused.value.faults[-1] == "and 9980 more faults"


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

        def require_scope(self, authorization: str | None, scope: str) -> str:
            digest = hashlib.sha256(str(authorization).removeprefix("Bearer ").encode()).digest()
            return next("" for known, _ in self._digests if api_keys.hmac.compare_digest(known, digest))

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


def test_the_last_valid_keys_stay_in_force_when_the_file_vanishes(
    store: Store, make_client: MakeClient, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(store, keys_file=str(file))
    good = file.read_text()
    assert client.get("/readyz").get_json()["status"] == "ready"
    file.unlink()
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


def damaged(file: Path, damage: str) -> None:
    """Rewrite a key file so that it is no longer one."""
    good = file.read_text()
    file.unlink()
    match damage:
        case "empty":
            file.write_text("")
        case "only a comment":
            file.write_text("".join(f"# {line}" for line in good.splitlines(keepends=True)))
        case "one broken line":
            file.write_text(good[:-2])
        case "no text":
            file.write_bytes(b"\xff")
        case "a pipe":
            os.mkfifo(file)
        case "a device":
            file.symlink_to("/dev/zero")
        case "a directory":
            file.mkdir()


DAMAGES = ["empty", "only a comment", "one broken line", "no text", "a pipe", "a device", "a directory"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_key_is_valid_while_the_file_is_empty_or_invalid(
    store: Store, make_client: MakeClient, file: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that was to be revoked must not stay valid. A pipe does not block the worker."""
    client = make_client(store, keys_file=str(file))
    good = file.read_text()
    damaged(file, damage)
    with caplog.at_level(logging.ERROR, "service"):
        assert client.get("/readyz").get_json() == {"status": "degraded"}
        client.get("/readyz")
    assert ["until then no key is valid" in record.getMessage() for record in caplog.records] == [True]
    for headers in (bearer("predict"), {}, {"Authorization": "Bearer "}):
        assert client.post("/models/price/predict", json=ROWS, headers=headers).status_code == 401

    if damage == "a directory":
        file.rmdir()
    else:
        file.unlink()
    client.get("/readyz")
    assert client.post("/models/price/predict", json=ROWS, headers=bearer("predict")).status_code == 401
    file.write_text(good)
    assert client.get("/readyz").get_json()["status"] == "ready"
    assert client.post("/models/price/predict", json=ROWS, headers=bearer("predict")).status_code == 200


def test_an_error_of_the_machine_leaves_the_keys_and_the_file_is_read_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    keys = ApiKeys(file, clock)
    file.write_text(line("new", "predict", "fp_new"))

    def exhausted(_: Path) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(api_keys, "open_regular", exhausted)
        clock.now += api_keys.RELOAD_CHECK_SECONDS
        keys.require_scope("Bearer fp_predict", "predict")
        assert "Too many open files" in str(keys.problem)
    clock.now += api_keys.RELOAD_CHECK_SECONDS
    keys.require_scope("Bearer fp_new", "predict")
    assert keys.problem is None


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_service_does_not_start_with_a_file_that_is_none(
    store: Store, make_client: MakeClient, file: Path, damage: str
) -> None:
    damaged(file, damage)
    with pytest.raises(SettingsError, match="SERVE_KEYS_FILE"):
        make_client(store, keys_file=str(file))


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


# Expiry and revocation -----------------------------------------------------------------------------------------------

NOON = datetime(2026, 10, 5, 12, tzinfo=UTC)
BEARER = "Bearer fp_one"


def dated(**times: str) -> str:
    """Return the line of a key with `expires` or `revoked`."""
    return (
        line("shop", "predict", "fp_one").rstrip() + "".join(f" {name}={time}" for name, time in times.items()) + "\n"
    )


def test_an_expired_key_is_rejected_within_a_second_with_the_time(file: Path) -> None:
    clock, now = Clock(), [NOON]
    file.write_text(dated(expires="2026-10-05T12:00:01Z"))
    keys = ApiKeys(file, clock, lambda: now[0])
    assert keys.require_scope(BEARER, "predict") == "shop"
    assert keys.expiry_by_name() == {"shop": NOON + timedelta(seconds=1)}
    now[0] += timedelta(seconds=1)
    clock.now += api_keys.RELOAD_CHECK_SECONDS
    with pytest.raises(AccessDeniedError) as refused:
        keys.require_scope(BEARER, "predict")
    assert (refused.value.status, refused.value.key_name) == (401, "shop")
    assert "found the key 'shop', expired on 2026-10-05 12:00:01 UTC" in str(refused.value)
    assert 'error="invalid_token"' in refused.value.challenge
    assert not keys.is_known(BEARER)
    assert keys.expiry_by_name() == {}
    assert ApiKeys(file, clock, lambda: now[0])  # a file of expired keys is valid, and no key is


def test_a_revoked_key_is_rejected_and_other_keys_of_its_name_are_valid(file: Path) -> None:
    file.write_text(dated(revoked="2026-10-05T12:00:00+02:00") + line("shop", "predict", "fp_two"))
    keys = ApiKeys(file)
    assert keys.require_scope("Bearer fp_two", "predict") == "shop"
    with pytest.raises(AccessDeniedError, match=r"found the key 'shop', revoked on 2026-10-05 10:00:00 UTC"):
        keys.require_scope(BEARER, "predict")


def test_a_key_on_several_lines_has_what_its_active_lines_grant(file: Path) -> None:
    once = line("ops", "metrics", "fp_one")
    file.write_text(once + dated(revoked="2026-10-05T12:00:00Z"))
    keys = ApiKeys(file)
    assert keys.require_scope(BEARER, "metrics") == "ops"
    with pytest.raises(AccessDeniedError):
        keys.require_scope(BEARER, "predict")


@pytest.mark.parametrize(
    "options", ["expires=", "expires=soon", "expires=2027-01-31", "revoked=2027-01-31T00:00:00", "expires=x expires=y"]
)
def test_a_time_that_cannot_be_read_makes_the_file_invalid(options: str) -> None:
    with pytest.raises(KeyFileError, match="line 1: expected expires= and revoked= once, each with a time such as"):
        parse_key_file(line("shop", "predict", "fp_one").rstrip() + f" {options}", "keys")


def serve(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == code, done.output
    return done


def test_keys_are_listed_and_revoked_and_comments_stay(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    first = serve("keygen", "shop", "--file", str(path), "--expires", "90d").stdout.strip()
    second = serve("keys", "add", "shop", "--file", str(path)).stdout.strip()
    text = path.read_text().replace("\n", "  # the old till\n", 1)
    path.write_text(text)
    path.chmod(0o640)
    shown = serve("keys", "list", "--file", str(path)).stdout
    assert first not in shown
    assert second not in shown
    digest = hashlib.sha256(first.encode()).hexdigest()
    assert re.search(rf"^shop  predict  {digest[:12]}  \d{{4}}-\S+ \S+  active$", shown, re.MULTILINE)
    assert "never" in shown.splitlines()[2]

    assert "Revoked 1 key of shop" in serve("keys", "revoke", "shop", "--key", digest[:12], "--file", str(path)).stderr
    assert re.fullmatch(
        text.splitlines()[0].replace("  # the old till", r" revoked=\S+  # the old till"),
        path.read_text().splitlines()[0],
    )
    assert path.read_text().splitlines()[1:] == text.splitlines()[1:]
    assert path.stat().st_mode & 0o777 == 0o640
    keys = ApiKeys(path)
    assert keys.require_scope(f"Bearer {second}", "predict") == "shop"
    with pytest.raises(AccessDeniedError, match="revoked on"):
        keys.require_scope(f"Bearer {first}", "predict")

    listed = json.loads(serve("keys", "list", "--file", str(path), "--json").stdout)
    assert [(key["name"], key["active"], key["revoked"] is None) for key in listed] == [
        ("shop", False, False),
        ("shop", True, True),
    ]
    serve("keys", "revoke", "shop", "--file", str(path))
    before = path.read_text()
    assert "were revoked before" in serve("keys", "revoke", "shop", "--file", str(path)).stderr
    assert path.read_text() == before
    assert not ApiKeys(path).is_known(f"Bearer {second}")  # revoking the last key takes effect, too
    assert "did you mean 'shop'" in serve("keys", "revoke", "shp", "--file", str(path), code=2).stderr
    assert (
        "no key of 'shop' begins with 'zz'"
        in serve("keys", "revoke", "shop", "--key", "zz", "--file", str(path), code=2).stderr
    )


def test_errors_of_key_files_are_json_too(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    for words in (("list",), ("revoke", "shop")):
        found = json.loads(serve("keys", *words, "--file", str(path), "--json", code=2).stdout)["error"]
        assert found["faults"] == [{"location": "", "problem": found["message"], "fix": ""}]
        assert "No such file" in found["message"]


@pytest.mark.parametrize("time", ["0d", "2020-01-01", "soon", "9999999d", "2027-01-31T12:00:00", "-1d", *BEYOND_UTC])
def test_a_key_expires_at_a_time_in_the_future(time: str) -> None:
    assert "expected a" in serve("keygen", "shop", "--expires", time, code=2).stderr


@pytest.mark.parametrize(
    ("time", "written"), [("2999-01-31", "2999-01-31T00:00:00Z"), ("2999-01-31T12:00:00+02:00", "2999-01-31T10:00:00Z")]
)
def test_dates_are_utc(time: str, written: str) -> None:
    done = CliRunner().invoke(main, ["keygen", "shop", "--expires", time], env={"SERVE_KEYS_FILE": ""})
    assert f"expires={written}" in done.stderr


def test_the_last_key_of_a_running_service_can_be_revoked(file: Path, store: Store, make_client: MakeClient) -> None:
    """A file of revoked keys is valid. Metrics have the key's name."""
    file.write_text(line("shop", "predict,metrics", "fp_one"))
    client = make_client(store, keys_file=str(file))
    headers = {"Authorization": BEARER}
    assert client.post("/models/price/predict", json=ROWS, headers=headers).status_code == 200
    metrics = client.get("/metrics", headers=headers).text
    assert 'forward_pass_key_requests_total{key="shop",status="200"} 1.0' in metrics
    assert "key_expiry" not in metrics
    serve("keys", "revoke", "shop", "--file", str(file))
    client.get("/readyz")  # reads a changed file at once
    refused = client.post("/models/price/predict", json=ROWS, headers=headers)
    assert refused.status_code == 401
    assert "found the key 'shop', revoked on" in refused.json["error"]["message"]
    assert client.get("/readyz").json["status"] == "ready"


def test_keygen_keeps_the_mode_of_the_file_and_follows_links(tmp_path: Path) -> None:
    """As in a folder where `keys` is a link into a mounted secret."""
    target, link = tmp_path / "mounted", tmp_path / "keys"
    link.symlink_to(target.name)
    for name, mode in (("shop", None), ("till", 0o600), ("desk", 0o640)):
        if mode is not None:
            target.chmod(mode)
        assert CliRunner().invoke(main, ["keygen", name, "--file", str(link)]).exit_code == 0
        assert link.is_symlink()
        assert mode is None or stat.S_IMODE(target.stat().st_mode) == mode
    assert [key.name for key in parse_key_file(target.read_text(), "keys")] == ["shop", "till", "desk"]
    assert {path.name for path in tmp_path.iterdir()} == {"mounted", "keys"}


def _change_keys(path: Path, number: int, start) -> None:
    start.wait()
    for i in range(5):
        api_keys.append_key(path, generate_key(f"new-{number}-{i}", ("predict",))[1])
        api_keys.revoke_keys(path, f"old-{number}-{i}", "", datetime.now(UTC))


@pytest.mark.parametrize("linked", [False, True])
def test_simultaneous_changes_of_a_key_file_lose_none(tmp_path: Path, linked: bool) -> None:
    """Four processes add 20 keys and revoke 20 others; two of them may come via a link."""
    file, link = tmp_path / "keys", tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(file)
    file.write_text("".join(f"{generate_key(f'old-{n}-{i}', ('predict',))[1]}\n" for n in range(4) for i in range(5)))
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)
    paths = [link if linked and number % 2 else file for number in range(4)]
    changers = [context.Process(target=_change_keys, args=(path, n, start)) for n, path in enumerate(paths)]
    for changer in changers:
        changer.start()
    for changer in changers:
        changer.join()
    assert [changer.exitcode for changer in changers] == [0] * 4
    found = api_keys.read_keys(file)
    assert {key.name for key in found if key.revoked} == {f"old-{n}-{i}" for n in range(4) for i in range(5)}
    assert {key.name for key in found if not key.revoked} == {f"new-{n}-{i}" for n in range(4) for i in range(5)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "keys"]


@pytest.mark.parametrize("authorization", ["Basic dXNlcjpzZWNyZXQ=", "fp_one", "Digest x"])
def test_another_scheme_gets_a_challenge_without_an_error_code(file: Path, authorization: str) -> None:
    """`invalid_token` is about a bearer token (RFC 6750, 3.1)."""
    with pytest.raises(AccessDeniedError) as refused:
        ApiKeys(file).require_scope(authorization, "predict")
    assert (refused.value.status, refused.value.challenge) == (401, 'Bearer realm="forward-pass"')
