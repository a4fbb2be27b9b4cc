"""Aliases: every move is kept, one of two who move at once is told, and there is a way back: everywhere."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

import pytest

from model_store.artifact.model import Model
from model_store.errors import ConflictError, NotFoundError, StoreError
from model_store.registry.alias_log import AliasLog, AliasRevision
from model_store.registry.store import Store
from tests.model_store.conftest import exchange

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BY = {"who": "ada", "why": "better", "when": NOW}


@pytest.fixture
def store(everywhere: Store) -> Store:
    return everywhere


@pytest.mark.parametrize("alias", ["latest", "7", "", "..", "a/b", "x" * 101])
def test_an_alias_that_means_something_else_is_refused(chess: Store, alias: str) -> None:
    with pytest.raises(StoreError, match=r"alias .*: expected"):
        chess.set_alias("chess", alias, 1, **BY)


def test_an_alias_that_moves_to_a_new_version_while_it_is_read_is_followed(
    chess: Store, model: Model, monkeypatch
) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    versions = Store._versions

    def listed(self: Store, name: str) -> list[int]:
        found = versions(self, name)
        monkeypatch.setattr(Store, "_versions", versions)
        chess.set_alias("chess", "champion", chess.publish("chess", model).number, **BY)
        return found

    monkeypatch.setattr(Store, "_versions", listed)
    assert chess.resolve("chess", "champion") == 1
    assert chess.resolve("chess", "champion") == 4


def test_an_alias_that_leaves_a_removed_version_while_it_is_read_is_followed(chess: Store, monkeypatch) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    head = AliasLog.head

    def looked(self: AliasLog, name: str, alias: str) -> AliasRevision | None:
        found = head(self, name, alias)
        monkeypatch.setattr(AliasLog, "head", head)
        chess.set_alias("chess", "champion", 2, **BY)
        chess.remove("chess", 1)
        return found

    monkeypatch.setattr(AliasLog, "head", looked)
    assert chess.resolve("chess", "champion") == 2


def test_every_move_of_an_alias_is_kept_with_who_when_and_why(chess: Store) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    chess.set_alias("chess", "champion", 3, who="bob", why="", when=NOW.astimezone())
    moves = chess.history("chess", "champion")
    assert [(move.number, move.version, move.who, move.why, move.when) for move in moves] == [
        (1, 1, "ada", "better", NOW),
        (2, 3, "bob", "", NOW),
    ]
    with pytest.raises(NotFoundError, match="did you mean 'champion'"):
        chess.history("chess", "champoin")


def test_a_reason_too_long_to_be_read_again_is_refused(chess: Store) -> None:
    with pytest.raises(StoreError, match="chess/champion: expected a reason of"):
        chess.set_alias("chess", "champion", 1, who="ada", why="x" * (1 << 20), when=NOW)
    assert chess.aliases("chess") == {}


def test_a_clock_that_jumps_changes_nothing(chess: Store, model: Model) -> None:
    """Numbers order versions and moves; the time is for people to read."""
    for number, year in ((1, 2026), (2, 1970), (3, 9999)):
        chess.set_alias("chess", "champion", number, who="ada", why="", when=NOW.replace(year=year))
        stamp = number % 2 * 10**10
        os.utime(chess.path("chess", number), (stamp, stamp))
        assert chess.resolve("chess", "champion") == number
    assert [move.version for move in chess.history("chess", "champion")] == [1, 2, 3]
    assert rolled(chess, "champion") == 2
    assert chess.resolve("chess") == 3
    assert chess.publish("chess", model).number == 4


def test_an_alias_moves_from_where_it_was_expected_only(chess: Store) -> None:
    chess.set_alias("chess", "champion", 1, **BY, expected=None)
    chess.set_alias("chess", "champion", 2, **BY, expected=1)
    for expected in (1, None):
        with pytest.raises(ConflictError, match="found 2"):
            chess.set_alias("chess", "champion", 3, **BY, expected=expected)
    assert chess.resolve("chess", "champion") == 2


def test_of_two_who_move_an_alias_at_once_one_is_told(chess: Store, monkeypatch) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    chess.set_alias("chess", "champion", 2, **BY)
    monkeypatch.setattr(
        AliasLog, "latest_revisions", lambda *_: {"champion": 1}
    )  # as one who looked before the second move
    with pytest.raises(ConflictError, match="somebody else moved it"):
        chess.set_alias("chess", "champion", 3, **BY)


def test_a_protected_alias_moves_by_force_only(chess: Store) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    chess.set_alias("chess", "champion", 2, **BY)
    chess.protect("chess", "champion", protected=True, **BY)
    for move in (
        lambda: chess.set_alias("chess", "champion", 3, **BY),
        lambda: chess.set_alias("chess", "champion", 3, **BY, expected=2),
        lambda: chess.rollback("chess", "champion", **BY),
    ):
        with pytest.raises(ConflictError, match="chess/champion: it is protected; promote"):
            move()
    assert chess.resolve("chess", "champion") == 2
    assert chess.rollback("chess", "champion", **BY, force=True).version == 1
    assert chess.set_alias("chess", "champion", 3, **BY, force=True).protected
    chess.protect("chess", "champion", protected=False, **BY)
    chess.set_alias("chess", "champion", 2, **BY)
    assert [move.protected for move in chess.history("chess", "champion")] == [False, False, *[True] * 3, False, False]


def test_only_an_alias_that_is_there_can_be_protected(chess: Store) -> None:
    with pytest.raises(NotFoundError, match="no alias 'champion'"):
        chess.protect("chess", "champion", protected=True, **BY)


def test_moves_that_version_0_1_wrote_are_read(chess: Store) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    key = "chess/aliases/champion/1.json"
    record = json.loads(chess.storage.get(key))
    del record["protected"]
    exchange(chess, key, json.dumps(record).encode())
    assert not chess.history("chess", "champion")[0].protected


def test_an_alias_that_cannot_be_read_is_mended_by_force(chess: Store) -> None:
    for broken in (b"{", b"[]", b"null", b'{"version": 1}'):
        head = chess.set_alias("chess", "champion", 1, **BY, force=True)
        exchange(chess, f"chess/aliases/champion/{head.number}.json", broken)
        with pytest.raises(StoreError, match="expected a move of an alias"):
            chess.set_alias("chess", "champion", 2, **BY)
    chess.set_alias("chess", "champion", 2, **BY, force=True)
    assert chess.resolve("chess", "champion") == 2


def rolled(store: Store, alias: str = "default") -> int:
    return store.rollback("chess", alias, **BY).version


def test_rollback_goes_back_along_the_history_step_by_step(chess: Store) -> None:
    for number in (1, 3, 2):
        chess.set_alias("chess", "champion", number, **BY)
    assert rolled(chess, "champion") == 3
    assert rolled(chess, "champion") == 1
    with pytest.raises(ConflictError, match="no version to roll back to"):
        rolled(chess, "champion")
    assert [move.rollback for move in chess.history("chess", "champion")] == [False, False, False, True, True]


def test_a_move_to_an_older_version_can_be_rolled_back_too(chess: Store) -> None:
    for number in (3, 1):
        chess.set_alias("chess", "champion", number, **BY)
    assert rolled(chess, "champion") == 3


def test_after_a_rollback_the_way_on_is_a_new_one(chess: Store) -> None:
    for number in (1, 2):
        chess.set_alias("chess", "champion", number, **BY)
    assert rolled(chess, "champion") == 1
    chess.set_alias("chess", "champion", 3, **BY)
    chess.set_alias("chess", "champion", 3, **BY)
    assert rolled(chess, "champion") == 1


def test_rollback_without_a_default_goes_back_from_the_newest(chess: Store) -> None:
    assert rolled(chess) == 2
    assert chess.resolve("chess") == 2
    assert rolled(chess) == 1
    with pytest.raises(ConflictError, match="found only 1"):
        rolled(chess)


def test_rollback_passes_over_removed_versions(chess: Store) -> None:
    for number in (1, 2, 3):
        chess.set_alias("chess", "champion", number, **BY)
    chess.remove("chess", 2)
    assert rolled(chess, "champion") == 1


def test_rollback_of_an_alias_that_was_never_set_is_an_error(chess: Store) -> None:
    with pytest.raises(NotFoundError, match="no alias 'champion'"):
        rolled(chess, "champion")
