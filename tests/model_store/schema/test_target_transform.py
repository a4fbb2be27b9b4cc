"""Transforms of targets: predictions are in the units of the targets."""

from __future__ import annotations

import json
import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.errors import InputError
from model_store.schema.signature import NumberColumn, RegressionOutput, Signature
from model_store.schema.signature_json import read_signature
from model_store.schema.target_transform import TargetTransform

COLUMN = NumberColumn("x", 0.0, 1.0, None, {})
QUANTILE = TargetTransform("quantile", (-2.0, 0.0, 1.0), ((0.0, 0.0, 10.0), (5.0, 6.0, 8.0)))


def signature(transform: TargetTransform | None, names: tuple[str, ...] = ("low", "high")) -> Signature:
    count = len(names)
    return Signature((COLUMN,), RegressionOutput(names, (1.0,) * count, (2.0,) * count, transform=transform))


@pytest.mark.parametrize("kind", ["log", "log1p"])
def test_logarithms_are_inverted_exactly(kind: str) -> None:
    y = np.array([[1e-9, 1.0], [3.5, 1e6]])
    transform = TargetTransform(kind)
    expected = [[math.log(v) if kind == "log" else math.log1p(v) for v in row] for row in y.tolist()]
    np.testing.assert_allclose(transform.apply(y), expected, rtol=1e-15)
    np.testing.assert_allclose(transform.invert(transform.apply(y)), y, rtol=1e-14)


def test_a_quantile_transform_is_linear_between_its_knots_and_constant_outside() -> None:
    t = QUANTILE.apply(np.array([[0.0, 5.0], [5.0, 7.0], [99.0, 1.0]]))
    assert t.tolist() == [[-1.0, -2.0], [0.5, 0.5], [1.0, -2.0]]  # two knots of 0: their middle
    values = QUANTILE.invert(np.array([[-9.0, -9.0], [0.5, -1.0], [9.0, 9.0]]))
    assert values.tolist() == [[0.0, 5.0], [5.0, 5.5], [10.0, 8.0]]


def test_predictions_are_in_the_units_of_the_targets() -> None:
    outputs = np.array([[0.0, 0.5]], np.float32)
    (found,) = signature(TargetTransform("log")).decode(outputs)
    assert found == pytest.approx({"low": math.e, "high": math.exp(2)})
    (found,) = signature(TargetTransform("log1p")).decode(outputs)
    assert found == pytest.approx({"low": math.expm1(1), "high": math.expm1(2)})
    assert signature(TargetTransform("log1p")).decode(outputs - 5) == [{"low": 0.0, "high": 0.0}]
    assert signature(QUANTILE).decode(outputs - 0.5) == [{"low": 0.0, "high": 8.0}]
    with pytest.raises(InputError, match="not finite"):
        signature(TargetTransform("log")).decode(np.array([[0.0, 1e6]], np.float32))


@pytest.mark.parametrize("transform", [None, TargetTransform("log"), TargetTransform("log1p"), QUANTILE])
def test_an_output_keeps_its_transform_in_json(transform: TargetTransform | None) -> None:
    made = signature(transform)
    config = json.loads(json.dumps(made.config()))
    assert read_signature(config) == made
    assert ("transform" in config["output"]) == (transform is not None)  # older releases read models without one
    y = np.array([[2.0, 7.0]])
    np.testing.assert_allclose(made.output.decode(made.output.encode(y)), y)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("transform", "problem"),
    [
        ("log", "an object with the kind"),
        ({"kind": "sqrt"}, "an object with the kind"),
        ({"kind": ["log"]}, "an object with the kind"),
        ({"kind": "log", "scores": []}, "an object with the kind"),
        ({"kind": "quantile"}, "an object with the kind"),
        ({"kind": "quantile", "scores": [0, 1], "values": 1}, "2 to 1000 knots"),
        ({"kind": "quantile", "scores": [0], "values": [[0], [0]]}, "2 to 1000 knots"),
        ({"kind": "quantile", "scores": [0, True], "values": [[0, 1]] * 2}, "2 to 1000 knots"),
        ({"kind": "quantile", "scores": [0, 10**400], "values": [[0, 1]] * 2}, "2 to 1000 knots"),
        ({"kind": "quantile", "scores": list(range(1001)), "values": [list(range(1001))] * 2}, "2 to 1000 knots"),
        ({"kind": "quantile", "scores": [0, 0], "values": [[0, 1]] * 2}, "to ascend"),
        ({"kind": "quantile", "scores": [0, 1], "values": [[0, 1], [1, 0]]}, "to ascend"),
        ({"kind": "quantile", "scores": [0, 1], "values": [[0, 1], [0, 1, 2]]}, "as many values"),
        ({"kind": "quantile", "scores": [0, 1], "values": [[0, 1]]}, "the values of 2 targets"),
    ],
)
def test_an_invalid_transform_is_rejected(transform: Any, problem: str) -> None:
    config = signature(None).config()
    config["output"]["transform"] = transform
    with pytest.raises(ValueError, match=rf"signature\.output.*{problem}"):
        read_signature(config)


def test_normal_scores_make_a_normal_distribution() -> None:
    normal = NormalDist()
    scores = tuple(np.linspace(-3, 3, 61).tolist())
    knots = tuple(math.exp(score) for score in scores)
    t = TargetTransform("quantile", scores, (knots,)).apply(np.exp(np.array([[normal.inv_cdf(0.9)]])))
    assert t[0, 0] == pytest.approx(normal.inv_cdf(0.9), abs=2e-3)


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=9, unique=True), st.data())
def test_all_targets_at_once_are_interpolated_as_each_alone(scores: list[int], data: st.DataObject) -> None:
    scores = sorted(map(float, scores))
    knots = st.lists(st.floats(-1e6, 1e6), min_size=len(scores), max_size=len(scores)).map(sorted)
    values = data.draw(st.lists(knots, min_size=1, max_size=3))
    transform = TargetTransform("quantile", tuple(scores), tuple(map(tuple, values)))
    t = np.array([[one] * len(values) for one in [*scores, -2e6, 2e6, data.draw(st.floats(-1e6, 1e6))]])
    found = transform.invert(t)
    for i, column in enumerate(values):
        assert found[: len(scores), i].tolist() == column
        np.testing.assert_allclose(found[:, i], np.interp(t[:, i], scores, column), rtol=1e-9, atol=1e-6)
    assert np.isnan(transform.invert(t * np.nan)).all()


def test_the_knots_are_converted_once() -> None:
    transform = TargetTransform("quantile", QUANTILE.scores, QUANTILE.values)
    transform.invert(np.zeros((1, 2)))
    assert transform._knots is transform._knots
    assert transform == QUANTILE
