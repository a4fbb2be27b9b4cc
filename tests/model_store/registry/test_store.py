"""The store on every backend: versions are immutable, aliased versions stay, reading writes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from model_store.artifact import npz
from model_store.artifact.model import Golden, Model
from model_store.errors import ArtifactError, ConflictError, NotFoundError, StoreError
from model_store.registry import store as stores
from model_store.registry.alias_log import AliasRevision
from model_store.registry.store import Store, open_store
from model_store.storage.base import StorageBackend, put_object
from tests.model_store.conftest import MakeModel, contents, replace_object

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BY = {"who": "ada", "why": "better", "when": NOW}


@pytest.fixture
def store(everywhere: Store) -> Store:
    return everywhere


def test_versions_count_from_one(chess: Store, model: Model) -> None:
    assert chess.versions("chess") == [1, 2, 3]
    version = chess.publish("chess", model)
    assert (version.name, version.number, version.location) == ("chess", 4, f"{chess.storage.location}/chess/4.npz")
    assert version.digest == npz.read_digest(chess.path("chess", 4))


def test_a_published_model_loads_with_equal_predictions(store: Store, model: Model) -> None:
    published = store.publish("chess", model)
    version, loaded = store.load("chess")
    assert version == published
    assert loaded.digest == version.digest
    assert loaded.predict([[30, "Bath"]]) == model.predict([[30, "Bath"]])


def test_the_second_of_two_concurrent_publishers_gets_the_next_number(chess: Store, model: Model, monkeypatch) -> None:
    monkeypatch.setattr(Store, "_numbers", lambda self, name: {1: True})  # as listed before 2 and 3
    assert chess.publish("chess", model).number == 4


def test_publish_writes_only_the_artifact_and_its_record(chess: Store) -> None:
    expected = [f"chess/{number}.{kind}" for number in (1, 2, 3) for kind in ("json", "npz")]
    assert sorted(contents(chess).keys() - {"chess"}) == expected


def test_a_published_version_is_never_overwritten(chess: Store, make_model) -> None:
    before = contents(chess)
    chess.publish("chess", make_model(9))
    assert before.items() <= contents(chess).items()


def test_reading_does_not_change_the_store(chess: Store) -> None:
    chess.set_alias("chess", "champion", 2, **BY)
    before = contents(chess)
    chess.load("chess", "champion")
    chess.state()
    chess.names()
    chess.history("chess", "champion")
    assert contents(chess) == before


def test_a_model_with_wrong_golden_outputs_is_not_published(store: Store, model: Model) -> None:
    assert model.golden is not None
    other = Golden(model.golden.instances, model.golden.outputs[::-1].copy())
    with pytest.raises(ArtifactError, match=r"golden\.outputs"):
        store.publish("chess", Model(model.network, model.signature, golden=other))
    assert store.names() == []


def test_references_resolve_to_versions(chess: Store) -> None:
    chess.set_alias("chess", "champion", 2, **BY)
    found = [chess.resolve("chess", ref) for ref in (1, "1", "champion", "latest", None)]
    assert found == [1, 1, 2, 3, 3]
    chess.set_alias("chess", "default", "champion", **BY)
    assert chess.resolve("chess") == 2
    assert chess.aliases("chess") == {"champion": 2, "default": 2}


@pytest.mark.parametrize(
    ("ref", "known"),
    [
        (4, "no version 4 of 'chess'; there are: 1, 2, 3, champion, latest"),
        (0, "no version 0"),
        ("9" * 5000, "no version or alias"),
        ("01", "no version or alias '01'"),
        ("champ", "did you mean 'champion'"),
        ("../chess/1", "no version or alias"),
        ("", "no version or alias"),
    ],
)
def test_an_unknown_reference_raises_with_the_known_ones(chess: Store, ref: int | str, known: str) -> None:
    chess.set_alias("chess", "champion", 2, **BY)
    with pytest.raises(NotFoundError, match=known) as caught:
        chess.resolve("chess", ref)
    assert caught.value.known == ["1", "2", "3", "champion", "latest"]


@pytest.mark.parametrize("name", ["ches", "", "..", ".", "../models/chess", "chess/", "a" * 101, "chess\0", "é"])
def test_an_unknown_model_raises_with_the_known_ones(chess: Store, name: str) -> None:
    for read in (chess.versions, chess.resolve, chess.load, chess.aliases, chess.history):
        with pytest.raises(NotFoundError, match="no model") as caught:
            read(name)
        assert caught.value.known == ["chess"]


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b", "-x", "é", "a\n", "a" * 101])
def test_an_invalid_model_name_is_rejected(store: Store, model: Model, name: str) -> None:
    with pytest.raises(StoreError, match="expected a letter or digit"):
        store.publish(name, model)
    store.publish("chess", model)
    assert store.names() == ["chess"]


def test_the_number_of_a_removed_version_is_never_reused(chess: Store, model: Model) -> None:
    chess.remove("chess", 3)
    assert chess.versions("chess") == [1, 2]
    kept = ["chess/1.json", "chess/1.npz", "chess/2.json", "chess/2.npz", "chess/3.removed"]
    assert sorted(chess.storage.keys("chess/*")) == kept
    assert chess.publish("chess", model).number == 4
    with pytest.raises(NotFoundError, match="no version 3"):
        chess.resolve("chess", 3)


def test_a_publisher_with_an_outdated_listing_does_not_reuse_a_removed_number(
    chess: Store, model: Model, monkeypatch
) -> None:
    chess.remove("chess", 2)
    chess.remove("chess", 3)
    monkeypatch.setattr(Store, "_numbers", lambda self, name: {1: True})
    assert chess.publish("chess", model).number == 4
    kept = ["chess/1.json", "chess/1.npz", "chess/2.removed", "chess/3.removed", "chess/4.json", "chess/4.npz"]
    assert sorted(chess.storage.keys("chess/*")) == kept


def test_a_model_without_versions_is_unknown_and_its_numbers_continue(chess: Store, model: Model) -> None:
    for number in (1, 2, 3):
        chess.remove("chess", number)
    assert chess.names() == []
    with pytest.raises(NotFoundError, match="there are none"):
        chess.versions("chess")
    assert chess.publish("chess", model).number == 4


def test_an_aliased_version_cannot_be_removed(chess: Store) -> None:
    chess.set_alias("chess", "champion", 2, **BY)
    with pytest.raises(ConflictError, match="cannot remove it: alias 'champion' points to it; move the alias first"):
        chess.remove("chess", 2)
    assert chess.versions("chess") == [1, 2, 3]


def test_an_alias_set_during_a_removal_keeps_the_version(chess: Store, monkeypatch) -> None:
    def put_then_set_alias(storage: StorageBackend, key: str, data: bytes) -> bool:
        done = put_object(storage, key, data)
        if key.endswith(".removed"):
            put_object(
                storage, "chess/aliases/champion/1.json", AliasRevision("champion", 1, 2, "", NOW, "").to_bytes()
            )
        return done

    monkeypatch.setattr(stores, "put_object", put_then_set_alias)
    with pytest.raises(ConflictError, match="alias 'champion' points to it"):
        chess.remove("chess", 2)
    assert chess.resolve("chess", "champion") == 2


def test_an_alias_moved_to_a_version_removed_meanwhile_raises(chess: Store, monkeypatch) -> None:
    monkeypatch.setattr(Store, "resolve", lambda *_: 3)
    put_object(chess.storage, "chess/3.removed", b"")
    with pytest.raises(ConflictError, match="was removed while alias 'champion' moved to it; move the alias again"):
        chess.set_alias("chess", "champion", 3, **BY)


def test_state_returns_versions_and_aliases_of_all_models(chess: Store, model: Model) -> None:
    chess.publish("go", model)
    chess.set_alias("chess", "champion", 2, **BY)
    found = chess.state()
    assert {name: (state["versions"], state["aliases"]) for name, state in found.items()} == {
        "chess": ((1, 2, 3), {"champion": 2}),
        "go": ((1,), {}),
    }
    assert all(state["unreadable"] == state["damaged"] == {} for state in found.values())
    assert list(found["chess"]["publications"]) == [2, 3]  # the aliased and the newest version


def test_an_unreadable_alias_does_not_hide_other_aliases(chess: Store, model: Model) -> None:
    chess.publish("go", model)
    for name, alias in (("chess", "champion"), ("chess", "default"), ("go", "default")):
        chess.set_alias(name, alias, 1, **BY)
    replace_object(chess, "chess/aliases/default/2.json", b"{")
    found = chess.state()
    assert (found["go"]["aliases"], found["go"]["unreadable"]) == ({"default": 1}, {})
    assert found["chess"]["aliases"] == {"champion": 1}
    assert "2.json: expected a revision of an alias, found 1 other bytes" in found["chess"]["unreadable"]["default"]
    with pytest.raises(StoreError, match=r"2\.json: expected a revision of an alias"):
        chess.resolve("chess")


@pytest.mark.parametrize("location", ["", "s4://bucket/models", "file:///models"])
def test_an_unknown_url_scheme_is_rejected(location: str) -> None:
    with pytest.raises(StoreError, match="expected the path of a directory"):
        open_store(location)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"version": "x"}', "\udcff", '{"version": 1e999}'])
def test_a_damaged_revision_raises_with_its_key(chess: Store, content: str) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    put_object(chess.storage, "chess/aliases/champion/2.json", content.encode("utf-8", "surrogateescape"))
    with pytest.raises(StoreError, match=r"champion/2\.json: expected a revision of an alias"):
        chess.resolve("chess", "champion")


def test_a_report_is_next_to_its_version_and_removed_with_it(chess: Store, model: Model) -> None:
    version = chess.publish("chess", model)
    assert chess.report_location("chess", 4) is None
    location = chess.add_report(version, "<p>première</p>")
    assert location == chess.report_location("chess", 4) == version.location.replace(".npz", ".html")
    assert chess.storage.get("chess/4.html").decode() == "<p>première</p>"
    assert chess.versions("chess") == [1, 2, 3, 4]
    chess.remove("chess", 4)
    assert chess.report_location("chess", 4) is None
    assert chess.publish("chess", model).number == 5


def test_a_report_is_never_overwritten(chess: Store, model: Model) -> None:
    version = chess.publish("chess", model)
    chess.add_report(version, "first")
    assert chess.add_report(version, "second") == chess.report_location("chess", 4)
    assert chess.storage.get("chess/4.html") == b"first"


def test_a_report_of_a_version_removed_meanwhile_is_deleted(chess: Store, model: Model) -> None:
    version = chess.publish("chess", model)
    chess.remove("chess", 4)
    chess.add_report(version, "late")
    assert chess.report_location("chess", 4) is None


# Signatures ------------------------------------------------------------------------------------------------------

KEY = "0123456789abcdef"


def test_a_signature_is_put_once_and_removed_with_its_version(store: Store, model: Model) -> None:
    store.publish("chess", model)
    assert store.signature("chess", 1, KEY) is None
    assert store.signing_keys("chess", 1) == []
    assert store.add_signature("chess", 1, KEY, b"x" * 64)
    assert not store.add_signature("chess", 1, KEY, b"x" * 64)
    assert store.add_signature("chess", 1, KEY[::-1], b"y" * 64)
    assert store.signature("chess", 1, KEY) == b"x" * 64
    assert store.signing_keys("chess", 1) == sorted([KEY, KEY[::-1]])
    assert store.versions("chess") == [1]
    store.publish("chess", model)
    store.remove("chess", 1)
    assert store.signing_keys("chess", 1) == []
    assert store.signature("chess", 1, KEY) is None


def test_an_invalid_signature_under_the_same_key_raises(store: Store, model: Model) -> None:
    store.publish("chess", model)
    store.add_signature("chess", 1, KEY, b"rubbish")
    with pytest.raises(
        ConflictError, match=rf"chess/signatures/1/{KEY}\.sig: .* found an invalid one; remove the file"
    ):
        store.add_signature("chess", 1, KEY, b"x" * 64)


def test_no_byte_of_a_file_that_a_link_leads_to_is_shown(tmp_path: Path, make_model: MakeModel) -> None:
    """A writer to the store could read what the service's user can, in its log and at /readyz."""
    chess = open_store(tmp_path / "links")  # only a directory has links
    for seed in range(3):
        chess.publish("chess", make_model(seed))
    chess.set_alias("chess", "champion", 1, **BY)
    for key in ("chess/aliases/champion/1.json", "chess/3.json"):
        replace_object(chess, key, b"hunter2")
    state = chess.state()["chess"]
    assert state["unreadable"]["champion"].endswith("expected a revision of an alias, found 7 other bytes")
    assert "expected a publication record, found 7 other bytes" in state["damaged"][3]
