"""Tables as training reads them: their cells, line numbers and faults, in memory and streamed."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store.schema.columns.base import MISSING_CELLS
from training.config.settings import DataSection
from training.data.readers import Table
from training.data.tables import open_job_table, read_table
from training.errors import DataError

CELLS = st.text(st.characters(codec="utf-8"), max_size=8)


def table(folder: Path, content: str | bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, **options: str) -> Table:
    return read_table(open_job_table(path, DataSection(path=path.name, **options)))


def message(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    return str(caught.value)


@given(rows=st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_table_that_the_csv_module_writes_is_read_back(tmp_path: Path, rows: list[list[str]]) -> None:
    header = [f"c{i}" for i in range(len(rows[0]))]
    path = tmp_path / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    found = read(path)
    expected = [[None if cell.strip().lower() in MISSING_CELLS else cell.strip() for cell in row] for row in rows]
    assert [list(row) for row in zip(*found.columns.values(), strict=True)] == expected


def test_a_byte_order_mark_is_not_part_of_the_header(tmp_path: Path) -> None:
    assert list(read(table(tmp_path, b"\xef\xbb\xbfa,b\n1,2\n")).columns) == ["a", "b"]


def test_a_reader_that_is_done_does_not_lower_the_limit_of_another(tmp_path: Path) -> None:
    """The csv module's limit is global to the process, and several threads read at the same time."""
    path = table(tmp_path, f"a\n{'x' * 200_000}\n")
    first, second = (open_job_table(path, DataSection(path=path.name)).blocks() for _ in range(2))
    first.close()
    assert len(next(second).columns["a"][0] or "") == 200_000


def test_line_numbers_count_quoted_newlines_and_empty_lines(tmp_path: Path) -> None:
    assert read(table(tmp_path, 'a,b\n1,"x\ny"\n\n2,z\r\n3,w\n')).lines == [2, 5, 6]


@pytest.mark.parametrize("cell", ["", " ", "NA", "NaN", "nan", "null", "NULL", "?", "n/a"])
def test_all_spellings_of_missing_are_recognized(tmp_path: Path, cell: str) -> None:
    assert read(table(tmp_path, f"a,b\n{cell},1\n")).columns["a"] == [None]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "the file is empty"),
        ("a,b\n", "a header and no rows"),
        ("a,b\n1,2\n1,2,3\n4,5\n6\n", "line 3: expected 2 cells, as in the header, found 3"),
        ("a,b\n1,2\n1,2,3\n4,5\n6\n", "or write long_rows = 'drop' in [data] to leave such rows out"),
        (",,\n1,2,3\n", "line 1: no column has a name (add a header)"),
        (b"PK\x03\x04a,b\n", "expected text, found a ZIP archive"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], "cannot be read: Compressed file ended"),
        ('a,b\n1,2\n3,"4\n', "line 3: not CSV"),
        (b"a,b\n1,2\n3,caf\xe9\n", "line 3: expected text in UTF-8, found the byte 0xe9"),
    ],
)
def test_an_unreadable_table_is_reported_with_location_and_reason(
    tmp_path: Path, content: str | bytes, expected: str
) -> None:
    assert expected in message(table(tmp_path, content))


def test_the_first_rows_with_too_many_cells_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    text = message(table(tmp_path, "a,b\n" + "1,2,3\n" * 50))
    assert "50 faults" in text
    assert "and 30 more" in text


def test_the_cells_that_a_short_row_lacks_are_missing(tmp_path: Path) -> None:
    found = read(table(tmp_path, "a,b,c\n1,2,3\n4\n5,6\n7,8,9\n"))
    assert found.columns == {"a": ["1", "4", "5", "7"], "b": ["2", None, "6", "8"], "c": ["3", None, None, "9"]}
    note = "2 rows have fewer cells than the header, and the cells at their end count as missing: lines 3, 4"
    assert found.notes == [note]


def test_long_rows_are_left_out_if_the_job_says_so(tmp_path: Path) -> None:
    path = table(tmp_path, "a,b\n1,2\n3,4,5\n6,7\n8,9,,\n" + "1,2,3\n" * 6)
    found = read_table(open_job_table(path, DataSection(path=path.name, long_rows="drop")))
    assert found.lines == [2, 4, 5]
    assert found.columns["b"] == ["2", "7", "9"]
    assert found.notes == ["left out 7 rows with more cells than the header: lines 3, 6, 7, 8, 9 and 2 more"]


def test_rows_that_lack_most_cells_of_a_wide_header_are_rejected(tmp_path: Path) -> None:
    header = ",".join(f"c{i}" for i in range(5000))
    assert "found few in most" in message(table(tmp_path, f"{header}\n" + "1\n" * 1000))


def test_a_missing_file_is_a_data_error_that_suggests_similar_names(tmp_path: Path) -> None:
    table(tmp_path, "a\n1\n")
    assert "did you mean 'table.csv'" in message(tmp_path / "tabel.csv")
    assert "no such directory" in message(tmp_path / "nowhere" / "table.csv")
    assert "cannot be read" in message(tmp_path)


def rows_of(folder: Path, lines: str) -> Table:
    path = folder / "t.jsonl"
    path.write_text(lines)
    return read(path)


def test_objects_in_json_lines_are_columns_with_dotted_names(tmp_path: Path) -> None:
    lines = (
        '{"u": {"age": 3, "t": {"x": true}}, "a.b": 1, "a": 5}\n{"u": null, "a.b": 2}\n{"u": {"age": 4, "l": [1]}}\n'
    )
    found = rows_of(tmp_path, lines)
    assert found.columns == {
        "u.age": ["3", None, "4"], "u.t.x": ["true", None, None], "a.b": ["1", "2", None], "a": ["5", None, None],
    }  # fmt: skip
    assert found.unsupported == ["u.l"]
    with pytest.raises(DataError, match=r"line 2: two values are named 'a\.b'"):
        rows_of(tmp_path, '{"a": {"b": 1}}\n{"a": {"b": 1}, "a.b": 2}\n')
    deep = '{"a": ' * 20 + "1" + "}" * 20
    assert rows_of(tmp_path, f'{{"x": 1, "d": {deep}}}\n').columns == {"x": ["1"]}
