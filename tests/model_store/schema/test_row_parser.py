"""The row parser: rows of files and command lines equal those that clients send."""

from __future__ import annotations

import io

import pytest

import training.data.readers
from model_store.errors import InputError
from model_store.schema import row_parser
from model_store.schema.column import MISSING_CELLS
from model_store.schema.signature import (
    ArrayColumn,
    CategoryColumn,
    ClassificationOutput,
    NumberColumn,
    RegressionOutput,
    Signature,
)
from model_store.utils.values import integral_floats_to_ints
from training.data.readers import Table
from training.data.type_inference import parse_numbers
from training.errors import DataError

TOWNS = Signature(
    (NumberColumn("age"), CategoryColumn("town", ("Bath", "7"))), ClassificationOutput("chess", ("no", "yes"))
)
IMAGES = Signature((ArrayColumn("image", (2, 2), 0.0, 16.0, 0.0, 16.0, {}),), RegressionOutput(("y",), (0.0,), (1.0,)))


def test_little_more_than_max_rows_is_read_of_a_longer_table() -> None:
    for header in (b"", b"age,town\n"):
        assert len(row_parser.parse_rows(header + b"1,Bath\n" * 10, "x.csv", TOWNS, max_rows=10)) == 10
        assert 10 < len(row_parser.parse_rows(header + b"1,Bath\n" * 1000, "x.csv", TOWNS, max_rows=10)) <= 12


def test_csv_cells_are_numbers_in_number_columns() -> None:
    text = b"\xef\xbb\xbftown, age\n7, 30\n\n Bath ,1e3\n"
    assert row_parser.parse_rows(text, "x.csv", TOWNS) == [{"town": "7", "age": 30.0}, {"town": "Bath", "age": 1000.0}]


def test_missing_cells_are_the_same_as_in_training() -> None:
    assert row_parser.parse_rows(b"age,town\n,NA\n", "x.csv", TOWNS) == [{"age": None, "town": None}]
    assert MISSING_CELLS == training.data.readers.MISSING_CELLS


def test_targets_in_a_file_are_left_out_and_other_columns_are_not() -> None:
    found = row_parser.parse_rows(b"age,town,chess,shoe\n1,Bath,yes,43\n", "x.csv", TOWNS)
    assert found == [{"age": 1.0, "town": "Bath", "shoe": "43"}]
    with pytest.raises(InputError, match=r"instances\.0\.shoe"):
        TOWNS.encode(found)


def test_ignored_columns_are_left_out_and_returned_on_request() -> None:
    others: list[str] = []
    found = row_parser.parse_rows(b"shoe,age,town,chess\n43,1,Bath,yes\n", "x.csv", TOWNS, others)
    assert (found, others) == ([{"age": 1.0, "town": "Bath"}], ["shoe"])

    ignored: list[str] = []
    batches = list(
        row_parser.iter_csv_batches(io.BytesIO(b"shoe,age,town\n43,1,Bath\n44,2,7\n"), "x.csv", TOWNS, 2, ignored)
    )
    assert (batches, ignored) == ([[{"age": 1.0, "town": "Bath"}], [{"age": 2.0, "town": "7"}]], ["shoe"])


def test_a_missing_input_is_an_error_if_other_columns_would_be_ignored() -> None:
    expected = r"^x\.csv header: expected age, town; found no town, but twon, shoe \(did you mean 'town'\?\)$"
    with pytest.raises(InputError, match=expected):
        row_parser.parse_rows(b"age,twon,shoe\n1,Bath,43\n", "x.csv", TOWNS, [])


def test_text_in_a_number_column_is_rejected_by_the_signature() -> None:
    with pytest.raises(InputError, match=r"instances\.0\.age: expected a number, found 'old'"):
        TOWNS.encode(row_parser.parse_rows(b"age,town\nold,Bath\n", "x.csv", TOWNS))


@pytest.mark.parametrize("cell", ["1_000", "\u0661\u0662", "inf", "0x10"])
def test_numbers_are_parsed_as_in_training(cell: str) -> None:
    with pytest.raises(DataError, match="expected a finite number"):
        parse_numbers(Table("x.csv", {"age": [cell]}, [2]), "age")
    with pytest.raises(InputError, match=r"instances\.0\.age: expected a number, found .* \(send a number\)"):
        TOWNS.encode(row_parser.parse_rows(f"age,town\n{cell},Bath\n".encode(), "x.csv", TOWNS))


def test_images_are_rows_of_numbers_with_or_without_a_header() -> None:
    expected = [[1.0, 2.0, 3.0, 4.0]]
    assert row_parser.parse_rows(b"1,2,3,4\n", "x.csv", IMAGES) == expected
    assert row_parser.parse_rows(b"a,b,c,d\n1,2,3,4\n", "x.csv", IMAGES) == expected


@pytest.mark.parametrize("name", ["x.json", "standard input"])
def test_json_rows_are_unchanged(name: str) -> None:
    for text in (b'[[1, "Bath"]]', b' {"instances": [[1, "Bath"]]}'):
        assert row_parser.parse_rows(text, name, TOWNS) == [[1, "Bath"]]


def test_command_line_rows_are_json() -> None:
    assert row_parser.parse_json_rows(['{"age": 1}', '[1, "Bath"]']) == [{"age": 1}, [1, "Bath"]]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.json", b"[1,", "x.json: expected JSON"),
        ("x.json", b"[" * 200_000, "x.json: expected JSON, found it nested too deep"),
        ("x.json", b'{"age": 1}', "x.json: expected a list of rows, found dict"),
        ("x.json", b"\xff", "x.json: expected UTF-8, found byte 0xff at 0"),
        ("x.csv", b"", "x.csv: expected a header and rows"),
        (
            "x.csv",
            b"age,town\n1\n1,2,3\n",
            "x.csv row 0: expected 2 cells, found 1.*x.csv row 1: expected 2 cells, found 3",
        ),
        ("x.csv", b"age,age\n1,1\n", "x.csv header: expected unique names"),
        ("x.csv", b'age,town\n"1,2\n', "x.csv: expected CSV"),
    ],
)
def test_a_file_without_rows_is_rejected(name: str, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        row_parser.parse_rows(data, name, TOWNS)
    if name.endswith(".csv"):
        with pytest.raises(InputError, match=message):
            list(row_parser.iter_csv_batches(io.BytesIO(data), name, TOWNS, 100, []))


def test_a_command_line_row_that_is_not_json_is_rejected() -> None:
    with pytest.raises(InputError, match="row 1: expected JSON"):
        row_parser.parse_json_rows(["[1]", "{age: 1}"])


def test_exact_integral_floats_become_integers() -> None:
    assert list(map(str, integral_floats_to_ints([195.0, -3.0, 0.5, None, "7", 1e300]))) == [
        "195", "-3", "0.5", "None", "7", "1e+300"
    ]  # fmt: skip
