"""An alias moves to a version that is good enough, and to no other."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from model_store.errors import ConflictError, InputError, NotFoundError
from model_store.registry import promotion
from model_store.registry.store import Store

BY = {"who": "ada", "why": "", "when": datetime(2026, 1, 2, tzinfo=UTC)}


@pytest.fixture
def chess(everywhere: Store, make_model) -> Store:
    """Three versions, each more accurate than the one before; the last was measured on other rows."""
    for number, rows in ((1, "a"), (2, "a"), (3, "b")):
        metrics = {"accuracy": 0.7 + number / 10, "error": 0.3, "by": {"Bath": {"recall": number / 4}}, "of": "test"}
        training = {"metrics": metrics, "data": {"sha256": rows}, "split": {"test": 9}, "job": {"train": {"seed": 1}}}
        everywhere.publish("chess", replace(make_model(number), training=training))
    return everywhere


def promoted(store: Store, version: int | str, *gates: str, alias: str = "champion") -> list[str]:
    """The verdicts, and whether the alias moved as the last."""
    move, verdicts = promotion.promote(
        store, "chess", version, alias, [promotion.parse_gate(text) for text in gates], **BY
    )
    return [*map(str, verdicts), f"moved to {move.version}" if move else "stayed"]


@pytest.mark.parametrize(
    ("gates", "verdict", "moves"),
    [
        (["accuracy>=champion"], "accuracy>=champion: 0.9 against 0.8 of chess/1", True),
        (["accuracy <= champion"], "accuracy<=champion: 0.9 against 0.8 of chess/1", False),
        (["error<champion"], "error<champion: 0.3 against 0.3 of chess/1", False),
        (["error<=chess/champion"], "error<=chess/champion: 0.3 against 0.3 of chess/1", True),
        (["accuracy>0.95"], "accuracy>0.95: 0.9 against 0.95 of the gate", False),
        (["accuracy>-1e3"], "accuracy>-1e3: 0.9 against -1000 of the gate", True),
        (["accuracy>=chess/3"], "accuracy>=chess/3: 0.9 against 1 of chess/3, measured on other rows", False),
        (["by.Bath.recall>=latest"], "by.Bath.recall>=latest: 0.5 against 0.75 of chess/3, measured on other", False),
        (["accuracy>=champion", "error<0.1"], "accuracy>=champion: 0.9 against 0.8 of chess/1", False),
    ],
)
def test_a_version_moves_in_when_it_passes_every_gate(
    chess: Store, gates: list[str], verdict: str, moves: bool
) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    found = promoted(chess, 2, *gates)
    assert found[0].startswith(verdict)
    assert len(found) == len(gates) + 1
    assert chess.resolve("chess", "champion") == (2 if moves else 1)
    assert found[-1] == ("moved to 2" if moves else "stayed")


def test_a_figure_of_which_there_is_one_is_named_by_itself(chess: Store) -> None:
    """`mae<houses/2`: a regression with one target has one mae."""
    assert promoted(chess, 2, "recall>=0.5")[0] == "recall>=0.5: 0.5 against 0.5 of the gate"
    with pytest.raises(NotFoundError, match="no metric 'call'"):
        promoted(chess, 2, "call>=0.5")


def test_two_figures_of_one_name_are_told_apart(everywhere: Store, make_model) -> None:
    training = {"metrics": {"targets": {"a": {"mae": 2.0}, "b": {"mae": 1234567.0}}, "of": "training rows"}}
    everywhere.publish("chess", replace(make_model(1), training=training))
    with pytest.raises(NotFoundError, match=r"no metric 'mae'.*targets\.a\.mae"):
        promoted(everywhere, 1, "mae<3")
    assert promoted(everywhere, 1, "b.mae>3")[0] == (
        "b.mae>3: 1,234,567 against 3 of the gate, measured on its training rows"
    )


def test_a_figure_that_no_float_can_hold_is_none(everywhere: Store, make_model) -> None:
    training = {"metrics": {"accuracy": 0.9, "rows": 10**400}}
    everywhere.publish("chess", replace(make_model(1), training=training))
    assert promoted(everywhere, 1, "accuracy>0.5")[-1] == "moved to 1"
    with pytest.raises(NotFoundError, match="no metric 'rows'; the metrics are: accuracy"):
        promoted(everywhere, 1, "rows>0.5")
    with pytest.raises(NotFoundError, match="no version or alias '1e999'"):
        promoted(everywhere, 1, "accuracy<1e999")


def test_the_history_tells_by_what_a_version_was_promoted(chess: Store) -> None:
    promoted(chess, 1)
    promoted(chess, "latest", "accuracy>=champion")
    move = chess.history("chess", "champion")[-1]
    assert (move.version, move.why) == (3, "accuracy>=champion: 1 against 0.8 of chess/1, measured on other rows")


def test_an_alias_never_set_is_beaten_by_anyone(chess: Store) -> None:
    assert promoted(chess, 1, "accuracy>=champion") == [
        "accuracy>=champion: 0.8 against champion, which is not set",
        "moved to 1",
    ]
    with pytest.raises(NotFoundError, match="no version or alias 'champoin' of 'chess'; did you mean 'champion'"):
        promoted(chess, 2, "accuracy>=champoin")


def test_a_protected_alias_moves_through_a_gate_and_stays_protected(chess: Store) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    chess.protect("chess", "champion", protected=True, **BY)
    with pytest.raises(ConflictError, match="it is protected"):
        promoted(chess, 2)
    assert promoted(chess, 2, "accuracy>0.99")[-1] == "stayed"
    assert promoted(chess, 2, "accuracy>champion")[-1] == "moved to 2"
    assert chess.history("chess", "champion")[-1].protected


def test_a_gate_that_judged_another_champion_moves_nothing(chess: Store, monkeypatch) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    judged = promotion._evaluate_gate

    def slow(*facts: object) -> promotion.GateResult:
        chess.set_alias("chess", "champion", 3, **BY)
        return judged(*facts)

    monkeypatch.setattr(promotion, "_evaluate_gate", slow)
    with pytest.raises(ConflictError, match="expected it to point to 1, found 3"):
        promoted(chess, 2, "accuracy>=champion")
    assert chess.resolve("chess", "champion") == 3


@pytest.mark.parametrize("text", ["", "accuracy", "accuracy==1", ">=1", "accuracy>=", "a>=b c", "a>=nan", "a<inf"])
def test_what_is_no_gate_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(InputError, match=r"expected a metric, .*write it as in 'accuracy>=champion'"):
        promotion.parse_gate(text)


def test_an_unknown_metric_is_told_with_the_known_ones(chess: Store) -> None:
    with pytest.raises(NotFoundError, match=r"chess/1: no metric 'acuracy'; did you mean 'accuracy'\?") as caught:
        promoted(chess, 1, "acuracy>0")
    assert caught.value.known == ["accuracy", "by.Bath.recall", "error"]
    assert chess.aliases("chess") == {}
