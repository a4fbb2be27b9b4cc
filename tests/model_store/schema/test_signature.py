"""The signature: rows are encoded as features, and every fault is reported with location and fix."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.errors import Fault, InputError
from model_store.schema import signature as signature_module
from model_store.schema.columns.base import Column, FaultCollector, ReplacedValues
from model_store.schema.columns.date import DateColumn
from model_store.schema.columns.number_text import NumberFormat
from model_store.schema.columns.text import TextColumn
from model_store.schema.signature import (
    ArrayColumn,
    CategoryColumn,
    ClassificationOutput,
    NumberColumn,
    RegressionOutput,
    Signature,
)
from model_store.schema.signature_json import read_signature

PENGUIN = Signature(
    (
        CategoryColumn("island", ("Biscoe", "Dream", "Torgersen")),
        NumberColumn("mass", offset=4000, scale=800),
        NumberColumn("flipper", fill=200.0, statistics={"count": 3}),
        CategoryColumn("sex", ("female", "male"), unknown="bucket", fill="male"),
    ),
    ClassificationOutput("species", ("Adelie", "Gentoo")),
)
IMAGE = Signature((ArrayColumn("pixels", (2, 2), scale=16, low=0, high=16),), ClassificationOutput("digit", (0, 1, 2)))
XOR = Signature((NumberColumn("a"), NumberColumn("b")), RegressionOutput(("y",), (0.0,), (1.0,)))


def faults(signature: Signature, rows: list[object]) -> list[str]:
    with pytest.raises(InputError) as caught:
        signature.encode(rows)
    return [str(fault) for fault in caught.value.faults]


def test_numbers_are_standardised_and_categories_are_one_hot() -> None:
    encoded = PENGUIN.encode([["Dream", 4800, 210.5, "female"]])
    assert encoded.tolist() == [[0, 1, 0, 1, 210.5, 1, 0, 0]]
    assert encoded.dtype == np.float32
    assert PENGUIN.width == 8


def test_lists_and_objects_encode_to_equal_features() -> None:
    row = {"sex": "female", "mass": 3600, "flipper": 190, "island": "Biscoe"}
    in_order = [row[name] for name in PENGUIN.names]
    assert PENGUIN.encode([row]).tolist() == PENGUIN.encode([in_order]).tolist()
    assert PENGUIN.encode([row, in_order])[0].tolist() == PENGUIN.encode([row, in_order])[1].tolist()


def test_rows_can_be_one_numpy_array() -> None:
    for signature, rows in ((XOR, [[0, 1], [2, 3.5]]), (IMAGE, [[[1, 2], [3, 4]]]), (PENGUIN, [["Dream", 1, 2, None]])):
        given = np.array(rows, object if signature is PENGUIN else np.float64)
        assert signature.encode(given).tolist() == signature.encode(rows).tolist()
    assert XOR.encode(np.zeros((0, 2))).shape == (0, 2)
    with pytest.raises(InputError, match=r"instances\.0: expected a row"):
        XOR.encode(np.array(3.0))


def test_missing_values_are_replaced_by_fill() -> None:
    expected = PENGUIN.encode([["Biscoe", 4000, 200, "male"]]).tolist()
    assert PENGUIN.encode([["Biscoe", 4000, None, None]]).tolist() == expected
    assert PENGUIN.encode([{"island": "Biscoe", "mass": 4000}]).tolist() == expected


def test_missing_values_without_fill_are_rejected() -> None:
    refused = [
        "instances.0.island: expected one of Biscoe, Dream, Torgersen; found none "
        "(send one of the categories; the column is required)",
        "instances.0.mass: expected a number, found none (send a number; the column is required)",
    ]
    assert faults(PENGUIN, [[None, None, 1, "male"]]) == refused
    assert faults(PENGUIN, [{"flipper": 1}]) == refused


FILLED = Signature(
    (NumberColumn("age", fill=38.0), CategoryColumn("town", ("Bath", "York"), fill="York"), NumberColumn("size")),
    RegressionOutput(("y",), (0.0,), (1.0,)),
)


def test_filled_values_are_named_in_warnings() -> None:
    for rows in ([{"size": 1}], [[None, None, 1]], [[None, "n/a", 1]], [{"size": 1, "age": None, "town": ""}]):
        warnings: list[Fault] = []
        encoded = FILLED.encode(rows, warnings=warnings)
        assert encoded.tolist() == [[38, 0, 1, 1]]
        assert [(each.location, each.problem) for each in warnings] == [
            ("instances.0.age", "the value is missing; 38 was used"),
            ("instances.0.town", "the value is missing; 'York' was used"),
        ]
        assert all(each.fix for each in warnings)
    warnings = []
    columns = {"age": np.array([1.0, np.nan]), "town": np.array([None, "Bath"]), "size": np.array([1.0, 1.0])}
    FILLED.encode_columns(columns, warnings=warnings)
    assert [each.location for each in warnings] == ["rows.0.town", "rows.1.age"]
    FILLED.encode([[1, "Bath", 2]], warnings=warnings)
    assert len(warnings) == 2


def test_unknown_categories_are_named_in_warnings() -> None:
    warnings: list[Fault] = []
    town = Signature((CategoryColumn("town", ("Bath", "Hull"), "bucket"),), FILLED.output)
    np.testing.assert_array_equal(town.encode([["Hull"], ["Baht"]], warnings=warnings), [[0, 1, 0], [0, 0, 1]])
    (warning,) = warnings
    assert warning.location == "instances.1.town"
    assert warning.problem == "no training row has the category 'Baht'"
    assert warning.fix == "did you mean 'Bath'?"


def test_many_filled_values_are_listed_up_to_a_hundred_and_the_rest_is_counted() -> None:
    warnings: list[Fault] = []
    FILLED.encode([[None, None, 1]] * 1000, warnings=warnings)
    assert len(warnings) == 101
    assert warnings[99].location == "instances.49.town"
    assert warnings[100].problem == "1900 more values were missing or unknown"


SPARSE = Signature(
    (
        *(CategoryColumn(f"town {i}", ("Bath", "York"), "bucket", "York") for i in range(40)),
        *(TextColumn(f"note {i}", 8, "") for i in range(20)),
        *(NumberColumn(f"age {i}", 30.0, 2.0, 38.0, indicator=True) for i in range(20)),
        *(DateColumn(f"day {i}", 0.0, 86_400.0, 86_400.0, cycles=("week",)) for i in range(20)),
    ),
    FILLED.output,
)


@pytest.mark.parametrize("shape", ["objects", "lists", "columns"])
def test_the_cost_of_filled_and_unknown_values_grows_with_the_columns_alone(
    monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    """10,000 rows of one value for 200 columns, 279 bytes of gzip, took 5 s: each location was formatted."""
    formatted: list[str] = []
    noted: list[int] = []
    add, note = ReplacedValues.add, Column.note_filled

    def counted_add(self: ReplacedValues, location: str, problem: str, fix: Any) -> None:
        formatted.append(location)
        add(self, location, problem, fix)

    def counted_note(self: Column, rows: Sequence[int], *rest: Any) -> None:
        noted.append(len(rows))
        note(self, rows, *rest)

    monkeypatch.setattr(ReplacedValues, "add", counted_add)
    monkeypatch.setattr(Column, "note_filled", counted_note)
    warnings: list[Fault] = []
    names = SPARSE.names
    if shape == "columns":
        SPARSE.encode_columns({names[0]: np.array(["Hull"] * 1000, object)}, warnings=warnings)
    elif shape == "objects":  # each row has another column, so that no column is missing in all
        SPARSE.encode([{names[i % 40]: "Hull"} for i in range(1000)], warnings=warnings)
    else:
        SPARSE.encode([["Hull"] + [None] * 99] * 1000, warnings=warnings)
    assert len(noted) <= 2 * 100
    assert len(formatted) < 1000
    assert len(warnings) == 101
    assert warnings[-1].problem == f"{100 * 1000 - 100} more values were missing or unknown"


def test_a_column_that_no_row_has_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    encode = CategoryColumn.encode

    def counted(self: CategoryColumn, values: Any, *rest: Any) -> Any:
        sizes.append(len(values))
        return encode(self, values, *rest)

    monkeypatch.setattr(CategoryColumn, "encode", counted)
    SPARSE.encode([{"town 0": "Bath"}] * 500)
    SPARSE.encode_columns({"town 0": np.array(["Bath"] * 500, object)})
    assert sizes == [500, *[1] * 39] * 2


def test_null_in_a_tensor_of_formatted_numbers_is_a_missing_value() -> None:
    faults = FaultCollector()
    column = NumberColumn("price", fill=1.0, format=NumberFormat(decimal=","))
    found = column.from_tensor(np.array(["1,5", None, ""], object), "BYTES", "inputs.price", faults)
    np.testing.assert_array_equal(found, [1.5, np.nan, np.nan])
    assert not faults.total


def test_absent_columns_are_encoded_as_missing_values() -> None:
    rows = [{"town 0": "Bath"}, {"town 0": "Hull"}, {"town 0": None}]
    full = [[row["town 0"], *[None] * 99] for row in rows]
    names = {"town 0": np.array(["Bath", "Hull", None], object)}
    expected = SPARSE.encode(full).tobytes()
    assert SPARSE.encode(rows).tobytes() == expected
    assert SPARSE.encode_columns(names).tobytes() == expected
    assert SPARSE.encode([rows[0], *full[1:]]).tobytes() == expected
    with pytest.raises(InputError) as caught:
        FILLED.encode_columns({"age": np.array([1.0, 2.0])})
    assert [fault.location for fault in caught.value.faults] == ["rows.0.size", "rows.1.size"]


def test_the_faults_of_the_first_rows_are_kept_whatever_the_column() -> None:
    """A batch of which every row lacks two columns names both, and not a hundred times the first."""
    with pytest.raises(InputError) as caught:
        PENGUIN.encode([{"flipper": 1}] * 1000)
    locations = [fault.location for fault in caught.value.faults]
    assert locations[:4] == ["instances.0.island", "instances.0.mass", "instances.1.island", "instances.1.mass"]
    assert (len(locations), caught.value.total) == (100, 2000)


@given(st.lists(st.integers(0, 400), max_size=700))
def test_a_collector_keeps_the_first_faults_in_the_order_of_rows(rows: list[int]) -> None:
    collector, computed = FaultCollector(), []
    for i, row in enumerate(rows):
        collector.add(f"instances.{row}.a", str(i), lambda i=i: computed.append(i) or "fix")  # type: ignore[func-returns-value, misc]
    expected = sorted(range(len(rows)), key=lambda i: (rows[i], i))[:100]
    assert [int(fault.problem) for fault in collector.faults] == expected
    assert collector.total == len(rows)
    assert computed == expected[: FaultCollector.MAX_HINTS]


def test_an_unknown_category_is_bucketed_or_rejected() -> None:
    assert PENGUIN.encode([["Biscoe", 4000, 200, "unsure"]])[0, -3:].tolist() == [0, 0, 1]
    assert faults(PENGUIN, [["Bisco", 4000, 200, "male"]]) == [
        "instances.0.island: expected one of Biscoe, Dream, Torgersen; found 'Bisco' (did you mean 'Biscoe'?)"
    ]


@pytest.mark.parametrize("spelling", [str.lower, str.title, str.upper])
def test_a_boolean_is_the_category_that_spells_it(spelling) -> None:
    column = CategoryColumn("member", tuple(map(spelling, ("false", "unsure", "true"))), unknown="bucket")
    signature = Signature((column,), RegressionOutput(("y",), (0.0,), (1.0,)))
    texts = [[spelling("true")], [spelling("false")]]
    assert (
        signature.encode([[True], [False]]).tolist() == signature.encode(texts).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
    )


def test_a_boolean_is_rejected_where_no_category_or_several_spell_it() -> None:
    columns = (CategoryColumn("sold", ("never", "always"), unknown="bucket"), CategoryColumn("paid", ("TRUE", "True")))
    signature = Signature(columns, RegressionOutput(("y",), (0.0,), (1.0,)))
    assert faults(signature, [[True, True]]) == [
        "instances.0.sold: expected text, found true (send one of the training data's categories)",
        "instances.0.paid: expected text, found true (send one of these in quotes: TRUE, True)",
    ]


def test_the_fix_of_a_boolean_or_a_text_for_a_missing_value_is_a_valid_value() -> None:
    columns = (CategoryColumn("member", ("False", "false"), fill="false"), NumberColumn("age", 40.0, 10.0, fill=40.0))
    signature = Signature(columns, RegressionOutput(("price",), (0.0,), (1.0,)))
    assert faults(signature, [[False, ""], ["no", "n/a"]]) == [
        "instances.0.member: expected text, found false (send one of these in quotes: False, false)",
        "instances.0.age: expected a number, found '' (send null for a missing value)",
        "instances.1.member: expected one of False, false; found 'no' (send one of the training data's categories)",
        "instances.1.age: expected a number, found 'n/a' (send null for a missing value)",
    ]


@pytest.mark.parametrize("text", ["", " ", "NA", " n/a ", "NaN", "?"])
def test_a_text_for_a_missing_category_is_a_missing_value(text: str) -> None:
    def encode(column: CategoryColumn, value: object) -> object:
        return Signature((column,), RegressionOutput(("y",), (0.0,), (1.0,))).encode([[value]]).tolist()[0]

    filled = CategoryColumn("sex", ("f", "m"), "bucket", fill="m")
    assert encode(filled, text) == encode(filled, None) == [0, 1, 0]
    with pytest.raises(InputError, match="expected one of f, m; found none"):
        encode(CategoryColumn("sex", ("f", "m"), "bucket"), text)
    named = CategoryColumn("sex", ("NA", " f", "", "?"), "bucket", fill="?")
    assert [encode(named, value) for value in ("NA", " f", "")] == np.eye(5)[:3].tolist()


def test_integers_are_read_as_categories_of_their_digits() -> None:
    signature = Signature(
        (CategoryColumn("class", ("1", "2", str(2**64 - 1))),), RegressionOutput(("y",), (0.0,), (1.0,))
    )
    assert signature.encode([[2], ["2"], [2**64 - 1]]).tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_one_error_reports_every_fault_of_every_row() -> None:
    rows: list[object] = [
        ["Biscoe", "4000", 200, "male"],
        {"island": "Dreem", "masss": 1, "flipper": "2", "sex": "male"},
        ["Biscoe", True, 200, 1.5],
        ["Biscoe"],
        "row",
        ["Biscoe", float("nan"), 10**400, "male"],
        ["Biscoe", [1], {"a": 1}, "male"],
    ]
    assert sorted(faults(PENGUIN, rows)) == [
        "instances.0.mass: expected a number, found '4000' (send it without quotes)",
        "instances.1.flipper: expected a number, found '2' (send it without quotes)",
        "instances.1.island: expected one of Biscoe, Dream, Torgersen; found 'Dreem' (did you mean 'Dream'?)",
        "instances.1.mass: expected a number, found none (send a number; the column is required)",
        "instances.1.masss: unknown column (did you mean 'mass'?)",
        "instances.2.mass: expected a number, found true (send 0 or 1)",
        "instances.2.sex: expected text, found 1.5 (send one of the training data's categories)",
        "instances.3: expected 4 values, found 1 (send them in this order: island, mass, flipper, sex)",
        "instances.4: expected a row, found 'row' (send a list, or an object with island, mass, flipper, sex)",
        "instances.5.flipper: expected a number, found 1" + "0" * 56 + "... (send a finite number)",
        "instances.5.mass: expected a number, found nan (send a finite number)",
        "instances.6.flipper: expected a number, found an object (send a finite number)",
        "instances.6.mass: expected a number, found [1] (send a finite number)",
    ]


def test_restore_label_order_puts_labels_and_targets_in_their_order() -> None:
    labels = tuple(range(11))
    classifier = Signature((NumberColumn("a"),), ClassificationOutput("digit", labels))
    metrics = {"accuracy": 1.0, "classes": {name: {"f1": 1.0} for name in sorted(map(str, labels))}}
    assert list(classifier.restore_label_order({"metrics": metrics})["metrics"]["classes"]) == [
        str(label) for label in labels
    ]
    regression = Signature((NumberColumn("a"),), RegressionOutput(("up", "down"), (0.0, 0.0), (1.0, 1.0)))
    training = {"baseline": {"targets": {"down": 1, "other": 2, "up": 3}}, "metrics": [], "epochs": 3}
    found = regression.restore_label_order(training)
    assert found == training
    assert list(found["baseline"]["targets"]) == ["up", "down", "other"]


def test_faults_are_sorted_by_row() -> None:
    rows = [["Bisco", "1", 2, "male"], {"island": "Dream", "masss": 1, "mass": 1, "flipper": 2, "sex": "male"}, 7]
    assert [fault.partition(":")[0] for fault in faults(PENGUIN, [*rows, *rows])] == [
        "instances.0.island", "instances.0.mass", "instances.1.masss", "instances.2",
        "instances.3.island", "instances.3.mass", "instances.4.masss", "instances.5",
    ]  # fmt: skip


def test_only_the_first_faults_are_kept_and_all_are_counted() -> None:
    with pytest.raises(InputError) as caught:
        XOR.encode([["x", "y"]] * 400)
    assert len(caught.value.faults) == 100
    assert caught.value.total == 800


def test_validation_ends_after_ten_thousand_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 invalid rows of many columns took 0.6 s."""
    counted = []
    add = FaultCollector.add
    monkeypatch.setattr(FaultCollector, "add", lambda self, *fault: counted.append(fault) or add(self, *fault))
    for rows in (
        [["x", "y"]] * 9000,
        [[1]] * 11_000,
        [{"c": 1}] * 11_000,
        [3] * 11_000,
        [{str(i): 1 for i in range(20_000)}],
    ):
        counted.clear()
        with pytest.raises(InputError) as caught:
            XOR.encode(rows)
        assert caught.value.total == InputError.MAX_COUNTED
        assert len(counted) == (200 if rows[0] == ["x", "y"] else InputError.MAX_COUNTED)  # 100 of each column


def test_costly_fixes_are_found_for_the_first_faults_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 misspelt columns of 1000, each compared with all, took 17 s."""
    searched: list[str] = []
    monkeypatch.setattr(signature_module, "did_you_mean", lambda word, known: searched.append(word) or "")
    found = faults(XOR, [{f"misspelt {i}": 1 for i in range(100)}])
    assert len(searched) == FaultCollector.MAX_HINTS
    assert found[0].endswith("(the columns are a, b)")
    assert found[-1].endswith("(see the fixes of the first errors)")


@pytest.mark.parametrize("value", [1e300, -1e300, 10**300])
def test_a_number_beyond_float32_is_rejected(value: float) -> None:
    assert faults(XOR, [[0, value]]) == ["instances.0.b: expected a number that fits float32 (send a smaller number)"]


@pytest.mark.parametrize(
    ("column", "value"), [(NumberColumn("x", scale=1e-300), 1e300), (DateColumn("x", scale=1e-320), "2020-01-01")]
)
def test_a_value_that_overflows_when_it_is_scaled_is_a_fault_without_a_warning(column: Column, value: Any) -> None:
    signature = Signature((column,), RegressionOutput(("y",), (0.0,), (1.0,)))
    assert faults(signature, [[value]]) == [
        "instances.0.x: expected a number that fits float32 (send a smaller number)"
    ]


def test_an_integer_of_thousands_of_digits_is_rejected_without_printing_it() -> None:
    assert "an integer of thousands of digits" in faults(XOR, [[0, 10**5000]])[0]


def test_arrays_can_be_nested_flat_or_named() -> None:
    expected = [[0.25, 0.5, 0.75, 1.0]]
    for row in ([[4, 8], [12, 16]], [4, 8, 12, 16], {"pixels": [[4, 8], [12, 16]]}):
        assert IMAGE.encode([row]).tolist() == expected
    assert IMAGE.encode([[4, 8, 12, 16], [[4, 8], [12, 16.0]]]).tolist() == expected * 2


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ([[1, 2], [3]], "rows of different lengths"),
        ([1, 2, 3], "shape [3]"),
        ([[[1, 2], [3, 4]]], "shape [1, 2, 2]"),
        (5, "5"),
        (None, "null"),
        ({"p": 1}, "an object"),
        ([[1, "a"], [1, 2]], "'a'"),
        ([[1, None], [1, 2]], "null"),
        ([1, 2, 3, True], "true"),
        ([1, 2, 3, float("inf")], "inf"),
        ([], "shape [0]"),
    ],
    ids=str,
)
def test_an_array_of_another_shape_is_rejected_with_its_shape(row: object, found: str) -> None:
    (fault,) = faults(IMAGE, [row])
    assert fault.startswith("instances.0: expected an array of 4 finite numbers of shape [2, 2], or flat; found ")
    assert f"found {found} (" in fault


def test_values_outside_an_arrays_range_are_rejected() -> None:
    assert faults(IMAGE, [[1, 2, 3, 4], [0, 255, 17, -1]]) == [
        "instances.1: expected numbers from 0 to 16, found 255 (scale the values like the training data)"
    ]


def test_deeply_nested_rows_do_not_exhaust_the_stack() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert faults(IMAGE, [deep])
    assert faults(PENGUIN, [[deep, deep, deep, deep]])


def test_training_encodes_columns_as_serving_encodes_rows() -> None:
    rows = [["Biscoe", 4000.5, None, "male"], ["Dream", 1.25, 3.5, None], ["Torgersen", -7.125, 0.1, "other"]]
    columns = {
        "island": np.array(["Biscoe", "Dream", "Torgersen"], object),
        "mass": np.array([4000.5, 1.25, -7.125]),
        "flipper": np.array([np.nan, 3.5, 0.1]),
        "sex": np.array(["male", None, "other"], object),
    }
    assert PENGUIN.encode_columns(columns).tobytes() == PENGUIN.encode(rows).tobytes()
    with pytest.raises(InputError, match=r"rows.1.island: expected one of Biscoe.*; found 'Dreem'"):
        PENGUIN.encode_columns(columns | {"island": np.array(["Biscoe", "Dreem", "Dream"], object)})


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2)))
def test_float32_numbers_survive_json_unchanged(rows: list[list[float]]) -> None:
    sent = json.loads(json.dumps(rows))
    assert XOR.encode(sent).tobytes() == np.array(rows, np.float32).reshape(-1, 2).tobytes()


@given(st.lists(st.tuples(st.floats(-1e30, 1e30), st.integers(-(2**70), 2**70)), min_size=1))
def test_the_fast_path_for_tables_gives_the_features_of_the_columns(rows: list[tuple[float, int]]) -> None:
    """Lists of numbers are encoded as one table; objects of the same numbers are not."""
    scaled = Signature((NumberColumn("a", 0.1, 0.3), NumberColumn("b", -7.7, 1e3)), XOR.output)
    objects = [{"a": a, "b": b} for a, b in rows]
    assert scaled.encode([list(row) for row in rows]).tobytes() == scaled.encode(objects).tobytes()


@pytest.mark.slow
@given(st.lists(st.recursive(st.none() | st.booleans() | st.floats() | st.text() | st.integers(), st.lists)))
def test_any_json_encodes_or_raises_input_error(rows: list[object]) -> None:
    for signature in (PENGUIN, IMAGE, XOR):
        try:
            encoded = signature.encode(rows)
        except InputError as e:
            error = e
        else:
            error = None
            assert encoded.shape == (len(rows), signature.width)
            assert np.isfinite(encoded).all()
        assert error is None or 0 < len(error.faults) <= error.total


def test_a_classifier_predicts_the_label_and_all_probabilities() -> None:
    outputs = np.array([[0.25, 0.75]], np.float32)
    assert PENGUIN.decode(outputs) == [{"label": "Gentoo", "probabilities": {"Adelie": 0.25, "Gentoo": 0.75}}]
    (digit,) = IMAGE.decode(np.array([[0.5, 0.25, 0.25]], np.float32))
    assert digit == {"label": 0, "probabilities": {"0": 0.5, "1": 0.25, "2": 0.25}}


def test_a_single_output_for_two_labels_is_the_probability_of_the_second() -> None:
    yes, no = PENGUIN.decode(np.array([[0.75], [0.25]], np.float32))
    assert yes == {"label": "Gentoo", "probabilities": {"Adelie": 0.25, "Gentoo": 0.75}}
    assert no["label"] == "Adelie"


def test_a_regression_predicts_in_the_units_of_the_target() -> None:
    two = Signature((NumberColumn("x"),), RegressionOutput(("low", "high"), (10.0, 100.0), (2.0, 50.0)))
    assert two.decode(np.array([[1, 2]], np.float32)) == [{"low": 12.0, "high": 200.0}]
    assert XOR.decode(np.array([[0.5], [1.0]], np.float32)) == [0.5, 1.0]


def test_predictions_keep_every_bit_of_the_network() -> None:
    outputs = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    answers = json.loads(json.dumps(IMAGE.decode(outputs)))
    again = np.array([list(answer["probabilities"].values()) for answer in answers], np.float32)
    assert again.tobytes() == outputs.tobytes()


def test_a_prediction_that_is_not_finite_raises() -> None:
    with pytest.raises(InputError, match=r"instances.1: the prediction is not finite"):
        XOR.decode(np.array([[0.0], [np.inf]], np.float32))
    prices = Signature((NumberColumn("a"),), RegressionOutput(("y",), (0.0,), (1e308,)))
    with pytest.raises(InputError, match=r"instances.1: the prediction is not finite"):
        prices.decode(np.array([[1.0], [2.0]], np.float32))


@pytest.mark.parametrize("signature", [PENGUIN, IMAGE, XOR], ids=["penguin", "image", "xor"])
def test_a_signature_survives_json(signature: Signature) -> None:
    again = read_signature(json.loads(json.dumps(signature.config())))
    assert again == signature
    assert again.config() == signature.config()


NUMBER = {"kind": "number", "name": "a", "offset": 0, "scale": 1, "fill": None, "statistics": {}}
OUTPUT = {"kind": "values", "names": ["y"], "offset": [0], "scale": [1]}
CATEGORY = {
    "kind": "category",
    "name": "c",
    "categories": ["x"],
    "unknown": "refuse",
    "fill": None,
    "statistics": {},
}
ARRAY = {"kind": "array", "name": "p", "shape": [2], "offset": 0, "scale": 1, "low": None, "high": None}


@pytest.mark.parametrize(
    ("inputs", "output", "location"),
    [
        ([], OUTPUT, "signature.inputs"),
        ("x", OUTPUT, "signature.inputs"),
        ([NUMBER, NUMBER], OUTPUT, "unique names"),
        ([NUMBER | {"kind": "words"}], OUTPUT, "signature.inputs.0.kind"),
        ([NUMBER | {"scale": 0}], OUTPUT, "signature.inputs.0: .*scale"),
        ([NUMBER | {"scale": "1"}], OUTPUT, "signature.inputs.0: .*scale"),
        ([NUMBER | {"scale": True}], OUTPUT, "signature.inputs.0: .*scale"),
        ([NUMBER | {"linear_width": -1}], OUTPUT, "signature.inputs.0: .*linear_width"),
        ([NUMBER | {"linear_width": None}], OUTPUT, "signature.inputs.0: .*linear_width"),
        ([NUMBER | {"linear_width": float("inf")}], OUTPUT, "signature.inputs.0: .*linear_width"),
        ([NUMBER | {"offset": float("nan")}], OUTPUT, "signature.inputs.0: .*offset"),
        ([NUMBER | {"offset": 10**400}], OUTPUT, "signature.inputs.0: .*offset"),
        ([NUMBER | {"more": 1}], OUTPUT, "signature.inputs.0: .*more"),
        ([{"kind": "number"}], OUTPUT, "signature.inputs.0: .*name"),
        ([CATEGORY | {"categories": []}], OUTPUT, "signature.inputs.0: .*categories"),
        ([CATEGORY | {"categories": ["x", "x"]}], OUTPUT, "unique categories"),
        ([CATEGORY | {"fill": "y"}], OUTPUT, "signature.inputs.0.fill"),
        ([CATEGORY | {"unknown": "guess"}], OUTPUT, "signature.inputs.0: .*unknown"),
        ([ARRAY | {"statistics": {}, "shape": [0]}], OUTPUT, "signature.inputs.0: .*shape"),
        ([NUMBER, ARRAY | {"statistics": {}}], OUTPUT, "an array to be the only input"),
        ([NUMBER], {"kind": "classes", "name": "y", "labels": ["a"]}, "signature.output: .*labels"),
        ([NUMBER], {"kind": "classes", "name": "y", "labels": ["1", 1]}, "unique labels"),
        ([NUMBER], {"kind": "classes", "name": "y", "labels": ["1", 1.5]}, "signature.output: .*labels"),
        ([NUMBER], OUTPUT | {"scale": [1, 2]}, "as many offsets and scales as names"),
        ([NUMBER], None, "signature.output.kind"),
    ],
)
def test_an_invalid_signature_is_rejected_with_its_location(inputs: object, output: object, location: str) -> None:
    with pytest.raises(ValueError, match=location):
        read_signature({"inputs": inputs, "output": output})
    with pytest.raises(ValueError, match="an object with inputs and output"):
        read_signature({"inputs": inputs, "output": output, "more": 1})


def test_two_targets_of_one_name_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"signature\.output\.names: expected unique names, found y, y"):
        RegressionOutput(("y", "y"), (0.0, 0.0), (1.0, 1.0))


def test_a_category_as_a_code_is_its_index_for_an_embedding() -> None:
    column = CategoryColumn(
        "town", ("Bath", "Hull"), "bucket", "Hull", {"frequencies": {"Bath": 3, "Hull": 1}}, encoding="code"
    )
    signature = Signature((NumberColumn("age"), column), RegressionOutput(("y",), (0.0,), (1.0,)))
    assert signature.width == 2
    assert signature.encode([[1, "Bath"], [2, "Rome"], [3, None]]).tolist() == [[1, 0], [2, 2], [3, 1]]
    assert read_signature(json.loads(json.dumps(signature.config()))) == signature
    bins = column.bins(np.float32)
    assert bins is not None
    assert bins.expected.tolist() == [3, 1, 0]


def test_columns_without_new_attributes_are_written_as_before() -> None:
    plain = Signature((NumberColumn("age"), CategoryColumn("town", ("a",))), RegressionOutput(("y",), (0.0,), (1.0,)))
    assert [part.keys() for part in plain.config()["inputs"]] == [
        {"kind", "name", "offset", "scale", "fill", "statistics"},
        {"kind", "name", "categories", "unknown", "fill", "statistics"},
    ]


def test_objects_of_numbers_are_encoded_as_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """48 rows of 10,000 columns by name, in V1's columns or CSV, took 0.4 s: each column was encoded by itself."""
    columns = tuple(NumberColumn(f"c{i}", offset=i / 7, scale=1 + i / 3, fill=0.0) for i in range(20))
    signature = Signature(columns, RegressionOutput(("y",), (0.0,), (1.0,)))
    rows = [[i * j / 3 for j in range(20)] for i in range(5)]
    named = [dict(reversed(list(zip(signature.names, row, strict=True)))) for row in rows]
    expected = np.concatenate(
        [column.encode(np.array([row[i] for row in rows]), range(5), None) for i, column in enumerate(columns)], axis=1
    )  # type: ignore[arg-type]
    parsed: list[str] = []
    parse = NumberColumn.parse
    monkeypatch.setattr(NumberColumn, "parse", lambda self, *of: parsed.append(self.name) or parse(self, *of))
    np.testing.assert_array_equal(signature.encode(named, dtype=np.float64), expected)
    assert not parsed
    for other in ("1", True, 10**400):
        with pytest.raises(InputError) as e:
            signature.encode([named[0] | {"c0": other}, *named])
        assert [fault.location for fault in e.value.faults] == ["instances.0.c0"]
    assert parsed == list(signature.names) * 3
    with pytest.raises(InputError, match="unknown column"):
        signature.encode([{f"x{i}": 1 for i in range(20)}])


def test_the_first_overflows_of_a_wide_array_are_found_in_pieces() -> None:
    """An array of 8 million features that overflow took 519 MB: an index of each, of which 10,000 are kept."""
    column = ArrayColumn("pixels", (3, 100_000), scale=1e-300)
    signature = Signature((column,), ClassificationOutput("digit", (0, 1)))
    with pytest.raises(InputError) as caught:
        signature.encode([np.full((3, 100_000), 7.0).tolist()], dtype="float32")
    assert caught.value.total == InputError.MAX_COUNTED
    assert caught.value.faults[0].location == "instances.0.pixels"


def test_rows_of_unknown_keys_encode_no_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """104 of them took 0.3 s of a model of 10,000 optional columns, for 1 kB."""
    columns = tuple(NumberColumn(f"c{i}", fill=0.0) for i in range(50))
    signature = Signature(columns, RegressionOutput(("y",), (0.0,), (1.0,)))
    encoded: list[str] = []
    encode = NumberColumn.encode

    def counted(self: NumberColumn, *arguments: Any) -> Any:
        encoded.append(self.name)
        return encode(self, *arguments)

    monkeypatch.setattr(NumberColumn, "encode", counted)
    with pytest.raises(InputError) as caught:
        signature.encode([{"zz": 1}] * 3 + [{"c7": "x", "c8": 1}])
    assert [fault.location for fault in caught.value.faults] == [
        "instances.0.zz", "instances.1.zz", "instances.2.zz", "instances.3.c7",
    ]  # fmt: skip
    assert set(encoded) <= {"c7", "c8"}
