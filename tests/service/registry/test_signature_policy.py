"""With trusted keys, the service serves only versions that one of them signed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from model_store.registry import signing
from model_store.registry.store import Store
from service.config import SettingsError
from tests.service.conftest import MakeClient, assert_error, move, price

ROW = {"instances": [[3.0, 80.0]]}

Sign = Callable[..., None]


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / f"{name}.pem" for name in ("ours", "second", "foreign")}
    for path in paths.values():
        signing.generate_key(path)
    return paths


@pytest.fixture
def sign(store: Store, keys: dict[str, Path]) -> Sign:
    """Sign a version as `models sign` does."""

    def sign(number: int, by: str = "ours", name: str = "price", under: str = "price") -> None:
        key = signing.load_private_key(keys[by])
        digest = store.load(name, number)[0].digest
        store.add_signature(name, number, signing.fingerprint(key.public_key()), signing.sign(key, under, digest))

    return sign


@pytest.fixture
def trusting(store: Store, keys: dict[str, Path], make_client: MakeClient) -> Callable[[], FlaskClient]:
    trusted = f"{signing.public_key_path(keys['second'])}, {signing.public_key_path(keys['ours'])}"
    return lambda: make_client(store, trusted_keys=trusted)


def refresh(client: FlaskClient) -> None:
    registry = client.application.extensions["registry"]
    registry._loader.clear_failures()  # as if the backoff were over
    registry.refresh()


def version(client: FlaskClient) -> int:
    found: int = client.post("/models/price/predict", json=ROW).get_json()["version"]
    return found


def test_unsigned_models_are_refused_and_signed_ones_served(trusting, sign) -> None:
    client = trusting()
    error = assert_error(client.post("/models/price/predict", json=ROW), 503, "model_unavailable")
    assert "expected a signature by" in error["faults"][0]["problem"]
    assert "models sign price/1 --key FILE" in error["faults"][0]["problem"]
    sign(1)
    refresh(client)
    assert version(client) == 1
    assert_error(client.post("/models/penguins/predict", json=ROW), 503, "model_unavailable")


def test_any_trusted_key_suffices(trusting, sign) -> None:
    sign(1, by="second")
    assert version(trusting()) == 1


def test_earlier_version_keeps_serving_until_the_new_one_is_signed(trusting, sign, store: Store) -> None:
    sign(1)
    client = trusting()
    store.publish("price", price(1))
    refresh(client)
    assert version(client) == 1
    ready = client.get("/readyz").get_json()
    assert ready["status"] == "degraded"
    assert "price/2" in {problem["location"] for problem in ready["problems"]}
    sign(2)
    refresh(client)
    assert version(client) == 2


@pytest.mark.parametrize("wrong", [{"by": "foreign"}, {"under": "penguins"}])
def test_a_foreign_signature_or_one_for_another_name_is_refused(trusting, sign, store: Store, wrong) -> None:
    sign(1)
    sign(store.publish("price", price(1)).number, **wrong)
    client = trusting()
    assert version(client) == 1
    assert_error(client.post("/models/price/versions/2/predict", json=ROW), 503, "model_unavailable")
    move(store, "price", "default", 2)
    refresh(client)
    assert version(client) == 1


def test_a_signature_does_not_cover_another_model_put_in_its_place(trusting, sign, store: Store) -> None:
    sign(1)
    other = store.path("price", store.publish("price", price(1)).number).read_bytes()
    path = store.path("price", 1)
    path.chmod(0o600)
    path.write_bytes(other)
    assert_error(trusting().post("/models/price/predict", json=ROW), 503, "model_unavailable")


def test_cached_copy_does_not_bypass_the_signature(store, make_client, trusting) -> None:
    assert version(make_client(store)) == 1  # without keys; the copy is in the cache now
    assert_error(trusting().post("/models/price/predict", json=ROW), 503, "model_unavailable")


def test_keys_that_cannot_be_read_stop_the_start(store: Store, keys, make_client, tmp_path: Path) -> None:
    for paths in (" ", ",", "/nowhere.pub", f"{signing.public_key_path(keys['ours'])},", str(keys["ours"])):
        with pytest.raises(SettingsError, match=r"SERVE_TRUSTED_KEYS: .*expected a (public )?key"):
            make_client(store, trusted_keys=paths)


def test_signed_statement_is_the_documented_one() -> None:
    digest = hashlib.sha256(b"").hexdigest()
    assert signing.signed_message("price", digest).decode() == f"forward-pass model 1\nprice\n{digest}\n"
