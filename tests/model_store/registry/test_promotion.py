"""Promotion: an alias moves only to a version that passes every gate."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from model_store.errors import ArtifactError, ConflictError, InputError, NotFoundError
from model_store.evaluation.record import TARGET_METRICS, _ClassMetrics
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


def promote(store: Store, version: int | str, *gates: str, alias: str = "champion") -> list[str]:
    """Return the results, then whether the alias moved."""
    revision, results = promotion.promote(
        store, "chess", version, alias, [promotion.parse_gate(text) for text in gates], **BY
    )
    return [*map(str, results), f"moved to {revision.version}" if revision else "stayed"]


@pytest.mark.parametrize(
    ("gates", "first_result", "moves"),
    [
        (["accuracy>=champion"], "accuracy>=champion: 0.9 against 0.8 of chess/1", True),
        (
            ["accuracy <= champion"],
            "accuracy<=champion: 0.9 against 0.8 of chess/1 (higher is better: this gate demands the opposite)",
            False,
        ),
        (["error<champion"], "error<champion: 0.3 against 0.3 of chess/1", False),
        (["error<=chess/champion"], "error<=chess/champion: 0.3 against 0.3 of chess/1", True),
        (["accuracy>0.95"], "accuracy>0.95: 0.9 against 0.95 of the gate", False),
        (["accuracy>-1e3"], "accuracy>-1e3: 0.9 against -1000 of the gate", True),
        (
            ["accuracy>=chess/3"],
            "accuracy>=chess/3: 0.9 against 1 of chess/3 (higher is better), measured on other rows",
            False,
        ),
        (
            ["by.Bath.recall>=latest"],
            "by.Bath.recall>=latest: 0.5 against 0.75 of chess/3 (higher is better), measured on other",
            False,
        ),
        (["accuracy>=champion", "error<0.1"], "accuracy>=champion: 0.9 against 0.8 of chess/1", False),
    ],
)
def test_an_alias_moves_when_the_version_passes_every_gate(
    chess: Store, gates: list[str], first_result: str, moves: bool
) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    found = promote(chess, 2, *gates)
    assert found[0].startswith(first_result)
    assert len(found) == len(gates) + 1
    assert chess.resolve("chess", "champion") == (2 if moves else 1)
    assert found[-1] == ("moved to 2" if moves else "stayed")


def test_a_unique_nested_metric_is_found_by_its_last_name(chess: Store) -> None:
    """`mae<houses/2`: a regression with one target has one mae."""
    assert promote(chess, 2, "recall>=0.5")[0] == "recall>=0.5: 0.5 against 0.5 of the gate (higher is better)"
    with pytest.raises(NotFoundError, match="no metric 'call'"):
        promote(chess, 2, "call>=0.5")


@pytest.mark.parametrize(
    ("gate", "result", "moves"),
    [
        ("log_loss<=champion", "log_loss<=champion: 0.25 against 0.5 of chess/1 (lower is better)", True),
        ("log_loss>=champion", "0.25 against 0.5 of chess/1 (lower is better: this gate demands the opposite)", False),
        ("calibration_error<0.1", "calibration_error<0.1: 0.02 against 0.1 of the gate (lower is better)", True),
        ("roc_auc>champion", "roc_auc>champion: 0.9 against 0.95 of chess/1 (higher is better)", False),
    ],
)
def test_gates_know_the_metrics_of_the_diagnostics(
    everywhere: Store, make_model, gate: str, result: str, moves: bool
) -> None:
    for number, (loss, area) in enumerate([(0.5, 0.95), (0.25, 0.9)], 1):
        diagnostics = {"calibration": {"log_loss": loss, "expected_error": 0.02}, "roc": {"area": area}}
        training = {"metrics": {"accuracy": 0.9}, "diagnostics": diagnostics}
        everywhere.publish("chess", replace(make_model(number), training=training))
    everywhere.set_alias("chess", "champion", 1, **BY)
    found = promote(everywhere, 2, gate)
    assert found[0].endswith(result)
    assert found[-1] == ("moved to 2" if moves else "stayed")
    with pytest.raises(
        NotFoundError, match="no metric 'x'; the metrics are: accuracy, log_loss, calibration_error, roc_auc"
    ):
        promote(everywhere, 2, "x<1")


def test_gates_say_which_way_every_shown_metric_is_better(everywhere: Store, make_model) -> None:
    for metric in ("accuracy", "classes.a.precision", "classes.a.recall", "classes.a.f1", "targets.y.r2", "roc_auc"):
        assert promotion.parse_gate(f"{metric}>0").better == "higher"
    for metric in ("rmse", "targets.y.mae", "log_loss", "calibration_error"):
        assert promotion.parse_gate(f"{metric}>0").better == "lower"
    assert promotion.parse_gate("rows>0").better is None
    shown = {*TARGET_METRICS, *_ClassMetrics().fields} - {
        "support",
        "coverage",
    }  # of a quantile: as close to it as possible
    assert all(promotion.parse_gate(f"{metric}>0").better for metric in shown)


@pytest.mark.parametrize("diagnostics", [None, [], {"calibration": [], "roc": {"area": "high"}}, {"roc": None}])
def test_invalid_diagnostics_are_no_metrics(everywhere: Store, make_model, diagnostics: object) -> None:
    training = {"metrics": {"accuracy": 0.9}, "diagnostics": diagnostics}
    everywhere.publish("chess", replace(make_model(1), training=training))
    with pytest.raises(NotFoundError, match="no metric 'roc_auc'; the metrics are: accuracy"):
        promote(everywhere, 1, "roc_auc>0")


def test_an_ambiguous_metric_needs_its_path(everywhere: Store, make_model) -> None:
    training = {"metrics": {"targets": {"a": {"mae": 2.0}, "b": {"mae": 1234567.0}}, "of": "training rows"}}
    everywhere.publish("chess", replace(make_model(1), training=training))
    with pytest.raises(NotFoundError, match=r"no metric 'mae'.*targets\.a\.mae"):
        promote(everywhere, 1, "mae<3")
    assert promote(everywhere, 1, "b.mae>3")[0] == (
        "b.mae>3: 1,234,567 against 3 of the gate (lower is better: this gate demands the opposite), "
        "measured on its training rows"
    )


def test_numbers_beyond_float64_are_not_metrics(everywhere: Store, make_model) -> None:
    with pytest.raises(ArtifactError, match="expected integers of 64 bits"):
        everywhere.publish("chess", replace(make_model(1), training={"metrics": {"accuracy": 0.9, "rows": 10**400}}))
    everywhere.publish("chess", replace(make_model(1), training={"metrics": {"accuracy": 0.9, "rows": "many"}}))
    assert promote(everywhere, 1, "accuracy>0.5")[-1] == "moved to 1"
    with pytest.raises(NotFoundError, match="no metric 'rows'; the metrics are: accuracy"):
        promote(everywhere, 1, "rows>0.5")
    with pytest.raises(NotFoundError, match="no version or alias '1e999'"):
        promote(everywhere, 1, "accuracy<1e999")


def test_the_reason_of_a_promotion_contains_its_gates(chess: Store) -> None:
    promote(chess, 1)
    promote(chess, "latest", "accuracy>=champion")
    move = chess.history("chess", "champion")[-1]
    assert (move.version, move.why) == (
        3,
        "accuracy>=champion: 1 against 0.8 of chess/1 (higher is better), measured on other rows",
    )


def test_a_gate_against_an_unset_alias_passes(chess: Store) -> None:
    assert promote(chess, 1, "accuracy>=champion") == [
        "accuracy>=champion: 0.8 against champion, which is not set (higher is better)",
        "moved to 1",
    ]
    with pytest.raises(NotFoundError, match="no version or alias 'champoin' of 'chess'; did you mean 'champion'"):
        promote(chess, 2, "accuracy>=champoin")


def test_a_gate_against_an_unset_default_compares_with_the_newest_version_which_callers_get(chess: Store) -> None:
    assert promote(chess, 2, "accuracy>=default", alias="default") == [
        "accuracy>=default: 0.9 against 1 of chess/3 (higher is better), measured on other rows",
        "stayed",
    ]
    assert promote(chess, 2, "accuracy>=default")[-1] == "stayed"
    assert promote(chess, 3, "accuracy>default", alias="default") == [
        "accuracy>default: 1 against default, which is not set (higher is better)",
        "moved to 3",
    ]
    assert promote(chess, 2, "accuracy>=default", alias="default")[-1] == "stayed"
    assert chess.resolve("chess") == 3


def test_a_protected_alias_moves_through_a_gate_and_stays_protected(chess: Store) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    chess.protect("chess", "champion", protected=True, **BY)
    with pytest.raises(ConflictError, match="it is protected"):
        promote(chess, 2)
    assert promote(chess, 2, "accuracy>0.99")[-1] == "stayed"
    assert promote(chess, 2, "accuracy>champion")[-1] == "moved to 2"
    assert chess.history("chess", "champion")[-1].protected


def test_an_alias_that_moves_during_a_promotion_raises_a_conflict(chess: Store, monkeypatch) -> None:
    chess.set_alias("chess", "champion", 1, **BY)
    evaluate = promotion._evaluate_gate

    def move_then_evaluate(*arguments: object) -> promotion.GateResult:
        chess.set_alias("chess", "champion", 3, **BY)
        return evaluate(*arguments)

    monkeypatch.setattr(promotion, "_evaluate_gate", move_then_evaluate)
    with pytest.raises(ConflictError, match="expected it to point to 1, found 3"):
        promote(chess, 2, "accuracy>=champion")
    assert chess.resolve("chess", "champion") == 3


@pytest.mark.parametrize("text", ["", "accuracy", "accuracy==1", ">=1", "accuracy>=", "a>=b c", "a>=nan", "a<inf"])
def test_an_invalid_gate_raises_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match=r"expected a metric, .*write it as in 'accuracy>=default'"):
        promotion.parse_gate(text)


def test_an_unknown_metric_raises_with_the_known_ones(chess: Store) -> None:
    with pytest.raises(NotFoundError, match=r"chess/1: no metric 'acuracy'; did you mean 'accuracy'\?") as caught:
        promote(chess, 1, "acuracy>0")
    assert caught.value.known == ["accuracy", "by.Bath.recall", "error"]
    assert chess.aliases("chess") == {}


@pytest.fixture
def groups(everywhere: Store, make_model) -> Store:
    """A classifier with metrics by class and by the input column `size (m)`, and a version without any."""
    model = make_model(1)
    labels, column = model.signature.output.labels, model.signature.inputs[0]
    classes = {
        str(label): {"precision": 0.5, "recall": 0.9 - i / 10, "f1": 0.6, "support": 10}
        for i, label in enumerate(labels)
    }
    metrics = {"rows": 30, "of": "test rows", "accuracy": 0.8, "classes": classes}
    by_column = {
        "column": column.name,
        "slices": [{"low": 1, "high": 2, "rows": 20}, {"missing": True, "rows": 10}, {"others": 2, "rows": 11}],
        "metrics": {"accuracy": [0.75, 0.85, None], "price.rmse": [1.0, 2.0, 3.0], "recall": [None, None, None]},
    }
    diagnostics = {"slice_metrics": [by_column]}
    everywhere.publish("chess", replace(model, training={"metrics": metrics, "diagnostics": diagnostics}))
    everywhere.publish("chess", replace(make_model(2), training={"metrics": {"accuracy": 0.9}}))
    return everywhere


def test_a_gate_on_the_worst_class_names_it(groups: Store) -> None:
    output = groups.load("chess", 1)[1].signature.output
    last = len(output.labels) - 1
    lowest = round(0.9 - last / 10, 6)
    (found, moved) = promote(groups, 1, f"min( recall by {output.name} ) >= 0.1")
    assert moved == "moved to 1"
    assert found == (
        f"min(recall by {output.name})>=0.1: {lowest:g} of {output.name} {output.labels[last]} "
        "(10 rows, the worst group) against 0.1 of the gate (higher is better)"
    )
    assert promote(groups, 1, f"max(error_rate by {output.name})<0.05")[-1] == "stayed"


def test_gates_read_each_version_once(groups: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = Store.manifest
    monkeypatch.setattr(Store, "manifest", lambda *args: (read.append(args[2]), original(*args))[1])
    name = groups.load("chess", 1)[1].signature.inputs[0].name
    read.clear()
    promote(groups, 1, *[f"min(accuracy by {name})>=chess/1", "accuracy>=chess/2"] * 10)
    assert sorted(read) == [1, 2]


def test_a_gate_on_the_groups_of_an_input_reads_the_record(groups: Store) -> None:
    name = groups.load("chess", 1)[1].signature.inputs[0].name
    assert (
        f"0.75 of {name} 1 to 2 (20 rows, the worst group) against"
        in promote(groups, 1, f"min(accuracy by {name})>=0.7")[0]
    )
    assert (
        f"0.85 of {name} missing (10 rows, the best group) against"
        in promote(groups, 1, f"max(accuracy by {name})>=chess/1")[0]
    )
    assert "3 of" in promote(groups, 1, f"max(rmse by {name})<9")[0]  # price.rmse, by its last name


def test_a_gate_by_group_that_cannot_be_evaluated_says_what_to_do(groups: Store) -> None:
    name = groups.load("chess", 1)[1].signature.inputs[0].name
    for version, gate, words in (
        (1, f"min(accuracy by {name}x)>0", f"found '{name}x'; did you mean '{name}'"),
        (1, f"min(acuracy by {name})>0", "did you mean 'accuracy'"),
        (1, f"min(recall by {name})>0", "undefined in all 3 groups"),
        (2, f"min(accuracy by {name})>0", "slice_metrics: expected the metrics of each column's groups, found none"),
    ):
        with pytest.raises(NotFoundError, match=words):
            promote(groups, version, gate)


@pytest.mark.parametrize(
    "text", ["min(recall by a", "min(recall by )>1", "mean(a by b)>1", "min(a b)>1", "min(a by b)", "a)>1"]
)
def test_a_malformed_gate_by_group_is_rejected(text: str) -> None:
    with pytest.raises(InputError, match="expected a metric"):
        promotion.parse_gate(text)


def test_the_column_of_a_gate_may_have_spaces_brackets_and_operators() -> None:
    gate = promotion.parse_gate("max(rmse by area (m²) >= 3 by x)<= houses/2")
    assert (gate.column, gate.comparison, gate.reference) == ("area (m²) >= 3 by x", "<=", "houses/2")
