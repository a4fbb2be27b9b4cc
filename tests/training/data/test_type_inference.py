"""The kinds of columns, labels and tasks that are inferred from cells."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.utils.values import parse_finite_number
from training.data import multi_label, type_inference
from training.data.fitting.kinds import infer_kind
from training.data.readers import Table
from training.errors import DataError


def table(*cells: str | None) -> Table:
    return Table("t.csv", {"a": list(cells)}, list(range(2, 2 + len(cells))))


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-2.5e3", None, " 4".strip()], "number"),
        (["1", "x"], "category"),
        (["1_000", "2"], "category"),
        (["inf", "2"], "number"),
        (["1e999", "-Infinity", "-nan"], "number"),
        (["inf", "sup"], "category"),
        ([None, None], "number"),
    ],
)
def test_a_column_is_numeric_if_all_its_cells_spell_numbers(cells: list[str | None], kind: str) -> None:
    assert infer_kind(cells) == kind


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_float_is_parsed_exactly(value: float) -> None:
    assert parse_finite_number(repr(value)) == value


def test_invalid_numbers_are_one_fault_with_their_count_and_examples() -> None:
    with pytest.raises(DataError) as caught:
        type_inference.parse_numbers(table("1", "two", None, "inf", *["two"] * 90), "a")
    (fault,) = caught.value.faults
    assert fault.location == "line 3, column a"
    assert fault.problem == "expected a finite number, found 'two'; 92 cells are like this, also 'inf' in line 5"
    with pytest.raises(DataError, match=r"found 'two' \(correct the cell, or empty it if the value is missing\)"):
        type_inference.parse_numbers(table("1", "two", None), "a")


def test_identifiers_are_rejected_as_categories_with_a_fix() -> None:
    names = table(*(f"name {i}" for i in range(50)))
    with pytest.raises(DataError, match="50 distinct values in 50 rows: too many for a category") as caught:
        type_inference.parse_categories(names, "a", declared=False)
    assert "kinds" in caught.value.faults[0].fix
    assert len(type_inference.parse_categories(names, "a", declared=True)) == 50


def test_declared_categories_may_have_any_number_of_values() -> None:
    cells = [f"{i}" for i in range(type_inference.MAX_CATEGORIES + 1)]
    assert list(type_inference.parse_categories(table(*cells), "a", declared=True)) == cells


def test_formatted_numbers_and_dates_are_reported() -> None:
    with pytest.raises(
        DataError, match=r"write numbers such as '0,5 €' with a decimal point, without commas and units; or"
    ):
        type_inference.parse_categories(table(*(f"{i},5 €" for i in range(50))), "a", declared=False)
    dates = table(*(f"2025-01-{i % 28 + 1:02}" for i in range(90)))
    (note,) = type_inference.kind_warnings(dates, {"a": "category"}, {})
    assert note.startswith("column a is treated as a category: replace the dates with numbers")
    assert type_inference.kind_warnings(dates, {"a": "category"}, {"a": "category"}) == []
    assert type_inference.kind_warnings(table(*("red", "blue") * 40), {"a": "category"}, {}) == []


def test_one_invalid_number_is_reported_instead_of_inferring_a_category() -> None:
    with pytest.raises(DataError, match=r"line 52, column a: expected a number.*found 'O.5'"):
        type_inference.parse_categories(table(*map(str, range(50)), "O.5"), "a", declared=False)


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["1", "2", "1"], [1, 2, 1]),
        (["1.0", "0.0"], [1, 0]),
        (["-1", "+1", "0"], [-1, 1, 0]),
        (["01", "02"], ["01", "02"]),
        (["yes", "1"], ["yes", "1"]),
        (["0.5", "1"], ["0.5", "1"]),
        (["99999999999999999999", "1"], ["99999999999999999999", "1"]),
        ([str(2**53), "-1"], [2**53, -1]),
        ([str(2**53), str(2**53 + 1)], [str(2**53), str(2**53 + 1)]),
        ([f"-{2**53 + 1}.0", "7"], [f"-{2**53 + 1}.0", "7"]),
        (["9" * 5000, "1"], ["9" * 5000, "1"]),
        (["\N{ARABIC-INDIC DIGIT THREE}", "3"], ["\N{ARABIC-INDIC DIGIT THREE}", "3"]),
    ],
)
def test_labels_keep_their_type(cells: list[str], labels: list[object]) -> None:
    assert type_inference.parse_labels(cells) == labels


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["a", "b"], True),
        (["0", "1", "1"], True),
        (["0.5", "1"], False),
        ([str(i // 2) for i in range(40)], True),
        ([str(i // 2) for i in range(42)], False),
        (["154", "169", "182", "189", "193", "176"], False),
        (["0", "1", "2"], True),
        ([str(2**64 - i) for i in range(300)], False),
        (["0", "1", "inf"], False),
    ],
)
def test_strings_and_few_distinct_integers_are_classes(cells: list[str], classes: bool) -> None:
    assert type_inference.looks_like_classes(cells) is classes


def test_a_column_with_an_infinite_number_is_not_constant() -> None:
    assert not type_inference.is_constant_range(0.0, float("inf"))
    assert type_inference.is_constant_range(0.3, 0.1 + 0.2)


def test_a_cell_of_spaces_costs_no_more_than_its_length() -> None:
    """The spaces before a unit were matched twice, which took a minute for 30,000 of them."""
    assert type_inference.suggest_conversion(["1" + " " * 1_000_000 + "!!"]) == ""
    assert type_inference.suggest_conversion(["1,200 kg", "3 %"]).startswith("write numbers such as '1,200 kg'")


def test_bounds_among_many_numbers_are_numbers_and_groups_of_ages_are_not() -> None:
    measured = [f"{i / 4}" for i in range(60)] + ["<0.5"] * 10 + ["20-30", ">100"]
    assert infer_kind(measured) == "number"
    found = type_inference.find_number_format(measured)
    assert found is not None
    assert [found.parse(text) for text in ("<0.5", "20-30", ">100", "3")] == [0.5, 25, 100, 3]
    assert infer_kind(["18-24", "25-34", "65+"] * 20) == "category"
    assert infer_kind(["0", "1", "2", "3+"] * 20) == "category"
    assert infer_kind([*measured, *["<0.5"] * 70]) != "number"  # most are bounds


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([f"{i}.5" for i in range(60)] + ["none yet, see 12"] * 20, "found 'none yet, see 12'"),
        ([f"{i} kg" if i % 2 else f"{i} m" for i in range(80)], "units that can be converted; found '0 m' and '1 kg'"),
        ([f"{i}.5" for i in range(60)] + ["<5 or so"] * 20, "expected a number, like most cells of the column"),
    ],
)
def test_a_target_of_mostly_numbers_never_becomes_classes(cells: list[str], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        type_inference.infer_task(table(*cells), ["a"])


def test_an_input_of_mostly_numbers_has_a_note_of_what_stopped_it_from_being_numbers() -> None:
    found = table(*[f"{i}.5" for i in range(60)] * 2, *["see 12"] * 40)
    (note,) = type_inference.kind_warnings(found, {"a": infer_kind(found.columns["a"])}, {})
    assert "because 40 of its 160 cells are not numbers, such as 'see 12' in line 122" in note


def test_each_distinct_cell_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`train init` took 14.7 s for 40 kB of Parquet with 2 million rows of one text of 130 characters."""
    calls = 0

    def count(parse: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            return parse(*args)

        return counted

    for module, name in [
        (type_inference, "parse_finite_number"), (type_inference, "parse_number"),
        (type_inference, "_parse_integer"), (multi_label, "split_labels"),
    ]:  # fmt: skip
        monkeypatch.setattr(module, name, count(getattr(module, name)))
    for cells in (["0"] * 1000, ["a long text"] * 1000):
        calls = 0
        type_inference.rare_invalid_numbers(cells)
        type_inference.parse_labels(cells)
        multi_label.infer_separator(cells)
        assert 0 < calls < 20
