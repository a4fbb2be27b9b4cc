"""The row parser: rows of files and command lines equal those that clients send."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.errors import InputError
from model_store.schema import row_parser
from model_store.schema.columns import Column, DateColumn
from model_store.schema.columns.base import FaultCollector, RowLocations
from model_store.schema.columns.date_text import DateFormat
from model_store.schema.columns.number_text import NumberFormat
from model_store.schema.row_parser import Header, RowTable, read_csv_records
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


def parse(text: str | bytes, signature: Signature = TOWNS, header: Header | None = None, **options: Any) -> list[Any]:
    data = text if isinstance(text, bytes) else text.encode()
    return row_parser.open_csv(data, "x.csv", signature, header, **options).read().rows


@pytest.mark.parametrize("header", ["", "age,town\n"])
def test_rows_are_counted_ahead_and_then_read(header: str) -> None:
    table = row_parser.open_csv((header + "1,Bath\n" * 10).encode(), "x.csv", TOWNS)
    assert table.has_more_than(9)
    assert not table.has_more_than(10)
    batch = table.read()
    assert len(batch.rows) == 10
    assert batch.lines == list(range(1 + bool(header), 11 + bool(header)))
    assert not table.has_more_than(0)


def test_csv_cells_are_numbers_in_number_columns() -> None:
    text = b"\xef\xbb\xbftown, age\n7, 30\n\n Bath ,1e3\n"
    assert parse(text) == [{"town": "7", "age": 30.0}, {"town": "Bath", "age": 1000.0}]


def test_missing_cells_are_the_same_as_in_training() -> None:
    assert parse("age,town\n,NA\n") == [{"age": None, "town": None}]


def test_targets_in_a_file_are_left_out_and_other_columns_are_an_error() -> None:
    assert parse("age,town,chess\n1,Bath,yes\n") == [{"age": 1.0, "town": "Bath"}]
    with pytest.raises(InputError, match=r"^x\.csv line 1, column shoe: unknown column \(remove it; the columns are"):
        parse("age,town,chess,shoe\n1,Bath,yes,43\n")


def test_columns_can_be_ignored() -> None:
    table = row_parser.open_csv(b"shoe,age,town,chess\n43,1,Bath,yes\n", "x", TOWNS, ignore_unknown=True)
    found, ignored = table.read(), table.ignored
    assert (found.rows, ignored) == ([{"age": 1.0, "town": "Bath"}], ["shoe"])


def test_a_table_is_read_in_batches_with_lines_and_cells() -> None:
    text = io.StringIO('shoe,age,town\n43,1,Bath\n\n"4\n4",2, 7\n45,3,7\n', newline="")
    table = RowTable(read_csv_records(text, "x.csv"), "x.csv", TOWNS, ignore_unknown=True)
    first, second, end = table.read(2), table.read(2), table.read(2)
    assert first.rows == [{"age": 1.0, "town": "Bath"}, {"age": 2.0, "town": "7"}]
    assert (first.lines, second.lines, end.rows) == ([2, 4], [6], [])
    assert first.cells[1] == ["4\n4", "2", " 7"]
    assert (table.names, table.ignored) == (["shoe", "age", "town"], ["shoe"])


# The header ----------------------------------------------------------------------------------------------------------

DIGITS = Signature(tuple(NumberColumn(name) for name in "012"), RegressionOutput(("y",), (0.0,), (1.0,)))
COLORS = Signature(
    (CategoryColumn("color", ("red", "blue"), "bucket"), CategoryColumn("size", ("S", "M"), "bucket")),
    RegressionOutput(("y",), (0.0,), (1.0,)),
)
OPTIONAL = Signature((NumberColumn("age"), NumberColumn("mass", fill=3.0)), RegressionOutput(("y",), (0.0,), (1.0,)))


@pytest.mark.parametrize("text", ["0,1,2\n5,6,7\n", "2,0,1\n5,6,7\n", "2,0,1\n"])
def test_a_line_that_can_be_a_header_or_a_row_must_be_declared(text: str) -> None:
    with pytest.raises(InputError, match=r"^x\.csv line 1: expected a header or a row, found a line that can be both"):
        parse(text, DIGITS)
    first, *others = text.splitlines()
    rows = [list(map(float, line.split(","))) for line in others]
    names = first.split(",")
    assert parse(text, DIGITS, "present") == [dict(zip(names, row, strict=True)) for row in rows]
    assert parse(text, DIGITS, "absent")[0] == dict(zip("012", map(float, names), strict=True))
    assert len(parse(text, DIGITS, "absent")) == len(rows) + 1


def test_numbers_that_are_no_names_are_a_row() -> None:
    assert parse("0,1,5\n", DIGITS) == [{"0": 0.0, "1": 1.0, "2": 5.0}]


@pytest.mark.parametrize("text", ["colr,size\nred,S\n", "color\nred\n", "color,grandeur,y\nred,S,1\n"])
def test_a_line_with_some_of_the_names_is_neither_a_header_nor_a_row(text: str) -> None:
    with pytest.raises(InputError, match=r"^x\.csv line 1: expected a header with color, size; found no ") as caught:
        parse(text, COLORS)
    assert "declare it" in caught.value.faults[0].fix
    assert "did you mean" in caught.value.faults[0].fix or "colr" not in text


def test_a_header_names_every_required_column() -> None:
    headers: list[Header | None] = [None, "present"]
    assert parse("age\n7\n", OPTIONAL) == [{"age": 7.0}]
    for header in headers:
        with pytest.raises(InputError, match=r"line 1: expected a header with .*age.*; found no age"):
            parse("mass\n7\n", OPTIONAL, header)
    with pytest.raises(InputError, match=r"found no mass, but maas \(did you mean 'mass'\?\)"):
        parse("age,maas\n7,8\n", OPTIONAL, ignore_unknown=True)  # it would be filled in
    assert parse("id,age\n7,8\n", OPTIONAL, ignore_unknown=True) == [{"age": 8.0}]


def test_an_invalid_first_row_is_an_error_and_not_a_header() -> None:
    rows = parse("x,1,2\n5,6,7\n", DIGITS, "absent")
    assert len(rows) == 2
    with pytest.raises(InputError, match=r"rows\.0\.0: expected a number, found 'x'"):
        DIGITS.encode(rows, "rows")
    rows = parse("oops,2,3,4\n1,2,3,4\n", IMAGES)
    assert len(rows) == 2
    with pytest.raises(InputError, match=r"rows\.0"):
        IMAGES.encode(rows, "rows")


def test_images_have_a_header_only_if_it_is_declared() -> None:
    expected = [[1.0, 2.0, 3.0, 4.0]]
    assert parse("1,2,3,4\n", IMAGES) == parse("1,2,3,4\n", IMAGES, "absent") == expected
    assert parse("a,b,c,d\n1,2,3,4\n", IMAGES, "present") == expected


NAMES = st.lists(
    st.text('ab01,\n" é', min_size=1, max_size=4).map(str.strip).filter(bool), min_size=1, max_size=5, unique=True
)


@given(names=NAMES, rows=st.lists(st.lists(st.integers(-9, 9), min_size=5, max_size=5), max_size=6), data=st.data())
def test_no_line_is_lost_and_no_column_is_permuted(
    names: list[str], rows: list[list[int]], data: st.DataObject
) -> None:
    """With any names in any order the rows are right, or the table is refused because its first line is not certain."""
    signature = Signature(tuple(map(NumberColumn, names)), RegressionOutput(("target",), (0.0,), (1.0,)))
    rows = [row[: len(names)] for row in rows]
    order = data.draw(st.permutations(range(len(names))))
    with_header, bare = io.StringIO(newline=""), io.StringIO(newline="")
    csv.writer(with_header).writerows([[names[i] for i in order], *([row[i] for i in order] for row in rows)])
    csv.writer(bare).writerows(rows)
    expected = [dict(zip(names, row, strict=True)) for row in rows]
    assert parse(with_header.getvalue(), signature, "present") == expected
    if rows:
        assert parse(bare.getvalue(), signature, "absent") == expected
    for text in (with_header.getvalue(), bare.getvalue()):
        try:
            found = parse(text, signature)
        except InputError:
            continue
        assert found == expected


# Lines ---------------------------------------------------------------------------------------------------------------


def test_errors_of_rows_name_the_line_and_the_column() -> None:
    batch = row_parser.open_csv(b'town,age\n"Bath",3\n\nYork,old\n', "x.csv", TOWNS).read()
    with pytest.raises(InputError) as caught:
        TOWNS.encode(batch.rows, "rows")
    assert [fault.location for fault in batch.with_lines(caught.value, "x.csv").faults] == [
        "x.csv line 4, column age", "x.csv line 4, column town"
    ]  # fmt: skip
    assert batch.with_lines(caught.value).faults[0].location == "line 4, column age"


def test_an_empty_line_among_single_values_is_not_dropped() -> None:
    one = Signature((NumberColumn("age", fill=3.0),), RegressionOutput(("y",), (0.0,), (1.0,)))
    assert parse('age\n1\n""\n2\n\n', one) == [{"age": 1.0}, {"age": None}, {"age": 2.0}]
    with pytest.raises(InputError, match=r"x\.csv line 3: expected a value, found an empty line"):
        parse("age\n1\n\n2\n", one)


@pytest.mark.parametrize("cell", ["1_000", "\u0661\u0662", "inf", "0x10"])
def test_numbers_are_parsed_as_in_training(cell: str) -> None:
    with pytest.raises(DataError, match="expected a finite number"):
        parse_numbers(Table("x.csv", {"age": [cell]}, [2]), "age")
    with pytest.raises(InputError, match=r"instances\.0\.age: expected a number, found .* \(send a number\)"):
        TOWNS.encode(parse(f"age,town\n{cell},Bath\n"))


@pytest.mark.parametrize("name", ["x.json", "standard input"])
def test_json_rows_are_unchanged(name: str) -> None:
    for text in ('[[1, "Bath"]]', ' {"instances": [[1, "Bath"]]}'):
        assert row_parser.is_json(text, name)
        assert row_parser.parse_json_table(text, name) == [[1, "Bath"]]
    assert not row_parser.is_json("[1],2", "x.csv")


def test_command_line_rows_are_json() -> None:
    assert row_parser.parse_json_rows(['{"age": 1}', '[1, "Bath"]']) == [{"age": 1}, [1, "Bath"]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[1,", "x.json: expected JSON"),
        (b"[" * 200_000, "x.json: expected JSON, found it nested too deep"),
        (b'{"age": 1}', "x.json: expected a list of rows, found dict"),
        (b"\xff", "x.json: expected UTF-8, found byte 0xff at 0"),
    ],
)
def test_json_without_rows_is_rejected(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        row_parser.parse_json_table(row_parser.decode_utf8(data, "x.json"), "x.json")
    assert all(fault.fix for fault in caught.value.faults)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x.csv: expected CSV, found nothing"),
        (b"\n\n", "x.csv: expected CSV, found nothing"),
        (b"age,town\n1\n1,2,3\n", "x.csv line 2: expected 2 cells, found 1.*x.csv line 3: expected 2 cells, found 3"),
        (b"age,age,town\n1,1,2\n", "x.csv line 1: expected 'age' once"),
        (b'age,town\n"1,2\n', "x.csv line 2: expected CSV"),
        (b"age,town\n1,\xff\n", "expected UTF-8"),
    ],
)
def test_a_table_without_rows_is_rejected(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse(data)
    assert all(fault.fix for fault in caught.value.faults)
    lines = io.TextIOWrapper(io.BytesIO(data), "utf-8", newline="")
    with pytest.raises(InputError, match=message):
        RowTable(read_csv_records(lines, "x.csv"), "x.csv", TOWNS).read(100)


def test_a_command_line_row_that_is_not_json_is_rejected() -> None:
    with pytest.raises(InputError, match="row 1: expected JSON"):
        row_parser.parse_json_rows(["[1]", "{age: 1}"])


def test_exact_integral_floats_become_integers() -> None:
    assert list(map(str, integral_floats_to_ints([195.0, -3.0, 0.5, None, "7", 1e300]))) == [
        "195", "-3", "0.5", "None", "7", "1e+300"
    ]  # fmt: skip


class Cell(str):
    """A cell of a header that counts how often it is compared or hashed."""

    looks = 0

    def __eq__(self, other: object) -> bool:
        Cell.looks += 1
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        Cell.looks += 1
        return str.__hash__(self)

    def strip(self, chars: str | None = None) -> str:
        del chars
        return self


WIDE = Signature(
    tuple(NumberColumn(f"c{i}", fill=0.0 if i % 2 else None) for i in range(300)),
    RegressionOutput(("y",), (0.0,), (1.0,)),
)


@pytest.mark.parametrize("first", ["c0", "other"])
@pytest.mark.parametrize("declared", [None, "present"])
@pytest.mark.parametrize("ignore_unknown", [False, True])
def test_the_cost_of_a_header_grows_with_its_length_alone(
    monkeypatch: pytest.MonkeyPatch, first: str, declared: Header | None, ignore_unknown: bool
) -> None:
    """A request of 1 kB, compressed, has room for a header of 500,000 names; it ended a worker."""
    searched: list[str] = []
    monkeypatch.setattr(row_parser, "nearest_name", lambda name, _: searched.append(name))
    monkeypatch.setattr(row_parser, "did_you_mean", lambda name, _: searched.append(name) or "")
    for names in (["x"] * 20_000, [f"x{i}" for i in range(20_000)]):
        cells = list(map(Cell, [first, *names]))
        Cell.looks = 0
        with pytest.raises((InputError, AttributeError)):
            RowTable(iter([(1, cells)]), "", WIDE, declared, ignore_unknown=ignore_unknown).read()
        assert Cell.looks < 10 * len(cells)
        assert len(searched) <= 400
        searched.clear()


def test_the_faults_of_a_header_are_counted_and_the_first_are_listed() -> None:
    with pytest.raises(InputError) as e:
        parse("age,town," + ",".join(f"x{i}" for i in range(1000)) + ",x1,x2\n")
    assert len(e.value.faults) == InputError.MAX_FAULTS
    assert e.value.total == 1004


@pytest.mark.parametrize("column", [DateColumn("x"), NumberColumn("x", format=NumberFormat(group=","))], ids=str)
def test_a_text_that_a_request_repeats_is_parsed_once(column: Column, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 kB of gzip held a million dates, each of which took 4 to 14 µs."""
    kind, parsed = type(column.format), []  # type: ignore[attr-defined]
    of_text = kind.parse
    monkeypatch.setattr(kind, "parse", lambda self, text: parsed.append(text) or of_text(self, text))
    texts = ["2,021" if isinstance(column, NumberColumn) else "2021-03-04", "", "long" * 30] * 1000
    signature = Signature((column,), RegressionOutput(("y",), (0.0,), (1.0,)))
    column.parse(texts, RowLocations("rows", range(3000)), FaultCollector())
    column.from_tensor(np.array(texts, object), "BYTES", "x", FaultCollector())
    parse("".join(f'"{text}"\n' for text in texts), signature, "absent")
    assert 1 <= len([text for text in parsed if len(text) < 20]) < 20


@pytest.mark.parametrize("column", [DateColumn, NumberColumn])
def test_columns_of_a_request_share_parsed_texts(column: type[Column], monkeypatch: pytest.MonkeyPatch) -> None:
    """In 71 kB of gzip each of 420 dates stood in a thousand columns, and each was parsed a thousand times: 4.8 s."""
    kind = DateFormat if column is DateColumn else NumberFormat
    parsed, of_text = [], kind.parse
    monkeypatch.setattr(kind, "parse", lambda self, text: parsed.append(text) or of_text(self, text))
    texts = [f"{2000 + i}-03-04" if column is DateColumn else f"€{i}" for i in range(30)]
    written: Any = {"format": DateFormat() if column is DateColumn else NumberFormat(unit="€")}
    inputs = tuple(column(f"c{i}", **written) for i in range(20))  # type: ignore[call-arg]
    signature = Signature(inputs, RegressionOutput(("y",), (0.0,), (1.0,)))
    encoded = signature.encode([[text] * 20 for text in texts])
    assert len(parsed) == 30
    parsed.clear()
    faults = FaultCollector()
    for each in signature.inputs:
        each.from_tensor(np.array(texts, object), "BYTES", "x", faults)
    assert len(parsed) <= 60  # a cell and its value
    parsed.clear()
    rows = parse("".join(",".join([text] * 20) + "\n" for text in texts), signature, "absent")
    assert len(parsed) <= 30
    np.testing.assert_array_equal(signature.encode(rows), encoded)


@pytest.mark.parametrize("column", [DateColumn("x"), NumberColumn("x", format=NumberFormat(group=","))], ids=str)
def test_the_distinct_texts_of_a_tensor_are_parsed_once_each(column: Column, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, parsed = type(column.format), []  # type: ignore[attr-defined]
    of_text = kind.parse
    monkeypatch.setattr(kind, "parse", lambda self, text: parsed.append(text) or of_text(self, text))
    texts = [f"{i:,}" if isinstance(column, NumberColumn) else f"{i}-03-04" for i in range(1000, 1500)]
    column.from_tensor(np.array(texts, object), "BYTES", "x", FaultCollector())
    assert parsed == texts
