"""onnx's own tests of each operator that can be imported agree, and the documents list them."""

from collections import Counter

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from model_store.importing.onnx.evaluated_pooling import AveragePool, MaxPool
from model_store.importing.onnx.ml_operators import ML_OPERATORS
from model_store.importing.onnx.operators import OPERATORS
from model_store.importing.onnx.values import NoValuesError, OverBatchError, TrainingModeError
from tests.model_store.importing.node_cases import OTHER_RESULTS, Case, is_imported, load_cases, run_cases
from tests.test_arrows import ROOT

PAGE = ROOT / "docs/imports.md"
POOLS = ["AveragePool", "MaxPool"]
# Why a case is refused, by its error.
REASONS: dict[type[BaseException], str] = {
    OverBatchError: "over the batch",
    TrainingModeError: "in training mode",
    NoValuesError: "without values",
}
BEGIN, END = "<!-- operators: begin -->\n", "<!-- operators: end -->\n"


def operator_table() -> str:
    """The table of operators in docs/imports.md, from the cases."""
    kinds = Counter(case.kind for case in run_cases())
    counts = ", ".join(f"{kinds[kind]} {reason}" for kind, reason in REASONS.items())
    lines = [f"{kinds[None]} of {len(run_cases())} cases agree. Rows cannot have the others: {counts}.", ""]
    lines += ["| operator | cases of onnx that agree | cases that rows cannot have |", "|---|---|---|"]
    by_operator: dict[str, list[Case]] = {name: [] for name in sorted([*OPERATORS, *ML_OPERATORS])}
    for case in run_cases():
        by_operator[case.operator].append(case)
    for operator, cases in by_operator.items():
        names = {
            kind: ", ".join(case.name.removeprefix("test_") for case in cases if case.kind is kind)
            for kind in (None, *REASONS)
        }
        refused = "; ".join(f"{REASONS[kind]}: {found}" for kind, found in names.items() if kind and found)
        lines.append(f"| `{operator}` | {names[None]} | {refused} |")
    return "\n".join(lines) + "\n"


def test_the_cases_of_onnx_agree_and_the_page_lists_them() -> None:
    """A case that differs raises AssertionError. This module, run as a program, writes the table."""
    page = PAGE.read_text(encoding="utf-8")
    assert page.partition(BEGIN)[2].partition(END)[0] == operator_table()


@pytest.mark.parametrize("operator", sorted(OPERATORS.keys() - OTHER_RESULTS))
def test_each_operator_agrees_with_a_case_of_onnx(operator: str) -> None:
    assert any(case.operator == operator and not case.refusal for case in run_cases())


def test_only_cases_that_rows_cannot_have_are_refused() -> None:
    """All cases agree in which the first axis is a batch of rows that do not depend on each other."""
    assert [case for case in run_cases() if case.kind not in {None, *REASONS}] == []
    assert [case for case in run_cases() if case.refusal and "expected" not in case.refusal] == []


def test_the_poolings_of_the_evaluator_agree_with_onnx() -> None:
    """They replace those of onnx's reference evaluator, with which imported networks are compared."""
    cases = [test for test in load_cases() if is_imported(test) and test.model.graph.node[0].op_type in POOLS]
    cases = [test for test in cases if len(test.model.graph.output) == 1]
    assert len(cases) > 30
    for test in cases:
        evaluator = ReferenceEvaluator(test.model, new_ops=[AveragePool, MaxPool])
        (x,), (y,) = test.data_sets[0]
        np.testing.assert_allclose(evaluator.run(None, {"x": x})[0], y, rtol=1e-3, atol=1e-5, err_msg=test.name)


@pytest.mark.parametrize("operator", POOLS)
def test_the_evaluator_pads_the_side_that_the_operator_names(operator: str) -> None:
    """Onnx 1.22 takes top, left, bottom, right as top, bottom, left, right."""
    node = helper.make_node(operator, ["x"], ["y"], kernel_shape=[2, 2], pads=[0, 0, 1, 1])
    evaluator = ReferenceEvaluator(node, opsets={"": 21}, new_ops=[AveragePool, MaxPool])
    (found,) = evaluator.run(None, {"x": np.array([[[[1.0, 3.0], [5.0, 9.0]]]], np.float32)})
    assert found.ravel().tolist() == ([9, 9, 9, 9] if operator == "MaxPool" else [4.5, 6, 7, 9])


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + operator_table() + END + rest.partition(END)[2], encoding="utf-8")
