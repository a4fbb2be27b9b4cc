"""`models alias | history | rollback | promote | protect`."""

from __future__ import annotations

import pytest

from model_store.registry.store import Store
from tests.model_store.cli.conftest import read_json


def test_an_alias_moves_with_a_reason_and_is_listed(models) -> None:
    shown = "Requests without a version get version 3 (newest, as the alias default was never set).\n"
    assert models("alias", "chess").stderr == shown
    assert "chess/champion now points to version 2" in models("alias", "chess", "champion", "2", "--why", "best").stderr
    move = read_json(models("alias", "chess", "champion", "latest", "--why", "[red]newer", "--json"))
    assert (move["version"], move["number"], move["who"], move["why"]) == (3, 2, "ada", "[red]newer")
    assert read_json(models("alias", "chess", "--json")) == {"champion": 3}
    assert read_json(models("alias", "chess", "champion", "--json")) == {"champion": 3}
    assert "did you mean 'champion'" in models("alias", "chess", "champoin", code=5).stderr


def test_history_and_rollback(models) -> None:
    assert "chess has no aliases" in models("history", "chess").stderr
    for version in ("1", "3"):
        models("alias", "chess", "champion", version, "--why", "better")
    assert "version 1" in models("rollback", "chess", "--alias", "champion", "--why", "worse").stderr
    assert read_json(models("rollback", "chess", "--json"))["version"] == 2
    moves = read_json(models("history", "chess", "champion", "--json"))
    assert [(move["version"], move["rollback"], move["why"]) for move in moves] == [
        (1, False, "better"),
        (3, False, "better"),
        (1, True, "worse"),
    ]
    shown = models("history", "chess").stdout
    assert "rollback · worse" in shown
    assert "default" in shown


def test_promote_moves_the_alias_only_if_all_gates_pass(models, store: Store) -> None:
    assert "default now points to version 1" in models("promote", "chess", "1").stderr
    result = models("promote", "chess", "2", "--if", "accuracy>=default", "--if", "accuracy<1", "--why", "newer")
    assert result.stdout.splitlines() == [
        "passed  accuracy>=default: 0.75 against 0.75 of chess/1 (higher is better)",
        "passed  accuracy<1: 0.75 against 1 of the gate (higher is better: this gate demands the opposite)",
    ]
    assert "default now points to version 2" in result.stderr
    failed = models("promote", "chess", "3", "--if", "accuracy>default", "--json", code=5)
    assert "chess/default was not moved: chess/3 failed a gate" in failed.stderr
    assert read_json(failed)["move"] is None
    assert [gate["passed"] for gate in read_json(failed)["gates"]] == [False]
    assert store.resolve("chess") == 2
    assert store.history("chess")[-1].why.startswith("newer; accuracy>=default: 0.75 against 0.75")
    moved = models("promote", "chess", "3", "--alias", "champion", "--if", "accuracy>=default")
    assert "chess/champion now points to version 3." in moved.stderr
    assert "Requests without a version get version 2 (alias default)." in moved.stderr
    assert "write it as in" in models("promote", "chess", "3", "--if", "better", code=2).stderr


def test_a_protected_alias_needs_force_or_a_gate(models, store: Store) -> None:
    models("alias", "chess", "champion", "1")
    assert "champion is protected" in models("protect", "chess", "champion", "--why", "it earns money").stderr
    for words in (
        ("alias", "chess", "champion", "2"),
        ("promote", "chess", "2", "--alias", "champion"),
        ("rollback", "chess", "--alias", "champion"),
    ):
        models(*words, code=5)
    fix = "it is protected; add a gate to models promote (--if), or use --force with models alias or models rollback"
    assert fix in models("promote", "chess", "2", "--alias", "champion", code=5).stderr
    models("promote", "chess", "2", "--alias", "champion", "--if", "accuracy>0.5")
    models("rollback", "chess", "--alias", "champion", "--force")
    models("alias", "chess", "champion", "3", "--force")
    assert "protected · it earns money" in models("history", "chess").stdout
    assert not read_json(models("protect", "chess", "champion", "--off", "--json"))["protected"]
    models("alias", "chess", "champion", "2")
    assert models("history", "chess").stdout.count("no longer protected") == 1


@pytest.mark.parametrize(
    "words",
    [
        ("chess", "3", "--if", "acuracy>=0.5"),
        ("chess", "3", "--if", "accuracy=0.5"),
        ("chess", "3", "--if", "accuracy>0.5x"),
        ("chess", "3", "--if", "accuracy>chess/99"),
        ("chess", "3", "--if", "accuracy>chess/1/2"),
        ("chess", "3", "--if", "accuracy>nothing/1"),
        ("chess", "3", "--if", "accuracy>0.99", "--if", "acuracy>=0.5"),
        ("chess", "99", "--if", "accuracy>=0.5"),
        ("nothing", "1", "--if", "accuracy>=0.5"),
    ],
    ids=" ".join,
)
def test_a_gate_that_cannot_be_evaluated_is_a_usage_error_and_a_failed_one_is_not(models, words, store: Store) -> None:
    models("promote", *words, code=2)
    models("promote", "chess", "3", "--if", "accuracy>0.99", code=5)
    assert store.aliases("chess") == {}
