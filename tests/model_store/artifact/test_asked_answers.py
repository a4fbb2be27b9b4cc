"""What requests ask for beside predictions: intervals, sets and thresholds, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model_store.artifact.answers import Answers
from model_store.artifact.asked_answers import read_asked_answers
from model_store.artifact.conformal import Conformal
from model_store.artifact.model import Model
from model_store.errors import InputError
from model_store.nn import Linear, Sequential
from model_store.schema.signature import (
    ClassificationOutput,
    MultiLabelOutput,
    NumberColumn,
    Output,
    RegressionOutput,
    Signature,
)


def model(output: Output, scores: Any = None) -> Model:
    names = output.names if isinstance(output, RegressionOutput) else output.labels
    signature = Signature((NumberColumn("x", 0.0, 1.0),), output)
    method = "absolute" if isinstance(output, RegressionOutput) else "aps"
    answers = None if scores is None else Answers(conformal=Conformal(method, np.array(scores, np.float32)))
    return Model(Sequential([Linear(1, len(names))]), signature, answers=answers)


PRICE, BOTH = RegressionOutput(("price",), (0.0,), (1.0,)), RegressionOutput(("price", "rent"), (0.0, 0.0), (1.0, 1.0))
ANIMAL, SPAM = ClassificationOutput("kind", ("ant", "bee", "cat")), ClassificationOutput("spam", ("no", "yes"))
TAGS = MultiLabelOutput("tags", ("a", "b"))
NINE = [[0.5, 1, 2, 3, 4, 5, 6, 7, 8]]


def refusal(found: Model, **asked: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_asked_answers(asked, found)
    return "; ".join(f"{fault.location}: {fault.problem}; {fault.fix}" for fault in caught.value.faults)


def test_intervals_are_pairs_or_by_target() -> None:
    one, two = model(PRICE, NINE), model(BOTH, [*NINE, [10.0 * score for score in NINE[0]]])
    outputs = np.array([[1.0], [2.0]], np.float32)
    assert read_asked_answers({"interval": 0.5}, one).as_json(one, outputs) == {"intervals": [[-3, 5], [-2, 6]]}
    found = read_asked_answers({"interval": 0.5}, two).as_json(two, np.array([[1.0, 0.0]], np.float32))
    assert found == {"intervals": [{"price": [-3, 5], "rent": [-40, 40]}]}


def test_an_interval_that_is_not_finite_is_refused() -> None:
    """It was answered as [null, null]."""
    scores = Conformal("absolute", np.array(NINE) * 1e307)
    one = replace(model(PRICE), answers=Answers(conformal=scores))
    asked = read_asked_answers({"interval": 0.9}, one)
    with pytest.raises(InputError, match=r"instances\.1: the interval is not finite"):
        asked.as_json(one, np.array([[1.0], [1.7e308]]))


def test_sets_begin_with_the_most_probable_label() -> None:
    found = model(ANIMAL, [[0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.9]])
    outputs = np.array([[0.25, 0.5, 0.25], [0.02, 0.03, 0.95]], np.float32)
    assert read_asked_answers({"set": 0.8}, found).as_json(found, outputs) == {"sets": [["bee", "ant"], ["cat"]]}
    assert read_asked_answers({"set": 0.1}, found).as_json(found, outputs) == {"sets": [["bee"], ["cat"]]}


def test_a_threshold_overrides_that_of_the_model() -> None:
    found, outputs = model(SPAM), np.array([[0.65, 0.35]], np.float32)
    assert found.signature.decode(outputs)[0]["label"] == "no"
    asked = read_asked_answers({"threshold": 0.3}, found)
    assert asked.signature(found).decode(outputs)[0]["label"] == "yes"
    assert asked.as_json(found, outputs) == {}


def test_nothing_asked_is_nothing_answered() -> None:
    found = model(PRICE)
    asked = read_asked_answers({"interval": None}, found)
    assert asked.signature(found) is found.signature
    assert asked.as_json(found, np.zeros((1, 1), np.float32)) == {}


@pytest.mark.parametrize("value", [0, 1, 1.5, -1, True, "0.9", [0.9], float("nan")])
@pytest.mark.parametrize("key", ["interval", "set", "threshold"])
def test_a_level_is_a_number_between_0_and_1(key: str, value: Any) -> None:
    assert f"{key}: expected a number between 0 and 1, found" in refusal(model(PRICE, NINE), **{key: value})


def test_every_fault_says_what_to_do() -> None:
    assert refusal(model(PRICE), interval=0.9) == (
        "interval: expected a model with calibration rows, found one without; "
        "train again with calibration = 0.1 in [split]"
    )
    assert refusal(model(PRICE, NINE), interval=0.95) == (
        "interval: expected a level that 9 calibration rows can promise, found 0.95, which needs 19; "
        "send 0.9 or less, or train again with more calibration rows"
    )
    assert 'send "set" for a set of labels' in refusal(model(ANIMAL), interval=0.9)
    assert 'send "interval"' in refusal(model(PRICE), set=0.9)
    assert "found one that predicts several labels for a row" in refusal(model(TAGS), set=0.9)
    assert "threshold: expected a model of two labels, found 3 labels; leave it out" in refusal(
        model(ANIMAL), threshold=0.3
    )
    assert refusal(model(PRICE), set=0.9, threshold=0.5).count("expected") == 2
