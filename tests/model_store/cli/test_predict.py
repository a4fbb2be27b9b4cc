"""`models predict` from the store."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import pytest

from model_store.registry.store import Store
from tests.model_store.cli.conftest import read_json


def test_predict_takes_rows_from_the_command_line(models, store: Store) -> None:
    row = '{"age": 30, "town": "Bath"}'
    found = read_json(models("predict", "chess/2", "--row", row, "--row", '[null, "York"]', "--json"))
    expected = store.load("chess", 2)[1].predict([[30, "Bath"], [None, "York"]])
    assert (found["model"], found["version"], found["predictions"]) == ("chess", 2, expected)
    lines = models("predict", "chess/2", "--row", row).stdout.splitlines()
    assert lines[0].split() == ["row", "label", "no", "yes"]
    assert lines[1].split()[1] == expected[0]["label"]


def test_predict_takes_files_and_standard_input(models, tmp_path: Path) -> None:
    text = "town,age,chess\nBath,30,yes\nYork,,no\n"
    (tmp_path / "rows.csv").write_text(text)
    (tmp_path / "rows.json").write_text('[[30, "Bath"], {"town": "York"}]')
    found = [
        read_json(models("predict", "chess", "--json", str(tmp_path / "rows.csv"))),
        read_json(models("predict", "chess", "--json", str(tmp_path / "rows.json"))),
        read_json(models("predict", "chess", "--json", "-", text=text)),
    ]
    assert found[0] == found[1] == found[2]


def test_predict_takes_tables_as_other_programs_write_them(models, tmp_path: Path) -> None:
    import openpyxl
    import pyarrow as pa
    from pyarrow import parquet

    text = "town;age\nBath;30,5\nYork;\n"
    book = openpyxl.Workbook()
    for row in (("town", "age"), ("Bath", 30.5), ("York", None)):
        book.active.append(row)
    book.save(tmp_path / "rows.xlsx")
    parquet.write_table(pa.table({"town": ["Bath", "York"], "age": [30.5, None]}), tmp_path / "rows.parquet")
    files = {
        "plain.csv": b"town,age\nBath,30.5\nYork,\n",
        "semicolons.csv": text.encode(),
        "unicode.txt": "town\tage\r\nBath\t30.5\r\nYork\t\r\n".encode("utf-16"),
        "rows.csv.gz": gzip.compress(text.encode()),
        "pandas.csv": b",town,age\n0,Bath,30.5\n1,York,\n",
        "trailing.csv": b"town,age,\nBath, 30.5,\nYork,,\n",
        "no_header.csv": b"30.5;Bath\n;York\n",
        "rows.jsonl": b'{"town": "Bath", "age": 30.5}\n{"town": "York", "age": null}\n',
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    expected = models("predict", "chess", "--json", str(tmp_path / "plain.csv")).stdout
    assert read_json(models("predict", "chess", "--json", str(tmp_path / "plain.csv")))["predictions"]
    for name in (*files, "rows.xlsx", "rows.parquet"):
        assert models("predict", "chess", "--json", str(tmp_path / name)).stdout == expected, name
        models("predict", "chess", str(tmp_path / name), "--output", str(tmp_path / f"{name}.out"), "--keep-all")
    outputs = {
        name: list(csv.reader((tmp_path / f"{name}.out").read_text().splitlines())) for name in (*files, "rows.xlsx")
    }
    assert outputs["semicolons.csv"] == outputs["plain.csv"] == outputs["rows.jsonl"] == outputs["rows.xlsx"]
    assert outputs["pandas.csv"][0][0] == "column_1"
    piped = models("predict", "chess", "--json", "-", text=files["rows.jsonl"].decode()).stdout
    assert piped == expected


def test_predict_takes_other_encodings(models, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes("town,age,größe\nBath,30,1\n".encode("latin-1"))
    message = models("predict", "chess", str(tmp_path / "rows.csv"), code=3).stderr
    assert "rows.csv line 1: expected text in UTF-8, found the byte 0xf6" in message
    assert "state its encoding" in message
    assert "größe" in models("predict", "chess", str(tmp_path / "rows.csv"), "--encoding", "latin-1").stderr


def test_predict_takes_the_options_of_tables_that_training_has(models, tmp_path: Path) -> None:
    import openpyxl

    expected = models("predict", "chess", "--json", "--row", '{"town": "York", "age": 30.5}').stdout
    lines = "# exported\ntown\tage\tnote\n# by hand\nYork\t30,5\ta;b;c\n"
    (tmp_path / "rows.csv").write_text(lines)
    options = ("--comment", "#", "--separator", r"\t", "--decimal", ",")
    assert models("predict", "chess", "--json", str(tmp_path / "rows.csv"), *options).stdout == expected
    models("predict", "chess", str(tmp_path / "rows.csv"), *options, "--output", str(tmp_path / "out.csv"))
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2
    book = openpyxl.Workbook()
    book.create_sheet("rows").append(["town", "age"])
    book["rows"].append(["York", 30.5])
    book.save(tmp_path / "rows.xlsx")
    assert models("predict", "chess", "--json", str(tmp_path / "rows.xlsx"), "--sheet", "rows").stdout == expected
    for name, value, found in (
        ("--encoding", "none", "expected the name of a text encoding"),
        ("--separator", "ab", "expected one character"),
        ("--decimal", ";", "expected '.' or ','"),
    ):
        assert found in models("predict", "chess", str(tmp_path / "rows.csv"), name, value, code=2).stderr
    both = models("predict", "chess", str(tmp_path / "rows.csv"), "--separator", ",", "--decimal", ",", code=2).stderr
    assert "a comma cannot be the separator and the decimal sign" in both
    assert "need FILE" in models("predict", "chess", "--row", "[]", "--sheet", "rows", code=2).stderr


def test_predict_reports_invalid_input(models, tmp_path: Path) -> None:
    message = models("predict", "chess", "--row", '{"age": "x", "town": "Yorck"}', code=3).stderr
    assert "instances.0.age: expected a number" in message
    assert "did you mean 'York'" in message
    assert "Give either FILE or --row" in models("predict", "chess", code=2).stderr
    assert "does not exist" in models("predict", "chess", str(tmp_path / "no.csv"), code=2).stderr
    assert "no model 'ches' in" in models("predict", "ches", "--row", "[]", code=5).stderr


ROWS = 'id,town,age,chess\n"a, 1",Bath,30,yes\n"b""2",York,31,no\n'


def predicted(models, tmp_path: Path, *options: str, text: str = ROWS, code: int = 0) -> list[list[str]]:
    (tmp_path / "rows.csv").write_text(text)
    result = models(
        "predict", "chess", str(tmp_path / "rows.csv"), "--output", str(tmp_path / "out.csv"), *options, code=code
    )
    if code:
        return [[result.stderr]]
    return list(csv.reader((tmp_path / "out.csv").read_text().splitlines()))


def test_output_keeps_the_columns_that_are_named(models, tmp_path: Path) -> None:
    header, first, second = predicted(models, tmp_path, "--keep", "age,id")
    assert header == ["age", "id", "chess", "probability_no", "probability_yes"]
    assert (first[:2], second[:2]) == (["30", "a, 1"], ["31", 'b"2'])
    bare = predicted(models, tmp_path)
    assert [row[2:] for row in (header, first, second)] == bare


def test_output_keeps_all_columns_and_renames_a_prediction_of_the_same_name(models, tmp_path: Path) -> None:
    for options in (("--keep-all",), ("--keep", "id", "--keep", "town,age,chess")):
        header, first, _ = predicted(models, tmp_path, *options)
        assert header == ["id", "town", "age", "chess", "predicted_chess", "probability_no", "probability_yes"]
        assert first[:4] == ["a, 1", "Bath", "30", "yes"]
    header, first, _ = predicted(models, tmp_path, "--keep-all", "--header", "absent", text="30,Bath\n31,York\n")
    assert header[:3] == ["age", "town", "chess"]
    assert first[:2] == ["30", "Bath"]


def test_columns_to_keep_are_checked(models, tmp_path: Path) -> None:
    assert (
        "rows.csv has no column 'idd' (did you mean 'id'?)"
        in predicted(models, tmp_path, "--keep", "idd", code=3)[0][0]
    )
    assert not (tmp_path / "out.csv").exists()
    both = predicted(models, tmp_path, "--keep", "id", "--keep-all", code=2)[0][0]
    assert "either --keep or --keep-all" in both
    rows = str(tmp_path / "rows.csv")
    assert "need --output" in models("predict", "chess", rows, "--keep", "id", code=2).stderr
    (tmp_path / "rows.json").write_text("[]")
    message = models("predict", "chess", str(tmp_path / "rows.json"), "--output", "x.csv", code=2).stderr
    assert "--output needs a table, such as CSV" in message


def test_output_goes_to_standard_output(models, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    shown = models("predict", "chess", str(tmp_path / "rows.csv"), "--output", "-", "--keep", "id", "--json").stdout
    assert shown.splitlines()[0] == "id,chess,probability_no,probability_yes"
    assert len(shown.splitlines()) == 3


def test_errors_in_files_name_the_line(models, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("town,age\nBath,30\n\nYork,old\n")
    for options in ((), ("--output", str(tmp_path / "out.csv"))):
        message = models("predict", "chess", str(tmp_path / "rows.csv"), *options, code=3).stderr
        assert message.startswith("Error: rows.csv line 4, column age: expected a number, found 'old'")


def test_a_table_with_a_header_alone_has_no_predictions(models, tmp_path: Path) -> None:
    assert predicted(models, tmp_path, "--keep", "id", text="id,town,age\n") == [
        ["id", "chess", "probability_no", "probability_yes"]
    ]
    assert read_json(models("predict", "chess", str(tmp_path / "rows.csv"), "--json"))["predictions"] == []


def test_filled_values_are_named(models, tmp_path: Path) -> None:
    text = "town,age\nBath,30\nYork,\nYork,n/a\n"
    (tmp_path / "rows.csv").write_text(text)
    result = models("predict", "chess", str(tmp_path / "rows.csv"), "--json")
    warning = {
        "location": "age",
        "problem": "2 missing values replaced by 38",
        "fix": "give the values if you know them",
    }
    assert read_json(result)["warnings"] == [warning]
    assert result.stderr == "Warning: age: 2 missing values replaced by 38\n"
    result = models("predict", "chess", str(tmp_path / "rows.csv"), "--output", str(tmp_path / "out.csv"), "--json")
    assert read_json(result)["warnings"] == [warning]
    for row in ('{"town": "Bath"}', '[null, "Bath"]'):
        assert read_json(models("predict", "chess", "--row", row, "--json"))["warnings"][0]["location"] == "age"
    assert "warnings" not in read_json(models("predict", "chess", "--row", '[1, "Bath"]', "--json"))


def test_a_row_that_is_not_json_is_shown_with_an_example(models) -> None:
    message = models("predict", "chess", "--row", '{"age": 1, "town": "York"}', "--row", "age=1", code=3).stderr
    assert "row 1: expected JSON such as {\"column\": 1}, found 'age=1'" in message


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("rows.json", "[" * 20_000, "nested too deeply"),
        ("rows", "[" * 2_000 + "\n{}", "nested too deeply"),
        ("rows.jsonl", '{"age": ' + "[" * 20_000, "line 1: not JSON"),
        ("rows.json", '[{"age": ' + "1" * 5_000 + "}]", "found an error: Exceeds the limit (4300 digits) for integer"),
        ("rows.jsonl", '{"age": ' + "1" * 5_000 + ', "town": "York"}', "expected a number, found '111"),
    ],
)
def test_deep_rows_and_long_integers_are_invalid_input(
    models, tmp_path: Path, name: str, text: str, expected: str
) -> None:
    (tmp_path / name).write_text(text)
    message = models("predict", "chess", str(tmp_path / name), code=3).stderr
    assert expected in message
    assert "sys.set_int_max_str_digits" not in message


def test_output_names_standard_output_a_file_or_a_folder(models, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    words = ("predict", "chess", str(tmp_path / "rows.csv"), "--output")
    assert "for 2 rows to standard output." in models(*words, "-").stderr
    assert f"Wrote 1 part of 1 with 2 rows to {tmp_path}/name/" in models(*words, f"{tmp_path}/name/").stderr
    assert (tmp_path / "name" / "part-000000.parquet").exists()


def test_only_errors_of_usage_show_the_usage(models, tmp_path: Path) -> None:
    assert "Usage:" in models("predict", "chess", code=2).stderr
    assert "Usage:" in models("predict", code=2).stderr
    for words in (
        ("predict", "chess", str(tmp_path / "no.csv")),
        ("predict", "chess", "--header", "maybe"),
        ("gc", "--grace", "1"),
        ("rm", "chess/1"),
        ("rm", "chess"),
    ):
        message = models(*words, code=2).stderr
        assert "Usage:" not in message
        assert message.startswith("Error: ")


@pytest.mark.parametrize("output", ["rows.csv", "link.csv", "./rows.csv"])
def test_output_does_not_replace_the_rows(models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "link.csv").symlink_to("rows.csv")
    result = models("predict", "chess", "rows.csv", "--output", output, code=2)
    assert "--output would replace FILE" in result.stderr
    assert (tmp_path / "rows.csv").read_text() == ROWS


METADATA = {
    "version": 3,
    "inputs": [{"name": "x", "kind": "number"}],
    "output": {"kind": "values", "names": ["y"]},
}


@pytest.mark.parametrize(
    "change",
    [
        {"version": None},
        {"inputs": []},
        {"inputs": 5},
        {"inputs": [{"kind": "planet", "name": "x"}]},
        {"inputs": [{"kind": "number", "name": ["x"]}]},
        {"inputs": [{"kind": "array", "name": "x", "shape": [0]}]},
        {"inputs": [{"kind": "number", "name": "x", "format": {"unit": 7}}]},
        {"output": None},
        {"output": {"kind": "classes", "name": "y", "labels": 5}},
        {"output": {"kind": "values", "names": [[]]}},
    ],
)
def test_metadata_of_another_form_is_an_error_of_the_server(
    models, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    monkeypatch.setattr("forward_pass_client.Client.model", lambda *_: {**METADATA, **change})
    message = models("predict", "chess", "--url", "http://127.0.0.1:9", "--row", "[1]", code=5).stderr
    assert "http://127.0.0.1:9: expected the version, inputs and output of the model chess, found" in message


@pytest.mark.parametrize(
    ("output", "prediction", "found"),
    [
        ({"kind": "values", "names": ["y"]}, "7", "'7'"),
        ({"kind": "values", "names": ["y"]}, [7.0], "[7.0]"),
        ({"kind": "values", "names": ["y", "z"]}, {"y": 1.0}, "an object"),
        ({"kind": "classes", "name": "y", "labels": ["a", "b"]}, 1.0, "1.0"),
        ({"kind": "classes", "name": "y", "labels": ["a", "b"]}, {"label": "a"}, "an object"),
        (
            {"kind": "classes", "name": "y", "labels": ["a", "b"]},
            {"label": [], "probabilities": {"a": 1, "b": 0}},
            "an object",
        ),
        (
            {"kind": "labels", "name": "y", "labels": ["a"], "separator": None, "threshold": 0.5},
            {"labels": [[]], "probabilities": {"a": 1}},
            "an object",
        ),
    ],
)
def test_predictions_of_another_form_are_an_error_of_the_server(
    models, monkeypatch: pytest.MonkeyPatch, output: dict[str, Any], prediction: Any, found: str
) -> None:
    monkeypatch.setattr("forward_pass_client.Client.model", lambda *_: {**METADATA, "output": output})
    monkeypatch.setattr("forward_pass_client.Client.predict", lambda *_, **__: [prediction])
    message = models("predict", "chess", "--url", "http://127.0.0.1:9", "--row", "[1]", code=5).stderr
    assert f"http://127.0.0.1:9: expected predictions of the model chess, found {found} among them" in message
