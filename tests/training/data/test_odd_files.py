"""Files as R, pandas, Excel and databases write them: each is read in memory and streamed, with the same cells."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.config.settings import DataSection
from training.data import loading
from training.data.streaming.source import DictionaryColumn
from training.data.streaming.table_reader import TextSource, open_source, parse_numbers
from training.data.tables import open_job_table, read_table
from training.errors import DataError

ROWS = [("1.5", "red", "a"), ("-2.25", "blue, pale", "b"), ("", "NA", "a"), ("1234.5", 'say "hi"', "b")]
EXPECTED = {"x": ["1.5", "-2.25", None, "1234.5"], "colour": ["red", "blue, pale", None, 'say "hi"'], "y": [*"abab"]}
HEADER = ("x", "colour", "y")


def quoted(cell: str, always: bool = False) -> str:
    special = always or any(sign in cell for sign in ',;\t|"\n ')
    return '"{}"'.format(cell.replace('"', '""')) if special else cell


def write(
    separator: str = ",",
    end: str = "\n",
    *,
    always: bool = False,
    trailing: bool = False,
    row_names: str = "",
    decimal: str = ".",
    space: str = "",
    before: str = "",
    between: str = "",
) -> str:
    """Return the table in one of many dialects. `row_names` is how the header names the column of row numbers."""
    lines = []
    for number, row in enumerate([HEADER, *ROWS]):
        cells = [quoted(cell, always) for cell in row]
        if number and decimal != ".":
            cells[0] = quoted(row[0].replace(".", decimal), always or separator == decimal)
        if row_names and (number or row_names != "none"):
            cells.insert(0, str(number) if number else row_names.removeprefix("blank"))
        lines.append(f"{separator}{space}".join(cells) + (separator if trailing else ""))
    return before + (end + between).join(lines) + end


DIALECTS: dict[str, Callable[[str, str], str]] = {
    "plain": write,
    "quoted": lambda sign, end: write(sign, end, always=True),
    "trailing": lambda sign, end: write(sign, end, trailing=True),
    "row numbers": lambda sign, end: write(sign, end, row_names="blank"),
    "R write.table": lambda sign, end: write(sign, end, always=True, row_names="none"),
    "spaces before quotes": lambda sign, end: write(sign, end, space=" "),
    "blank lines": lambda sign, end: write(sign, end, before=end * 2, between=f"   {end}"),
    "sep line": lambda sign, end: write(sign, end, before=f"sep={sign}{end}"),
    "no last line end": lambda sign, end: write(sign, end).removesuffix(end),
    "decimal commas": lambda sign, end: write(sign, end, decimal=","),
}
ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "UTF-8": lambda text: text.encode(),
    "BOM": lambda text: text.encode("utf-8-sig"),
    "two BOMs": lambda text: ("\ufeff" + text).encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 BE": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "gzip": lambda text: gzip.compress(text.encode()),
    "bz2": lambda text: bz2.compress(text.encode()),
    "xz": lambda text: lzma.compress(text.encode()),
}


def odd_files() -> dict[str, tuple[str, bytes]]:
    """Return the name and the bytes of a file for each combination of separator, dialect, line end and encoding."""
    found = {}
    for sign, called in ((",", "comma"), (";", "semicolon"), ("\t", "tab"), ("|", "bar")):
        for dialect, render in DIALECTS.items():
            if sign == "," and dialect == "decimal commas":
                continue  # commas cannot be both; see the option `decimal`
            for i, (encoding, encode) in enumerate(ENCODINGS.items()):
                end = ("\n", "\r\n", "\r")[(i + len(found)) % 3]
                suffix = {"gzip": ".csv.gz", "bz2": ".csv.bz2", "xz": ".csv.xz", "UTF-16": ".txt"}.get(encoding, ".csv")
                if called == "tab" and suffix == ".csv":
                    suffix = ".tsv"
                found[f"{called}, {dialect}, {encoding}, {end!r}"] = (suffix, encode(render(sign, end)))
    return found


ODD_FILES = odd_files()


def both(path: Path, **options: str) -> tuple[dict[str, Any], list[int], list[str], dict[str, list[Any]]]:
    """Return columns, lines and notes as read in memory, and the texts of the columns as streamed."""
    section = DataSection(path=path.name, target="y", task="classification", **options)
    table = read_table(open_job_table(path, section))
    source = open_source(section, path.parent)
    assert isinstance(source, TextSource)
    source.kinds = dict.fromkeys(table.columns, "category")  # to see their texts
    streamed: dict[str, list[Any]] = {}
    for batch in source.batches():
        for name, coded in batch.items():
            assert isinstance(coded, DictionaryColumn)
            streamed.setdefault(name, []).extend(coded.values[code] for code in coded.codes)
    assert [line for block in source.file.blocks() for line in block.lines] == table.lines
    assert source.notes[: len(table.notes)] == table.notes
    return table.columns, table.lines, table.notes, streamed


def test_there_are_more_than_200_odd_files() -> None:
    assert len(ODD_FILES) > 200


@pytest.mark.parametrize("case", ODD_FILES)
def test_an_odd_file_has_the_same_cells_in_memory_and_streamed(tmp_path: Path, case: str) -> None:
    suffix, content = ODD_FILES[case]
    (tmp_path / f"t{suffix}").write_bytes(content)
    columns, lines, notes, streamed = both(tmp_path / f"t{suffix}")
    assert columns == EXPECTED
    assert streamed == EXPECTED
    first = 2 + 2 * ("blank" in case) + ("sep line" in case)
    step = 1 + ("blank" in case)
    assert lines == [first + (step - 1) + step * i for i in range(4)]
    assert any("names or numbers of the rows" in note for note in notes) == ("row numbers" in case or "write.t" in case)
    assert any("decimal points in x" in note for note in notes) == ("decimal" in case)


JSON_LINES = "\n".join(  # noqa: FLY002 - one line of the file to a line
    ['{"x": 1.50, "flag": true, "y": "a", "tags": [1]}', "  ", '{"y": "b", "x": null, "flag": false, "tags": [2, 3]}',
     '{"x": 12345678901234567890, "y": "a"}', '{"x": -2e-3, "flag": null, "y": "b"}']
)  # fmt: skip


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_lines_have_the_same_cells_in_memory_and_streamed(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(ENCODINGS[encoding](JSON_LINES))
    columns, lines, _, streamed = both(path)
    assert columns == streamed
    assert columns["x"] == ["1.50", None, "12345678901234567890", "-2e-3"]
    assert columns["flag"] == ["true", "false", None, None]
    assert lines == [1, 3, 4, 5]
    assert read_table(open_job_table(path, DataSection(path=path.name))).unsupported == ["tags"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["[1]"], "line 1: expected an object, found a list (write one object per line"),
        (['{"y": 1}', "{"], "line 2: not JSON: Expecting property name"),
        (['{"y": 1, "y": 2}'], "line 1: not JSON: the key 'y' is written twice"),
        (['{"y": 1}'] * 10_000 + ['{"z": 1}'], "line 10001, column z: none of the first 10000 rows has this column"),
        (
            ['{"y": 1}'] * 10_000 + ['{"y": [1]}'],
            "line 10001, column y: expected a number, a string, a boolean or null",
        ),
        ([], "the file is empty"),
    ],
)
def test_invalid_json_lines_are_reported_with_their_line(tmp_path: Path, lines: list[str], expected: str) -> None:
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        read_table(open_job_table(tmp_path / "t.jsonl", DataSection(path="t.jsonl")))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("content", "options", "names"),
    [
        ("# a note, \"open\n#another\nx,y\n1,a\n# in between\n2,b\n", {"comment": "#"}, ["x", "y"]),
        ("x,y\n1,a\n2,b\n", {"separator": ","}, ["x", "y"]),
        ("x:y\n1:a\n2:b\n", {"separator": ":"}, ["x", "y"]),
        ("x y\n1 a\n 2   b\n", {}, ["x", "y"]),
        ("größe,y\n1,a\n2,b\n".encode("latin-1"), {"encoding": "latin-1"}, ["größe", "y"]),
        ("x,y,,\n1,a,,\n2,b\n", {}, ["x", "y"]),
        (",x,y\n5,1,a\n5,2,b\n", {}, ["column_1", "x", "y"]),
        ("x,,y\n1,5,a\n2,5,b\n", {}, ["x", "column_2", "y"]),
        ("x,,y\n1,,a\n2,,b\n", {}, ["x", "y"]),
        ("x,x,x_2,y,x\n1,2,3,a,4\n5,6,7,b,8\n", {}, ["x", "x_3", "x_2", "y", "x_4"]),
        ('"x\ny",y\n1,a\n2,b\n', {}, ["x\ny", "y"]),
    ],
)  # fmt: skip
def test_names_of_columns(tmp_path: Path, content: str | bytes, options: dict[str, str], names: list[str]) -> None:
    (tmp_path / "t.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    columns, _, _, streamed = both(tmp_path / "t.csv", **options)
    assert list(columns) == names
    assert columns == streamed
    assert columns["y"] == ["a", "b"]


def test_decimal_commas_need_agreement_and_can_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a;b;c;y\n1,5;1.234,5;x,1;u\n2;12;y;v\n")
    columns, _, notes, _ = both(path)
    assert (columns["a"], columns["b"], columns["c"]) == (["1.5", "2"], ["1234.5", "12"], ["x,1", "y"])
    assert any("decimal points in a, b" in note for note in notes)
    assert both(path, decimal=".")[0]["a"] == ["1,5", "2"]
    path.write_text("a;b;y\n1,234;1.5;u\n2,345;2.5;v\n")  # the other column has decimal points
    assert both(path)[0]["a"] == ["1,234", "2,345"]
    path.write_text('a,y\n"1,5",u\n"2,5",v\n')
    assert both(path)[0]["a"] == ["1,5", "2,5"]
    assert both(path, decimal=",")[0]["a"] == ["1.5", "2.5"]


def test_cells_of_megabytes_are_read_in_memory_and_streamed(tmp_path: Path) -> None:
    long = "x" * (3 << 20)
    (tmp_path / "t.csv").write_text("text,y\n" + f'"{long}",a\nshort,b\n' * 3)
    columns, _, _, streamed = both(
        tmp_path / "t.csv",
    )
    assert columns == streamed
    assert columns["text"] == [long, "short"] * 3


@pytest.mark.parametrize(
    "content",
    [
        "x,y\n1,a\n\n2,b,c\n3\n" + "4,a\n" * 20,
        "x;y\n1,5;a\n\n2,b;c;d\n3\n" + "4;a\n" * 20,
        'x,y\n1,a\n2,"b\n' + "4,a\n" * 20,
        b"x,y\n1,a\n2,b\n3,\xff\n",
        "x,y\n1,a\nz,b\n" + "4,a\n" * 20_000 + "inf,b\n",
    ],
)
def test_faults_have_the_same_lines_in_memory_and_streamed(tmp_path: Path, content: str | bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    section = DataSection(path="t.csv", target="y", task="classification", kinds={"x": "number"})
    with pytest.raises(DataError) as in_memory:
        loading.load(section, tmp_path)
    with pytest.raises(DataError) as streamed:
        list(open_source(section, tmp_path).batches())
    found = [[fault.location for fault in caught.value.faults] for caught in (in_memory, streamed)]
    assert found[0][: len(found[1])] == found[1]  # the first rows alone decide whether a stream begins


def test_numbers_of_a_stream_equal_those_in_memory() -> None:
    rng = np.random.default_rng(0)
    odd = ["", " ", "NA", " n/a ", r"\N", "?", "nan", "+1.", " 2 ", "1e5", "-.5", "007", "1e-400", "9007199254740993"]
    for _ in range(300):
        cells = [str(cell) for cell in rng.choice([*odd, *map(str, rng.standard_normal(20))], 30)]
        expected = [float("nan") if cell.strip().lower() in {"", "na", "n/a", "?", "nan", r"\n"} else float(cell)
                    for cell in cells]  # fmt: skip
        np.testing.assert_array_equal(parse_numbers(cells), expected)
    for cell in ("inf", "-nan", "1_000", "١", "1,5", "1 2", "x", "true", "[1", '"1"', "1e999", "{}", "1]"):
        for others in (["1"], ["", "NA"], [" NA "], ["[1", "2]"], ["1", "2]"]):
            with pytest.raises(ValueError, match="not a finite number"):
                parse_numbers([*others, cell])


def test_a_workbook_has_the_same_cells_in_memory_and_streamed(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    import datetime as dt

    book = openpyxl.Workbook()
    day, minute = dt.datetime.fromisoformat("2026-01-02"), dt.datetime.fromisoformat("2026-01-02T03:04")
    rows = [(None, "x", "when", "flag", "y"), (0, 1.5, day, True, "a"), (None,) * 5, (1, 2, minute, False, "b"),
            (2, "#N/A", None, None, "a")]  # fmt: skip
    for row in rows:
        book.active.append(row)
    book.create_sheet("other").append(["z", "y"])
    book["other"].append([1, "c"])
    book.save(tmp_path / "t.xlsx")
    columns, lines, notes, streamed = both(tmp_path / "t.xlsx")
    assert (
        columns
        == streamed
        == {
            "x": ["1.5", "2", None],
            "when": ["2026-01-02", "2026-01-02T03:04:00", None],
            "flag": ["true", "false", None],
            "y": ["a", "b", "a"],
        }
    )
    assert lines == [2, 4, 5]
    assert any("names or numbers of the rows" in note for note in notes)
    path = tmp_path / "t.xlsx"
    other = read_table(open_job_table(path, DataSection(path=path.name, sheet="other")))
    assert other.columns == {"z": ["1"], "y": ["c"]}
    with pytest.raises(DataError, match="no sheet is named 'none'"):
        read_table(open_job_table(path, DataSection(path=path.name, sheet="none")))


def test_a_workbook_that_unpacks_to_too_much_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["x", "y"])
    book.save(tmp_path / "t.xlsx")
    monkeypatch.setattr("model_store.tables.spreadsheet.MAX_UNPACKED_BYTES", 1000)
    for content in (None, b"PK\x03\x04 and nothing else", b""):
        if content is not None:
            (tmp_path / "t.xlsx").write_bytes(content)
        with pytest.raises(DataError, match=r"unpacks to|not a readable workbook"):
            read_table(open_job_table(tmp_path / "t.xlsx", DataSection(path="t.xlsx")))


@pytest.mark.parametrize("form", ["parquet", "arrow", "stream", "feather"])
def test_arrow_files_have_the_same_cells_as_csv(tmp_path: Path, form: str) -> None:
    import pyarrow as pa
    from pyarrow import feather, ipc, parquet

    table = pa.table({"x": [1.5, None, 3.25], "flag": [True, False, None], "n": [1, 2, 3], "y": ["a", " b ", "NA"]})
    path = tmp_path / {"parquet": "t.parquet", "feather": "t.feather"}.get(form, "t.arrow")
    if form == "parquet":
        parquet.write_table(table, path)
    elif form == "feather":
        feather.write_feather(table, path)
    else:
        with (ipc.new_stream if form == "stream" else ipc.new_file)(path, table.schema) as writer:
            writer.write_table(table)
    found = read_table(open_job_table(path, DataSection(path=path.name)))
    assert found.columns == {"x": ["1.5", None, "3.25"], "flag": ["true", "false", None], "n": ["1", "2", "3"],
                             "y": ["a", "b", None]}  # fmt: skip
    source = open_source(DataSection(path=path.name, target="y", task="classification"), tmp_path)
    assert source.rows == 3
    (batch,) = source.batches()
    np.testing.assert_array_equal(batch["x"], [1.5, np.nan, 3.25])
    flags = batch["flag"]
    assert isinstance(flags, DictionaryColumn)
    assert [flags.values[code] for code in flags.codes] == ["true", "false", None]
    path.write_bytes(b"PAR1ARROW1 and nothing else")
    with pytest.raises(DataError, match="not a readable"):
        read_table(open_job_table(path, DataSection(path=path.name)))


def test_json_of_pandas_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.ndjson").write_text("".join(json.dumps({"x": i / 2, "y": "ab"[i % 2]}) + "\n" for i in range(4)))
    assert both(tmp_path / "t.ndjson")[0]["x"] == ["0.0", "0.5", "1.0", "1.5"]


def test_a_workbook_that_leaves_out_rows_has_no_more_than_excel_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """openpyxl adds the rows before one whose number is 99999999999: a file of 5 kB was read for ever."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["x", "y"])
    book.active.append([1, 2])
    path = tmp_path / "t.xlsx"
    book.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for row, limit in (("99999999999", "MAX_ROWS"), ("4", "MAX_CELLS")):
        monkeypatch.setattr(f"model_store.tables.spreadsheet.{limit}", 20)
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                added = f'<row r="{row}"><c r="AA{row}"><v>1</v></c></row></sheetData>'.encode()
                archive.writestr(name, content.replace(b"</sheetData>", added))
        with pytest.raises(DataError, match="expected a sheet of at most"):
            read_table(open_job_table(path, DataSection(path=path.name)))


def test_a_workbook_does_not_leave_out_most_of_its_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """128 kB with 2,000 columns and 20,000 rows of one cell took 1.1 GB and a minute."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append([f"c{i}" for i in range(100)])
    for _ in range(50):
        book.active.append([1])
    path = tmp_path / "t.xlsx"
    book.save(path)
    assert len(read_table(open_job_table(path, DataSection(path=path.name)))) == 50
    monkeypatch.setattr("model_store.tables.spreadsheet.MIN_PADDED_CELLS", 1000)
    with pytest.raises(DataError, match="found 20 cells left out for each that is there"):
        read_table(open_job_table(path, DataSection(path=path.name)))


def test_json_lines_do_not_leave_out_most_of_their_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of {} below one of 10,000 keys took 10,000 cells for 3 bytes."""
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({f"c{i}": i for i in range(1000)}) + "\n" + "{}\n" * 1000)
    assert len(read_table(open_job_table(path, DataSection(path=path.name)))) == 1001
    monkeypatch.setattr("model_store.tables.json_lines.MIN_SPARSE_CELLS", 1000)
    with pytest.raises(DataError, match="expected rows with most of the 1000 columns, found few values in each"):
        read_table(open_job_table(path, DataSection(path=path.name)))
    path.write_text((json.dumps({f"c{i}": i for i in range(50)}) + "\n{}\n") * 100)
    assert len(read_table(open_job_table(path, DataSection(path=path.name)))) == 200


def test_names_of_nested_json_values_have_a_limit(tmp_path: Path) -> None:
    """99 kB with one key of 45,000 characters that holds 5,000 keys took 11 s, and made a job file of 225 MB."""
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"a" * 2000: 1, "b" * 494: {"c" * 495: {"d" * 9: 2}}}) + "\n")
    assert list(map(len, read_table(open_job_table(path, DataSection(path=path.name))).columns)) == [2000, 1000]
    first = json.dumps({"y": 1, "b": {"c": 1}}) + "\n"
    for start, row in ((first, {"y": 1, "b": {"c" * 999: 2}}), (first, {"b" * 999: {"c": {}}})):
        path.write_text(start + json.dumps(row) + "\n")
        with pytest.raises(DataError, match="line 2: expected names of at most 1000 characters of the values in obj"):
            read_table(open_job_table(path, DataSection(path=path.name)))


@pytest.mark.parametrize(("name", "start"), [("t.csv.gz", b"x,y\n1,"), ("t.jsonl.gz", b'{"x": 1, "y": 2}\n')])
def test_a_line_that_is_no_row_takes_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, start: bytes
) -> None:
    """3 MB of gzip held a line of 3 GB."""
    monkeypatch.setattr("model_store.tables.text_file.MAX_LINE_CHARACTERS", 1000)
    path = tmp_path / name
    with gzip.open(path, "wb") as file:
        file.write(start + b" " * 2000)
    with pytest.raises(DataError, match="line 2: expected a line of at most 1000 characters, found a longer one"):
        read_table(open_job_table(path, DataSection(path=path.name)))


def test_the_first_of_many_keys_that_is_written_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("{" + ",".join(f'"k{i}": 1' for i in [*range(100_000), 99_999, 5]) + "}\n")
    with pytest.raises(DataError, match="the key 'k5' is written twice"):
        read_table(open_job_table(path, DataSection(path=path.name)))
