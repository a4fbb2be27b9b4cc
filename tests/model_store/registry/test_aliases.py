"""Aliases on every backend: history, concurrent moves, protection and rollback."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

import pytest

from model_store.artifact.model import Model
from model_store.errors import ConflictError, NotFoundError, StoreError
from model_store.registry.alias_log import AliasLog, AliasRevision
from model_store.registry.store import Store
from model_store.storage.base import put_object
from tests.model_store.conftest import replace_object

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BY = {"who": "ada", "why": "better", "when": NOW}


@pytest.fixture
def store(everywhere: Store) -> Store:
    return everywhere


@pytest.mark.parametrize("alias", ["latest", "7", "", "..", "a/b", "x" * 101])
def test_numbers_latest_and_invalid_names_are_rejected_as_aliases(chess: Store, alias: str) -> None:
    with pytest.raises(StoreError, match=r"alias .*: expected"):
        chess.set_alias("chess", alias, 1, **BY)


def test_resolve_follows_an_alias_that_moves_to_a_new_version_meanwhile(
    chess: Store, model: Model, monkeypatch
) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    versions = Store._versions

    def versions_then_move(self: Store, name: str) -> list[int]:
        found = versions(self, name)
        monkeypatch.setattr(Store, "_versions", versions)
        chess.set_alias("chess", "champion", chess.publish("chess", model).number, **BY)
        return found

    monkeypatch.setattr(Store, "_versions", versions_then_move)
    assert chess.resolve("chess", "champion") == 1
    assert chess.resolve("chess", "champion") == 4


def test_resolve_follows_an_alias_that_leaves_a_removed_version_meanwhile(chess: Store, monkeypatch) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    head = AliasLog.head

    def head_then_move(self: AliasLog, name: str, alias: str) -> AliasRevision | None:
        found = head(self, name, alias)
        monkeypatch.setattr(AliasLog, "head", head)
        chess.set_alias("chess", "champion", 2, **BY)
        chess.remove("chess", 1)
        return found

    monkeypatch.setattr(AliasLog, "head", head_then_move)
    assert chess.resolve("chess", "champion") == 2


def test_history_keeps_every_revision_with_who_when_and_why(chess: Store) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    chess.set_alias("chess", "champion", 3, who="bob", why="", when=NOW.astimezone())
    revisions = chess.history("chess", "champion")
    assert [(one.number, one.version, one.who, one.why, one.when) for one in revisions] == [
        (1, 1, "ada", "better", NOW),
        (2, 3, "bob", "", NOW),
    ]
    with pytest.raises(NotFoundError, match="did you mean 'champion'"):
        chess.history("chess", "champoin")


def test_a_reason_above_the_size_limit_is_rejected(chess: Store) -> None:
    with pytest.raises(StoreError, match="chess/champion: expected a reason of"):
        chess.set_alias("chess", "champion", 1, who="ada", why="x" * (1 << 20), when=NOW)
    assert chess.aliases("chess") == {}


def test_clock_jumps_do_not_change_the_order_of_revisions(chess: Store, model: Model) -> None:
    """Numbers order versions and revisions; times are only displayed."""
    for number, year in ((1, 2026), (2, 1970), (3, 9999)):
        chess.set_alias("chess", "champion", number, who="ada", why="", when=NOW.replace(year=year))
        stamp = number % 2 * 10**10
        os.utime(chess.path("chess", number), (stamp, stamp))
        assert chess.resolve("chess", "champion") == number
    assert [revision.version for revision in chess.history("chess", "champion")] == [1, 2, 3]
    assert roll_back(chess, "champion") == 2
    assert chess.resolve("chess") == 3
    assert chess.publish("chess", model).number == 4


def test_set_alias_requires_the_expected_version(chess: Store) -> None:
    chess.set_alias("chess", "champion", 1, **BY, expected=None)
    chess.set_alias("chess", "champion", 2, **BY, expected=1)
    for expected in (1, None):
        with pytest.raises(ConflictError, match="found 2"):
            chess.set_alias("chess", "champion", 3, **BY, expected=expected)
    assert chess.resolve("chess", "champion") == 2


def test_one_of_two_concurrent_moves_of_an_alias_fails(chess: Store, monkeypatch) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    chess.set_alias("chess", "champion", 2, **BY)
    # As listed before the second move:
    monkeypatch.setattr(AliasLog, "latest_revisions", lambda *_: {"champion": 1})
    with pytest.raises(ConflictError, match="another process has just moved it"):
        chess.set_alias("chess", "champion", 3, **BY)


def test_a_protected_alias_moves_only_by_force(chess: Store) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    chess.set_alias("chess", "champion", 2, **BY)
    chess.protect("chess", "champion", protected=True, **BY)
    for move in (
        lambda: chess.set_alias("chess", "champion", 3, **BY),
        lambda: chess.set_alias("chess", "champion", 3, **BY, expected=2),
        lambda: chess.rollback("chess", "champion", **BY),
    ):
        with pytest.raises(ConflictError, match="chess/champion: it is protected; add a gate"):
            move()
    assert chess.resolve("chess", "champion") == 2
    assert chess.rollback("chess", "champion", **BY, force=True).version == 1
    assert chess.set_alias("chess", "champion", 3, **BY, force=True).protected
    chess.protect("chess", "champion", protected=False, **BY)
    chess.set_alias("chess", "champion", 2, **BY)
    assert [revision.protected for revision in chess.history("chess", "champion")] == [
        False,
        False,
        *[True] * 3,
        False,
        False,
    ]


def test_an_unset_alias_cannot_be_protected(chess: Store) -> None:
    with pytest.raises(NotFoundError, match="no alias 'champion'"):
        chess.protect("chess", "champion", protected=True, **BY)


def test_revisions_written_by_version_0_1_are_read(chess: Store) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    key = "chess/aliases/champion/1.json"
    record = json.loads(chess.storage.get(key))
    del record["protected"]
    replace_object(chess, key, json.dumps(record).encode())
    assert not chess.history("chess", "champion")[0].protected


def test_force_replaces_an_unreadable_revision(chess: Store) -> None:
    for broken in (b"{", b"[]", b"null", b'{"version": 1}'):
        head = chess.set_alias("chess", "champion", 1, **BY, force=True)
        replace_object(chess, f"chess/aliases/champion/{head.number}.json", broken)
        with pytest.raises(StoreError, match="expected a revision of an alias"):
            chess.set_alias("chess", "champion", 2, **BY)
    chess.set_alias("chess", "champion", 2, **BY, force=True)
    assert chess.resolve("chess", "champion") == 2


def roll_back(store: Store, alias: str = "default") -> int:
    return store.rollback("chess", alias, **BY).version


def test_each_rollback_goes_back_one_more_version(chess: Store) -> None:
    for number in (1, 3, 2):
        chess.set_alias("chess", "champion", number, **BY)
    assert roll_back(chess, "champion") == 3
    assert roll_back(chess, "champion") == 1
    with pytest.raises(ConflictError, match="no version to roll back to"):
        roll_back(chess, "champion")
    assert [revision.rollback for revision in chess.history("chess", "champion")] == [False, False, False, True, True]


def test_rollback_undoes_a_move_to_an_older_version(chess: Store) -> None:
    for number in (3, 1):
        chess.set_alias("chess", "champion", number, **BY)
    assert roll_back(chess, "champion") == 3


def test_a_rollback_after_a_rollback_and_a_move_skips_the_rolled_back_version(chess: Store) -> None:
    for number in (1, 2):
        chess.set_alias("chess", "champion", number, **BY)
    assert roll_back(chess, "champion") == 1
    chess.set_alias("chess", "champion", 3, **BY)
    chess.set_alias("chess", "champion", 3, **BY)
    assert roll_back(chess, "champion") == 1


def test_rollback_of_an_unset_default_goes_back_from_the_newest_version(chess: Store) -> None:
    assert roll_back(chess) == 2
    assert chess.resolve("chess") == 2
    assert roll_back(chess) == 1
    with pytest.raises(ConflictError, match="found only 1"):
        roll_back(chess)


def test_rollback_of_the_first_promotion_goes_back_to_what_requests_got_before(chess: Store) -> None:
    """Requests without a version got 3, the newest, when `default` was set to 1."""
    chess.set_alias("chess", "default", 1, **BY)
    assert [revision.version for revision in chess.history("chess")] == [3, 1]
    assert roll_back(chess) == 3
    assert roll_back(chess) == 2


def test_rollback_of_a_default_that_was_set_to_the_newest_version_goes_back_as_if_it_were_unset(chess: Store) -> None:
    chess.set_alias("chess", "default", 3, **BY)
    assert len(chess.history("chess")) == 1
    assert [roll_back(chess), roll_back(chess)] == [2, 1]


def test_pin_default_keeps_the_version_that_requests_get(chess: Store, model: Model) -> None:
    assert chess.pin_default("chess", who="ada", when=NOW).version == 3
    chess.publish("chess", model)
    assert chess.resolve("chess") == chess.resolve("chess", "default") == 3
    assert chess.pin_default("chess", who="ada", when=NOW) is None
    assert chess.pin_default("go", who="ada", when=NOW) is None
    assert "got until now" in chess.history("chess")[0].why


def test_the_name_default_is_the_newest_version_until_the_alias_is_set(chess: Store) -> None:
    assert chess.resolve("chess", "default") == chess.resolve("chess") == 3


def test_rollback_skips_removed_versions(chess: Store) -> None:
    for number in (1, 2, 3):
        chess.set_alias("chess", "champion", number, **BY)
    chess.remove("chess", 2)
    assert roll_back(chess, "champion") == 1


def test_rollback_of_an_unset_alias_raises(chess: Store) -> None:
    with pytest.raises(NotFoundError, match="no alias 'champion'"):
        roll_back(chess, "champion")


@pytest.mark.parametrize("version", [10**30, 10**18, 0, -1, "3", True, 2.0, None, [3]])
def test_a_revision_with_another_version_than_a_number_is_rejected(version: object) -> None:
    data = json.dumps({"version": version, "who": "a", "when": "2026-01-01T00:00:00", "why": "", "rollback": False})
    with pytest.raises(ValueError, match="version: expected"):
        AliasRevision.from_bytes("champion", 1, data.encode())


@pytest.mark.parametrize("text", ["[]", "{}", "3", "null", "{", '{"when": 3}', '{"when": "2026-01-01", "version": 1}'])
def test_other_json_is_no_revision(text: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)expect|mapping|when|argument"):
        AliasRevision.from_bytes("champion", 1, text.encode())


@pytest.mark.parametrize(
    ("key", "value"), [("who", "\ud800"), ("why", "\ud800"), ("when", "0001-01-01T00:00:00+14:00")]
)
def test_a_revision_with_text_or_a_time_that_cannot_be_shown_is_unreadable(chess: Store, key: str, value: str) -> None:
    revision = chess.set_alias("chess", "champion", 1, who="ada", why="best", when=datetime(2026, 1, 1, tzinfo=UTC))
    data = json.dumps(json.loads(revision.to_bytes()) | {key: value}).encode()
    put_object(chess.storage, "chess/aliases/champion/2.json", data)
    assert "expected a revision of an alias" in chess.state()["chess"]["unreadable"]["champion"]


@pytest.mark.parametrize("alias", ["champion", "default"])
@pytest.mark.parametrize("why", ["\udcff", "x" * (1 << 20)])
def test_an_alias_does_not_move_for_a_reason_that_readers_reject(chess: Store, alias: str, why: str) -> None:
    """Not even the first of the two moves of the alias default to another version than the newest."""
    with pytest.raises(StoreError, match=r"expected a name and a reason in valid Unicode|expected a reason of"):
        chess.set_alias("chess", alias, 1, who="ada", why=why, when=datetime(2026, 1, 1, tzinfo=UTC))
    assert chess.aliases("chess") == {}
