"""`train init`: the job files it writes, and the tables it rejects."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import Result
from pyarrow import csv, parquet

from model_store.errors import Fault, InputError
from model_store.registry.store import open_store
from training.cli import scaffold
from training.data import image_folder
from training.errors import JobError

Train = Callable[..., Result]


def store(job_file: Path) -> Path:
    return job_file.parent / "models"


def test_a_job_file_is_written_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.toml"
    scaffold.write_job_file(path, "old")
    with pytest.raises(JobError, match=r"already exists \(overwrite it with --force"):
        scaffold.write_job_file(path, "new")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    for target in (path, tmp_path / "b.toml"):
        with pytest.raises(JobError, match=r"cannot be written: No space left on device"):
            scaffold.write_job_file(target, "new", force=True)
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("a.toml", "old")]


def test_init_writes_a_job_that_checks_and_trains(train: Train, job_file: Path) -> None:
    job_file.unlink()
    table = job_file.with_suffix(".csv")
    found = train("init", table, "--target", "kind")
    assert found.exit_code == 0, found.output
    text = job_file.read_text()
    assert "#   length: number, 0.5 to 29.5, 1 missing" in text
    assert "#   colour: category, 3 distinct values, 1 missing" in text
    assert train("check", job_file).exit_code == 0
    assert train(job_file, "--set", "train.epochs=2").exit_code == 0
    assert open_store(store(job_file)).names() == ["flowers"]


def test_init_overwrites_a_file_only_with_force(train: Train, job_file: Path) -> None:
    before = job_file.read_text()
    found = train("init", job_file.with_suffix(".csv"), "--target", "kind")
    assert found.exit_code == 2
    assert "--force" in found.stderr
    assert job_file.read_text() == before
    assert train("init", job_file.with_suffix(".csv"), "--target", "kind", "--force").exit_code == 0
    assert job_file.read_text() != before


def test_init_without_a_target_lists_the_columns(train: Train, job_file: Path) -> None:
    found = train("init", job_file.with_suffix(".csv"))
    assert found.exit_code == 2
    assert "length, colour, kind" in found.stderr
    found = train("init", job_file.with_suffix(".csv"), "--target", "knd")
    assert found.exit_code == 3
    assert "did you mean 'kind'?" in found.stderr


def test_init_leaves_out_ids_and_constants(train: Train, tmp_path: Path) -> None:
    rows = "".join(f"name {i},same,{i * 3},,{i % 7 + 0.5}\n" for i in range(60))
    (tmp_path / "t.csv").write_text("id,fixed,size,void,price\n" + rows)
    job = tmp_path / "jobs" / "prices.toml"
    job.parent.mkdir()
    found = train("init", tmp_path / "t.csv", "--target", "price", "-o", job)
    assert found.exit_code == 0, found.output
    text = job.read_text()
    assert 'columns = ["size"]' in text
    assert 'path = "../t.csv"' in text
    assert 'name = "prices"' in text
    assert 'task = "regression"' in text
    assert "id: left out: identifiers, 60 distinct values in 60 rows; to use it, add it to columns" in text
    assert train(job, "--set", "train.epochs=2").exit_code == 0


@pytest.mark.parametrize("rows", [4, 19, 21, 100])
@pytest.mark.parametrize("classes", [2, 3])
def test_init_works_for_tables_of_any_size(train: Train, tmp_path: Path, rows: int, classes: int) -> None:
    table = 'x,"odd ""name""\n#",y\n' + "".join(f"{i},{i % 3}z,{'abc'[i % classes]}\n" for i in range(rows))
    (tmp_path / "t.csv").write_text(table)
    found = train("init", tmp_path / "t.csv", "--target", "y")
    assert found.exit_code == 0, found.output
    found = train(tmp_path / "t.toml", "--set", "train.epochs=1")
    assert found.exit_code == 0, found.output


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_init_reads_only_the_first_rows_of_a_streamed_table(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A CSV of 303 MB took 2.7 GB and 57 s when it was read whole; one of 3 GB used up all memory."""
    monkeypatch.setattr("training.data.streaming.dataset.MIN_STREAM_BYTES", 1000)
    for module in ("cli.scaffold", "data.streaming.table_reader"):
        monkeypatch.setattr(f"training.{module}.TYPE_INFERENCE_ROWS", 200)
    content = pa.table({"size": np.arange(900.0) * 3, "id": [f"n{i}" for i in range(900)], "y": ["u", "v"] * 450})
    (csv.write_csv if kind == "csv" else parquet.write_table)(content, tmp_path / f"t.{kind}")
    found = train("init", tmp_path / f"t.{kind}", "--target", "y")
    assert found.exit_code == 0, found.output
    text = (tmp_path / "t.toml").read_text()
    assert "the target has 2 distinct values in the first 200 rows" in text
    assert 'columns = ["size"]' in text
    assert train(tmp_path / "t.toml", "--no-publish").exit_code == 0


def test_the_job_of_init_trains_on_a_small_table_of_skewed_numbers(train: Train, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    x = rng.lognormal(0, 1.5, (20, 3)).round(2)
    lines = [",".join(map(str, [*row, answer])) for row, answer in zip(x, (x @ [3, -2, 1]).round(2), strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,y", *lines]))
    assert train("init", tmp_path / "t.csv", "--target", "y").exit_code == 0
    found = train(tmp_path / "t.toml", "--no-publish")
    assert found.exit_code == 0, found.output
    assert train(tmp_path / "t.toml", "--no-publish", "--set", "train.clip_norm=").exit_code == 4


def test_init_suggests_the_logarithm_of_a_skewed_target_as_a_comment(train: Train, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    amounts = np.exp(rng.normal(size=300)) * 1000
    prices = [f'"${amount:,.2f}"' for amount in amounts]
    counts = np.floor(amounts / 400).astype(int)
    plain = rng.normal(size=300).round(3)
    lines = [f"{a},{p},{c},{x}" for a, p, c, x in zip(plain, prices, counts, -amounts, strict=True)]
    (tmp_path / "t.csv").write_text("a,price,count,loss\n" + "\n".join(lines) + "\n", encoding="utf-8")
    found = {}
    for target in ("price", "count", "a", "loss"):
        path = tmp_path / f"{target}.toml"
        assert train("init", tmp_path / "t.csv", "--target", target, "-o", path).exit_code == 0
        found[target] = [line for line in path.read_text().splitlines() if "target_transform" in line]
    assert found["a"] == found["loss"] == found["count"] == []  # normal; negative; with zeros
    assert found["price"][0].startswith('# target_transform = "log"  # the target is skewed (')
    path = tmp_path / "price.toml"
    path.write_text(path.read_text().replace("# target_transform", "target_transform"))
    assert train("check", path).exit_code == 0


def test_init_hints_at_other_kinds_of_columns(train: Train, tmp_path: Path) -> None:
    lines = [
        f"{i},2025-0{i % 9 + 1}-{i % 28 + 1} 10:00,{i % 28 + 1}.{i % 12 + 1}.25,0{i * 37},{i}.5,"
        f'"{i},25",{"?" if i == 3 else "none" if i == 7 else i * i},{i % 3}kg,{("1st", "2nd")[i % 2]},{i * -5e4},'
        f"{i * 1.5}"
        for i in range(60)
    ]
    header = "row,sold on,built,postcode,size,worth,yards,weight,tier,debt,price"
    (tmp_path / "t.csv").write_text("\n".join([header, *lines]))
    assert train("init", tmp_path / "t.csv", "--target", "price").exit_code == 0
    text = (tmp_path / "t.toml").read_text()
    assert "#   row: left out: row numbers; to use it, add it to columns\n" in text
    for dates in ("sold on", "built"):
        assert re.search(rf"#   {dates}: date, \d+ distinct values, written like '", text)
    assert "#   postcode: left out: identifiers, 60 distinct values in 60 rows; to use it, add it to columns\n" in text
    assert "#   size: number, 0.5 to 59.5\n" in text
    assert "#   debt: number, −2,950,000 to 0\n" in text
    assert "#   worth: number, 0.25 to 59.25, written like '0,25'\n" in text
    assert "#   yards: number, 0 to 3481, 2 missing\n" in text
    assert "#   weight: number, 0 to 2, written like '0kg'\n" in text
    assert "#   tier: category, 2 distinct values\n" in text


@pytest.mark.parametrize(
    ("file", "content", "options", "expected"),
    [
        ("t.npz", "", [], "or .xlsx file; found .npz (start from examples/digits.toml)"),
        ("t.doc", "x\ty\n", [], "or .xlsx file; found .doc (docs/jobs.md shows"),
        ("t.parquet", "PAR1", [], "not a readable Parquet file"),
        ("t.csv", "x,y\n1,2\n2,3\n", ["-o", "job.txt"], "ends in .toml"),
        (
            "t.csv",
            "x,y\n1,2\n2,3\n",
            ["-o", "/nowhere/job.toml"],
            "/nowhere/job.toml: no such directory: /nowhere (create",
        ),
        ("t.csv", "", [], "the file is empty (add a header and rows"),
    ],
)
def test_init_rejects_what_it_cannot_use(
    train: Train, tmp_path: Path, file: str, content: str, options: list[str], expected: str
) -> None:
    (tmp_path / file).write_text(content)
    found = train("init", tmp_path / file, "--target", "y", *options)
    assert found.exit_code in (2, 3)
    assert expected in found.stderr


def test_init_writes_a_patience_that_can_end_the_training(train: Train, tmp_path: Path) -> None:
    lines = [f"{i % 97},{i % 7}" for i in range(50_000)]
    (tmp_path / "t.csv").write_text("\n".join(["a,y", *lines]))
    assert train("init", tmp_path / "t.csv", "--target", "y", "--fast").exit_code == 0
    text = (tmp_path / "t.toml").read_text()
    assert "\nepochs = 20\n" in text
    assert "\nearly_stopping = { patience = 5 }  # stop after 5 epochs without improvement" in text


@pytest.mark.parametrize("directory", [".", "..", "/", ""])
def test_init_says_that_a_directory_has_no_images(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str
) -> None:
    monkeypatch.setattr(image_folder, "_visible", lambda _: iter(()))  # the root of a machine may have some in /tmp
    found = train("init", directory, "--target", "y", "-o", tmp_path / "job.toml")
    assert found.exit_code == 3
    assert f"Error: {directory or '.'}/: expected a folder for each class with files .png, .jpg, .jpeg" in found.stderr


def test_init_names_what_a_target_of_integers_and_a_repeated_identifier_may_mean(train: Train, tmp_path: Path) -> None:
    rows = [f"P{i % 30},{i % 7}.5,{i % 4}" for i in range(120)]
    (tmp_path / "t.csv").write_text("\n".join(["patient_id,dose,visits", *rows]))
    found = train("init", tmp_path / "t.csv", "--target", " visits ")
    assert found.exit_code == 0, found.output
    text = (tmp_path / "t.toml").read_text()
    assert 'rows; write "regression" if they are counts or amounts, not classes\n' in text
    assert '# column = "patient_id"   # of the group or the time; a group is no input' in text
    assert "\nLeft out:\n  patient_id: identifies groups of rows, see [split]\n" in found.output
    assert 'columns = ["dose"]\n' in text


def test_rows_without_a_target_do_not_count_for_the_kinds_of_columns(train: Train, tmp_path: Path) -> None:
    """Of all rows, most times occur twice: a category. Of those with a target, most occur once: no category."""
    rows = [f"{i % 60}:00,{i},{i * 1.5 if i < 60 else ''}" for i in range(120)]
    (tmp_path / "t.csv").write_text("\n".join(["time,size,price", *rows]))
    found = train("init", tmp_path / "t.csv", "--target", "price")
    assert found.exit_code == 0, found.output
    assert train("check", tmp_path / "t.toml").exit_code == 0


@pytest.mark.parametrize(
    ("header", "rows", "expected"),
    [
        ("x,y", [], "the file has a header and no rows (add rows of data)"),
        ("x,y", ["1,2"], "the table has only one row of data (add rows)"),
        ("x,y", ["1,", "2,"], "column y: the target is missing in every row (choose another target)"),
        ("x,y", [f"{i},a" for i in range(30)], "column y: expected at least two classes, found only 'a'"),
        ("y", [f"{'ab'[i % 2]}" for i in range(30)], "data.columns: no input column is left (add input columns)"),
        ("x,y", [f",{'ab'[i % 2]}" for i in range(30)], "no column has a value in the training rows"),
        (
            "x,y",
            [f"{i % 3},{f'song {i}' if i % 4 else 'hymn'}" for i in range(80)],
            "column y: too many classes: 61 in 80 rows (choose another target, or give all rare classes one name)",
        ),
        (
            "x,y",
            [f"{i % 3},2024-{i % 12 + 1}-{i % 28 + 1}" for i in range(80)],
            "column y: expected numbers or classes, found 80 dates, such as '2024-1-1' (write numbers instead",
        ),
        (
            "x,y",
            [f"{i % 3},{'inf' if i % 4 else i}" for i in range(80)],
            "line 3, column y: expected a finite number, found 'inf'; 60 cells are like this (correct these cells",
        ),
        (
            "x,y",
            [f"{i % 3},{i + 0.5}{',9' * (i % 30 == 7)}" for i in range(80)],
            "line 9: expected 2 cells, as in the header, found 3 (put quotation marks around cells that contain a "
            "comma, or write long_rows = 'drop' in [data] to leave such rows out)",
        ),
        (
            "x,y",
            [f"{i % 3},{i + 0.5 if i % 20 else f'bad {i}'}" for i in range(80)],
            "line 2, column y: expected a finite number, found 'bad 0'; 4 cells are like this, also 'bad 20' in",
        ),
    ],
)  # fmt: skip
def test_init_writes_a_job_file_that_says_what_to_correct(
    train: Train, tmp_path: Path, header: str, rows: list[str], expected: str
) -> None:
    (tmp_path / "t.csv").write_text("\n".join([header, *rows]))
    found = train("init", tmp_path / "t.csv", "--target", "y")
    assert found.exit_code == 0, found.output
    assert "It cannot be trained yet:\n" in found.output
    assert expected in found.output
    text = (tmp_path / "t.toml").read_text()
    assert text.startswith("# To correct before training:\n#   ")
    assert expected in text
    refused = train(tmp_path / "t.toml", "--no-publish")
    assert refused.exit_code == 3
    assert len(rows) == 1 or expected in refused.output
    found = train("init", tmp_path / "t.csv", "--target", "y", "--force", "--json")
    assert json.loads(found.stdout)["faults"][0]["problem"].split(";")[0] in expected


@pytest.mark.parametrize("byte", [b"\xe9", b"\x81"], ids=["cp1252", "latin-1"])
def test_init_states_the_encoding_of_a_text_that_is_not_utf_8(train: Train, tmp_path: Path, byte: bytes) -> None:
    rows = [b"%d,caf%s,%d" % (i, byte, i % 2) for i in range(40)]
    (tmp_path / "t.csv").write_bytes(b"\n".join([b"x,place,y", *rows]))
    assert train("init", tmp_path / "t.csv", "--target", "y").exit_code == 0
    encoding = "cp1252" if byte == b"\xe9" else "latin-1"
    assert f'encoding = "{encoding}"\n' in (tmp_path / "t.toml").read_text()
    assert train("check", tmp_path / "t.toml").exit_code == 0


@pytest.mark.parametrize(
    ("name", "rows", "damaged", "expected"),
    [
        ("t.csv", ["x,y", *[f"{i},{i % 2}" for i in range(30)]], '5,"unclosed', "line 32: not CSV: unexpected end"),
        ("t.jsonl", [f'{{"x": {i}, "y": {i % 2}}}' for i in range(30)], '{"x": ', "line 31: not JSON: Expecting value"),
    ],
    ids=["csv", "jsonl"],
)
def test_init_writes_a_job_file_from_the_rows_before_damage(
    train: Train, tmp_path: Path, name: str, rows: list[str], damaged: str, expected: str
) -> None:
    (tmp_path / name).write_text("\n".join([*rows, damaged, "9,0"]))
    found = train("init", tmp_path / name, "--target", "y")
    assert found.exit_code == 0, found.output
    assert "classification of y from 1 column, 30 rows" in found.output
    assert f"It cannot be trained yet:\n  {expected}" in found.output
    refused = train(tmp_path / "t.toml", "--no-publish")
    assert refused.exit_code == 3
    assert expected in refused.output


def test_init_says_what_a_job_trains_and_leaves_out(train: Train, tmp_path: Path) -> None:
    rows = [f"{i},{'inf' if i in (5, 9) else i * 0.7},{i % 3}.5,,{i * 1.5}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["n,a,b,c,y", *rows]))
    found = train("init", tmp_path / "t.csv", "--target", "y")
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    assert lines[0].endswith("t.toml: regression of y from 1 column, 60 rows.")
    reasons = ["  n: row numbers", "  a: 2 infinite cells, such as 'inf' in line 7", "  c: empty"]
    assert lines[1:6] == ["Left out:", *reasons, "Review it, then run:"]
    hint = "#   a: left out: 2 infinite cells, such as 'inf' in line 7; to use it, correct or empty them, and add it"
    assert hint in (tmp_path / "t.toml").read_text()
    assert train("check", tmp_path / "t.toml").exit_code == 0


def test_init_says_which_cells_keep_a_column_from_being_dates(train: Train, tmp_path: Path) -> None:
    rows = [f"{'week 3' if i == 4 else f'2024-01-{i % 28 + 1:02}'},{i * 1.5}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["seen,price", *rows]))
    assert train("init", tmp_path / "t.csv", "--target", "price").exit_code == 0
    expected = "; dates except for some cells, such as 'week 3': empty these cells if they mean missing\n"
    assert f"#   seen: category, 29 distinct values{expected}" in (tmp_path / "t.toml").read_text()


def test_a_model_of_a_job_by_init_predicts_rows_with_gaps_that_no_training_row_has(
    train: Train, tmp_path: Path
) -> None:
    rows = [f"{i % 7}.5,{'uvw'[i % 3]},2024-0{i % 9 + 1}-11,{'ab'[i % 2]}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["size,shop,day,y", *rows]))
    assert train("init", tmp_path / "t.csv", "--target", "y").exit_code == 0
    settings = ("--set", "train.epochs=2", "--store", tmp_path / "models")
    assert train(tmp_path / "t.toml", *settings).exit_code == 0
    assert train(tmp_path / "t.toml", *settings, "--set", "data.optional=").exit_code == 0
    model, strict = (open_store(str(tmp_path / "models")).load("t", number)[1] for number in (1, 2))
    warnings: list[Fault] = []
    model.signature.encode([{"size": None, "shop": "", "day": None}], warnings=warnings)
    assert [warning.location for warning in warnings] == [f"instances.0.{name}" for name in ("size", "shop", "day")]
    with pytest.raises(InputError, match=r"instances\.1: expected the value of at least one column, found an empty"):
        model.signature.encode([{"shop": "u"}, {}])
    with pytest.raises(InputError, match=r"instances\.0\.size: expected a number, found none"):
        strict.signature.encode([{"size": None, "shop": "u", "day": "2024-01-11"}])


def test_init_skips_comments_above_the_header_and_takes_the_options_of_a_table(train: Train, tmp_path: Path) -> None:
    rows = "".join(f"{i % 9},{i * 0.5}\n" for i in range(60))
    (tmp_path / "a.csv").write_text("# device 7\n# exported today\nx,y\n" + rows)
    assert train("init", tmp_path / "a.csv", "--target", "y").exit_code == 0
    assert 'comment = "#"\n' in (tmp_path / "a.toml").read_text()
    (tmp_path / "b.csv").write_text("#x,y\n" + rows)  # no comment, but the name of a column
    assert train("init", tmp_path / "b.csv", "--target", "y").exit_code == 0
    assert "comment" not in (tmp_path / "b.toml").read_text().replace("# comment", "")
    (tmp_path / "c.csv").write_text("%note\nx\ty\n" + rows.replace(",", "\t"))
    assert train("init", tmp_path / "c.csv", "--target", "y", "--comment", "%", "--separator", "\\t").exit_code == 0
    text = (tmp_path / "c.toml").read_text()
    assert 'comment = "%"\n' in text
    assert 'separator = "\\t"\n' in text
    assert train(tmp_path / "c.toml", "--no-publish", "--set", "train.epochs=1").exit_code == 0


def test_init_names_the_columns_of_lists_that_it_leaves_out(train: Train, tmp_path: Path) -> None:
    users = [{"age": i % 13, "home": {"town": "ab"[i % 2]}} for i in range(60)]
    rows = [{"x": i % 9, "tags": ["a"], "user": user, "y": i * 0.5} for i, user in enumerate(users)]
    lines = map(json.dumps, rows)
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    found = train("init", tmp_path / "t.jsonl", "--target", "y")
    assert "  tags: lists, structures, bytes or the index of pandas" in found.stdout
    text = (tmp_path / "t.toml").read_text()
    assert "#   tags: left out: lists, structures, bytes or the index of pandas; to use it, write a column for" in text
    assert 'columns = ["x", "user.age", "user.home.town"]' in text
