"""onnx's own tests of each operator that can be imported agree, and the documents list them."""

import pytest

from model_store.importing.onnx.ml_operators import ML_OPERATORS
from model_store.importing.onnx.operators import OPERATORS
from tests.model_store.importing.node_cases import OTHER_RESULTS, Case, run_cases
from tests.test_arrows import ROOT

PAGE = ROOT / "docs/imports.md"
BEGIN, END = "<!-- operators: begin -->\n", "<!-- operators: end -->\n"


def operator_table() -> str:
    """The table of operators in docs/imports.md, from the cases."""
    lines = ["| operator | cases of onnx that agree | cases that are refused |", "|---|---|---|"]
    by_operator: dict[str, list[Case]] = {name: [] for name in sorted([*OPERATORS, *ML_OPERATORS])}
    for case in run_cases():
        by_operator[case.operator].append(case)
    for operator, cases in by_operator.items():
        agree, refused = (
            ", ".join(case.name.removeprefix("test_") for case in cases if bool(case.refusal) == is_refused)
            for is_refused in (False, True)
        )
        lines.append(f"| `{operator}` | {agree} | {refused} |")
    return "\n".join(lines) + "\n"


def test_the_cases_of_onnx_agree_and_the_page_lists_them() -> None:
    """A case that differs raises AssertionError. This module, run as a program, writes the table."""
    page = PAGE.read_text(encoding="utf-8")
    assert page.partition(BEGIN)[2].partition(END)[0] == operator_table()


@pytest.mark.parametrize("operator", sorted(OPERATORS.keys() - OTHER_RESULTS))
def test_each_operator_agrees_with_a_case_of_onnx(operator: str) -> None:
    assert any(case.operator == operator and not case.refusal for case in run_cases())


def test_a_refusal_says_what_was_expected() -> None:
    assert [case for case in run_cases() if case.refusal and "expected" not in case.refusal] == []


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + operator_table() + END + rest.partition(END)[2], encoding="utf-8")
