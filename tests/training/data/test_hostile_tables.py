"""Small table files that would take much memory or time, and invalid ones: each is an error that says what to do."""

from __future__ import annotations

import bz2
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.config.settings import DataSection
from training.data.streaming.source import DictionaryColumn
from training.data.streaming.table_reader import open_source
from training.data.tables import open_job_table, read_table
from training.errors import DataError


def arrow_file(path: Path, columns: dict[str, Any]) -> Path:
    import pyarrow as pa
    from pyarrow import ipc, parquet

    table = pa.table(columns)
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        with ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("name", ["t.arrow", "t.parquet"])
def test_rows_share_the_texts_of_a_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A dictionary of one text of 1 MB and 30,000 rows took 1 kB of a file and 30 GB of memory."""
    import pyarrow as pa

    words = pa.array(["z" * 1000, "a", None] * 100)
    dictionary = pa.DictionaryArray.from_arrays(
        pa.array([0, None, *range(1, 127)], pa.int8()), pa.array(map(str, range(127)))
    )
    columns = {"x": words if name == "t.parquet" else words.dictionary_encode(), "n": pa.array([1.5] * 300)}
    path = arrow_file(tmp_path / name, columns)
    file = open_job_table(path, DataSection(path=name))
    (block,) = file.blocks()
    assert block.columns["x"] == ["z" * 1000, "a", None] * 100
    assert len(set(map(id, block.columns["x"]))) == 3
    monkeypatch.setattr("model_store.tables.arrow_file.MIN_REPEATED_CHARACTERS", 10_000)
    monkeypatch.setattr("model_store.tables.arrow_file.MAX_REPETITION", 99)
    with pytest.raises(
        DataError, match="column x: expected short texts in a dictionary, found 300 rows with 100100 ch"
    ):
        read_table(file)
    path = arrow_file(tmp_path / name, {"x": dictionary, "y": pa.array(["a", "b"] * 64)})  # as many as int8 has codes
    assert read_table(open_job_table(path, DataSection(path=name))).columns["x"][:3] == ["0", None, "1"]
    for kinds, expected in (({}, [0, np.nan, 1]), ({"x": "category"}, ["0", None, "1"])):
        section = DataSection(path=name, target="y", task="classification", columns=["x"], kinds=kinds)
        (batch,) = open_source(section, tmp_path).batches()
        column = batch["x"]
        if isinstance(column, DictionaryColumn):
            assert [column.values[code] for code in column.codes[:3]] == expected
        else:
            np.testing.assert_array_equal(column[:3], expected)


@pytest.mark.parametrize("name", ["t.arrow", "t.parquet"])
def test_a_batch_of_a_wide_table_has_few_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """90 kB of Arrow with 1,500 empty columns and a million rows took 6.5 GB: a batch had 65,536 rows of any width."""
    import pyarrow as pa

    monkeypatch.setattr("model_store.tables.arrow_file._BATCH_CELLS", 1000)
    columns = {f"c{i}": pa.nulls(500) if i % 2 else pa.array([7] * 500, pa.int8()) for i in range(50)}
    file = open_job_table(arrow_file(tmp_path / name, columns), DataSection(path=name))
    blocks = list(file.blocks())
    assert [len(block.lines) for block in blocks] == [20] * 25
    assert all(sum(map(len, block.columns.values())) == 1000 for block in blocks)
    assert [batch.num_rows for batch in file.batches(["c0", "c1"], 400)] == [400, 100]
    read: list[int] = []
    monkeypatch.setattr(file, "blocks", lambda: (read.append(len(block.lines)) or block for block in blocks))
    assert len(read_table(file, 30)) == 30
    assert read == [20, 20]


def test_arrow_columns_of_other_types_are_ignored(tmp_path: Path) -> None:
    """Run-end encoded columns of 2^30 rows took 1 kB of a file and 2.8 GB of memory; intervals were a bug."""
    import pyarrow as pa

    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array([1.5]))
    path = arrow_file(
        tmp_path / "t.arrow", {"runs": runs, "gap": pa.nulls(2, pa.month_day_nano_interval()), "x": [1, 2]}
    )
    table = read_table(open_job_table(path, DataSection(path="t.arrow")))
    assert table.unsupported == ["runs", "gap"]
    assert table.columns == {"x": ["1", "2"]}
    arrow_file(path, {"runs": runs})
    with pytest.raises(DataError, match="expected columns of numbers or texts, found none"):
        read_table(open_job_table(path, DataSection(path="t.arrow")))


def test_invalid_values_of_an_arrow_file_are_its_error(tmp_path: Path) -> None:
    """pyarrow trusts the bytes, offsets and indices of a file: reading them is undefined, or raises other errors."""
    import pyarrow as pa

    offsets = pa.py_buffer(np.arange(0, 6, 2, dtype=np.int32).tobytes())
    outside = pa.py_buffer(np.array([0, -5, 4], np.int32).tobytes())
    invalid = {
        "not UTF-8": pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"\xff\xfe" * 2)),
        "offset outside": pa.StringArray.from_buffers(2, outside, pa.py_buffer(b"abcd")),
        "index outside": pa.DictionaryArray.from_arrays(pa.array([0, 9]), pa.array(["a"]), safe=False),
        "index below 0": pa.DictionaryArray.from_arrays(pa.array([0, -1]), pa.array(["a"]), safe=False),
        "unknown time zone": pa.array([0, 1], pa.timestamp("s", "Mars/Olympus")),
    }
    for array in invalid.values():
        path = arrow_file(tmp_path / "t.arrow", {"x": array, "y": ["a", "b"]})
        with pytest.raises(DataError, match="not a readable Arrow file"):
            read_table(open_job_table(path, DataSection(path="t.arrow")))


def test_a_workbook_has_no_longer_cells_than_excel_allows(tmp_path: Path) -> None:
    """10,000 cells may refer to one shared text of 1 MB: a workbook of 83 kB took 11 s."""
    openpyxl = pytest.importorskip("openpyxl")
    path = tmp_path / "t.xlsx"
    book = openpyxl.Workbook()
    for row in (["x", "y"], ["z" * 32_767, 1]):
        book.active.append(row)
    book.save(path)
    assert len(read_table(open_job_table(path, DataSection(path=path.name)))) == 1
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(b"z" * 32_767, b"z" * 32_768))
    with pytest.raises(DataError, match="row 2: expected cells of at most 32767 characters, found one of 32768"):
        read_table(open_job_table(path, DataSection(path=path.name)))


def rewrite_workbook(path: Path, part: str, old: bytes, new: bytes, compression: int = zipfile.ZIP_DEFLATED) -> None:
    """Write a workbook of two sheets of x and y with `new` in place of the last `old` of a part."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.create_sheet("other").append(["z"])
    for row in (["x", "y"], [1, "a"]):
        book.active.append(row)
    book.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    before, found, after = members[part].rpartition(old)
    assert found == old
    members[part] = before + new + after
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def read_workbook(path: Path) -> dict[str, list[str | None]]:
    return read_table(open_job_table(path, DataSection(path=path.name))).columns


@pytest.mark.parametrize(
    ("part", "end", "added", "message"),
    [
        ("xl/worksheets/sheet1.xml", b"</sheetData>", b" " * 4_000_000, "the workbook unpacks to 40[0-9]+ bytes, more"),
        ("xl/worksheets/sheet1.xml", b"</sheetData>", b"<row><c/></row>" * 35_000, "XML tags in 'xl/worksheets/sheet1"),
        ("xl/theme/theme1.xml", b"</a:theme>", b"<a>" * 50_000 + b"</a>" * 50_000, "XML tags in 'xl/theme/theme1"),
    ],
)
def test_a_workbook_unpacks_to_a_bounded_multiple_of_its_size(
    tmp_path: Path, part: str, end: bytes, added: bytes, message: str
) -> None:
    """A workbook of 134 kB with 15 million empty rows or texts took 20 s and 2 GB."""
    path = tmp_path / "t.xlsx"
    rewrite_workbook(path, part, end, end)
    assert read_workbook(path) == {"x": ["1"], "y": ["a"]}
    rewrite_workbook(path, part, end, added + end)
    assert path.stat().st_size < 25_000
    with pytest.raises(DataError, match=rf"t\.xlsx: .*{message}.*save the sheet as CSV"):
        read_workbook(path)


@pytest.mark.parametrize(
    ("part", "end"),
    [
        ("[Content_Types].xml", b"</Types>"),
        ("_rels/.rels", b"</Relationships>"),
        ("xl/_rels/workbook.xml.rels", b"</Relationships>"),
        ("xl/workbook.xml", b"</workbook>"),
        ("xl/styles.xml", b"</styleSheet>"),
        ("docProps/core.xml", b"</cp:coreProperties>"),
    ],
)
def test_the_parts_of_a_workbook_without_cells_are_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, end: bytes
) -> None:
    """openpyxl reads them whole: 265 kB of cell formats took minutes."""
    path = tmp_path / "t.xlsx"
    monkeypatch.setattr("model_store.tables.spreadsheet.MAX_PART_TAGS", 1000)
    monkeypatch.setattr("model_store.tables.spreadsheet.MAX_PART_BYTES", 50_000)
    rewrite_workbook(path, "xl/worksheets/sheet1.xml", b"</sheetData>", b"<row/>" * 9000 + b"</sheetData>")
    assert read_workbook(path) == {"x": ["1"], "y": ["a"]}
    for added, message in ((b"<a/>" * 1000, "at most 1000 XML tags in"), (b" " * 50_000, "at most 50000 bytes in")):
        rewrite_workbook(path, part, end, added + end)
        with pytest.raises(DataError, match=f"{message} '{part.replace('[', '.')[:4]}"):
            read_workbook(path)


def test_a_part_of_a_workbook_is_read_for_one_sheet(tmp_path: Path) -> None:
    """2,000 sheets of one part: a workbook of 10 kB took more than a minute."""
    path = tmp_path / "t.xlsx"
    rewrite_workbook(path, "xl/_rels/workbook.xml.rels", b"sheet2.xml", b"sheet1.xml")
    with pytest.raises(DataError, match="expected sheets with a part each, found 2 sheets with 1 parts"):
        read_workbook(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_workbook_has_no_xml_entities(tmp_path: Path, encoding: str) -> None:
    """An entity may hold thousands of tags, and be referred to a hundred times."""
    path = tmp_path / "t.xlsx"
    text = '<!DOCTYPE sst [<!ENTITY a "<si/>">]><sst xmlns="x">&a;</sst>'.encode(encoding)
    rewrite_workbook(path, "xl/theme/theme1.xml", b"</a:theme>", b"</a:theme>" + text)
    with pytest.raises(DataError, match="expected no XML entities, found some in 'xl/theme"):
        read_workbook(path)


def test_the_parts_of_a_workbook_are_stored_or_deflated(tmp_path: Path) -> None:
    """zipfile unpacks a block of bzip2 whole, whatever size the archive states."""
    path = tmp_path / "t.xlsx"
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        rewrite_workbook(path, "xl/workbook.xml", b"<", b"<", compression)
        if compression != zipfile.ZIP_BZIP2:
            assert read_workbook(path) == {"x": ["1"], "y": ["a"]}
    with pytest.raises(DataError, match="expected parts that are stored or deflated, found method 12"):
        read_workbook(path)


def test_a_workbook_of_repeated_values_is_read(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    sheet.append([f"c{i}" for i in range(10)])
    for _ in range(5000):
        sheet.append([1, "a"] * 5)
    book.save(tmp_path / "t.xlsx")
    columns = read_workbook(tmp_path / "t.xlsx")
    assert len(columns) == 10
    assert columns["c9"] == ["a"] * 5000


@pytest.mark.parametrize("name", ["t.csv.bz2", "t.jsonl.bz2"])
def test_a_file_of_blank_lines_is_read_no_further_than_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """1.5 kB of bz2 held 2 GB of empty lines."""
    monkeypatch.setattr("model_store.tables.text_file.MAX_BLANK_LINES", 100)
    path = tmp_path / name
    start, row = ("x,y\n", "1,2\n") if name == "t.csv.bz2" else ('{"x": 1, "y": 2}\n', '{"x": 1, "y": 2}\n')
    path.write_bytes(bz2.compress((start + ("\n" * 50 + " \r\n" * 50 + row) * 2).encode()))
    assert len(read_table(open_job_table(path, DataSection(path=name)))) == 2 + (start == row)
    path.write_bytes(bz2.compress((start + row + "\n" * 1000).encode()))
    with pytest.raises(DataError, match="line 103: expected at most 100 blank lines in succession, found more"):
        read_table(open_job_table(path, DataSection(path=name)))
