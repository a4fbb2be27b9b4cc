"""The publication record: who published a version and when, beside its artifact."""

from __future__ import annotations

import getpass
import os
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.artifact.model import Model
from model_store.errors import StoreError
from model_store.registry.publication import Copy, Publication
from model_store.registry.store import Store
from model_store.utils.current_user import current_user
from tests.model_store.conftest import replace_object

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
WHEN = st.datetimes(timezones=st.just(UTC))
COPIES = st.lists(st.builds(Copy, st.text(), st.text(), WHEN), max_size=3).map(tuple)


SURROGATE_RECORD = b'{"who": "\\ud800", "when": "2026-01-01T00:00:00+00:00", "recorded": true, "copies": []}'


@given(st.builds(Publication, st.none() | st.text(), WHEN, st.booleans(), COPIES))
def test_a_record_read_back_is_equal(publication: Publication) -> None:
    assert Publication.from_dict(publication.as_dict()) == publication


def test_publish_records_author_and_time_and_leaves_the_bytes_alone(everywhere: Store, model: Model) -> None:
    first = everywhere.publish("chess", model, who="ada", when=NOON.astimezone(timezone(timedelta(hours=-7))))
    second = everywhere.publish("chess", model, who="bob")
    assert first.digest == second.digest
    assert everywhere.publication("chess", 1) == Publication("ada", NOON)
    assert everywhere.storage.get("chess/1.json").startswith(
        b'{\n  "who": "ada",\n  "when": "2026-01-02T12:00:00+00:00"'
    )
    assert everywhere.path("chess", 1).read_bytes() == everywhere.path("chess", 2).read_bytes()
    found = everywhere.publication("chess", 2)
    assert found.who == "bob"
    assert abs(found.when - datetime.now(UTC)) < timedelta(minutes=5)


def test_without_arguments_the_current_user_is_the_author(store: Store, model: Model, monkeypatch) -> None:
    monkeypatch.setenv("LOGNAME", "release-bot")
    store.publish("chess", model)
    assert store.publication("chess", 1).who == "release-bot"


def test_a_user_without_a_name_is_recorded_by_id(monkeypatch) -> None:
    assert current_user()

    def no_name() -> str:
        raise KeyError("uid")

    monkeypatch.setattr(getpass, "getuser", no_name)
    assert current_user() == str(os.getuid())


def test_a_version_without_a_record_has_the_date_of_its_artifact_and_no_author(everywhere: Store, model: Model) -> None:
    everywhere.publish("chess", model)
    everywhere.storage.delete("chess/1.json")
    modified = everywhere.storage.object_info("chess/1.npz").modified
    assert everywhere.publication("chess", 1) == Publication(None, modified, recorded=False)
    assert everywhere.state()["chess"]["publications"] == {}


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b'{"who": "ada"}',
        b"[" * 100_000,
        b"null",
        b"\xff",
        SURROGATE_RECORD,
        SURROGATE_RECORD.replace(b'"\\ud800"', b"7"),
    ],
)
def test_a_damaged_record_is_named_and_hides_nothing_else(chess: Store, data: bytes) -> None:
    replace_object(chess, "chess/3.json", data)
    with pytest.raises(StoreError, match=r"chess/3\.json: expected a publication record, found"):
        chess.publication("chess", 3)
    found = chess.state()["chess"]
    assert found["versions"] == (1, 2, 3)
    assert "delete it; the version stays" in found["damaged"][3]


def test_a_record_without_a_time_zone_is_damaged() -> None:
    with pytest.raises(ValueError, match="expected a time zone"):
        Publication.from_dict(Publication("ada", NOON).as_dict() | {"when": "2026-01-02T12:00:00"})


def test_a_record_that_cannot_be_written_is_an_error_that_says_what_was_published(
    store: Store, model: Model, monkeypatch
) -> None:
    """A process that dies, or a disk that fills up, between artifact and record leaves a version without a record."""
    put = store.storage.stage

    def stage(key: str):
        if key.endswith(".json"):
            raise OSError(28, "No space left on device")
        return put(key)

    monkeypatch.setattr(store.storage, "stage", stage)
    with pytest.raises(StoreError, match=r"cannot record who published chess/1, which is published: No space"):
        store.publish("chess", model)
    assert store.versions("chess") == [1]
    assert not store.publication("chess", 1).recorded


def test_removal_deletes_the_record(everywhere: Store, model: Model) -> None:
    everywhere.publish("chess", model)
    everywhere.remove("chess", 1)
    assert everywhere.storage.keys("chess/*") == ["chess/1.removed"]


@pytest.mark.parametrize(
    "record",
    [
        {"who": "\ud800"},
        {"who": b"x"},
        {"who": "x" * (1 << 20)},
        {"when": datetime.min},  # noqa: DTZ901 - has no time in UTC east of Greenwich
        {"when": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))},
        {"when": "2026-01-01"},
    ],
)
def test_nothing_is_published_with_a_record_that_readers_would_reject(everywhere: Store, model: Model, record) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        with pytest.raises(StoreError, match="chess: expected a publication record"):
            everywhere.publish("chess", model, **record)
    time.tzset()
    assert everywhere.storage.keys("chess/*") == []


def test_a_user_name_that_is_not_utf_8_is_escaped(store: Store, model: Model, monkeypatch) -> None:
    monkeypatch.setenv("LOGNAME", os.fsdecode(b"\xff\xfe"))
    store.publish("chess", model)
    assert store.publication("chess", 1).who == r"\xff\xfe"
