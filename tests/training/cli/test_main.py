"""The `train` command: what it prints, what it publishes, and its exit codes."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from pyarrow import csv, parquet

from model_store.cli.main import main as models
from model_store.errors import StoreError
from model_store.registry.store import Store, open_store
from service.app import create_app
from service.cli import main as serve
from service.config import Settings
from training.cli import scaffold
from training.errors import JobError

Train = Callable[..., Result]


def store(job_file: Path) -> Path:
    return job_file.parent / "models"


def test_help_shows_the_options_of_a_run_and_the_commands(train: Train) -> None:
    found = train("--help")
    assert found.exit_code == 0
    for word in ("FILE", "--set", "--seed", "--no-publish", "--store", "--version", "check", "init", "Exit codes"):
        assert word in found.output
    assert "--no-publish" in train("x.toml", "--help").output


def test_every_command_tells_its_version_and_knows_the_short_word_for_help(train: Train) -> None:
    for told in (train("--version"), CliRunner().invoke(models, "--version"), CliRunner().invoke(serve, "--version")):
        assert (told.exit_code, told.output) == (0, "forward-pass, version 0.1.0\n")
    assert train("-h").output == train("--help").output
    assert "..." not in CliRunner().invoke(models, "-h", terminal_width=80).output.partition("Commands:")[2]


def test_a_table_in_place_of_a_job_is_sent_to_init(train: Train, job_file: Path) -> None:
    found = train(job_file.with_suffix(".csv"))
    assert found.exit_code == 2
    assert "flowers.csv --target COLUMN writes one for this table" in found.stderr


def test_many_rows_are_counted_with_their_thousands_apart(train: Train, job_file: Path) -> None:
    rows = "".join(f"{i},{'ab'[i % 2]}\n" for i in range(20_000))
    job_file.with_suffix(".csv").write_text(f"a,kind\n{rows}", encoding="utf-8")
    job_file.write_text('[model]\nname = "ab"\n[data]\npath = "flowers.csv"\ntarget = "kind"\n[split]\ntest = 0.6\n')
    found = train(job_file, "--set", "train.epochs=1")
    assert "20,000 rows (6000 to learn from, 2000 to validate with, 12,000 held out)" in found.stdout
    assert "of 12,000 test rows are right" in found.stdout
    settings = Settings(store=str(store(job_file)), cache_dir=str(job_file.parent / "cache"), poll_seconds=0)
    assert "of 12,000 test rows" in create_app(settings).test_client().get("/docs").text


def test_the_report_that_is_made_again_is_the_one_that_training_left(train: Train, job_file: Path) -> None:
    rows = "".join(f"{i},{i % 7},{-i}\n" for i in range(40))
    job_file.with_suffix(".csv").write_text(f"a,up,down\n{rows}", encoding="utf-8")
    job_file.write_text(
        '[model]\nname = "lift"\n[data]\npath = "flowers.csv"\ntask = "regression"\ntarget = ["up", "down"]\n'
    )
    assert train(job_file, "--set", "train.epochs=1").exit_code == 0
    again = CliRunner().invoke(models, ["report", "lift", "-o", "-", "--store", str(store(job_file))])
    assert again.stdout == (store(job_file) / "lift" / "1.html").read_text(encoding="utf-8")
    assert again.stdout.index("up: errors") < again.stdout.index("down: errors")


@pytest.mark.parametrize("name", ["images.npz", "flights.parquet"])
def test_data_in_place_of_a_job_are_told_to_be_named_in_one(train: Train, tmp_path: Path, name: str) -> None:
    data = tmp_path / name
    data.write_bytes(b"PK\x03\x04\xff")
    found = train(data)
    assert found.exit_code == 2
    assert f"{name}: expected a job file in TOML, found" in found.stderr
    assert "(write one that names it: [data] path = ...)" in found.stderr


def test_a_command_that_is_misspelt_is_told_the_one_that_was_meant(train: Train, job_file: Path) -> None:
    found = train("chek", job_file)
    assert found.exit_code == 2
    assert "chek: no such command and no such file; did you mean 'check'?" in found.stderr


def test_a_run_ends_with_metrics_a_baseline_what_was_published_and_how_to_use_it(train: Train, job_file: Path) -> None:
    found = train(job_file)
    assert found.exit_code == 0, found.output
    for words in (
        "flowers: 40 rows (28 to learn from, 4 to validate with, 8 held out) of flowers.csv",
        "note: task: classification, inferred from the target",
        "precision",
        "recall",
        "Accuracy",
        "of 8 test rows are right",
        "The baseline, always answering",
        "Published flowers, version 1:",
        "digest",
        f"serve --store {store(job_file)}",
        'curl http://127.0.0.1:8000/predict -d \'{"model": "flowers"',
        "models predict flowers --row",
    ):
        assert words in found.stdout
    assert open_store(store(job_file)).versions("flowers") == [1]


def test_large_errors_are_written_out_on_the_terminal_and_on_the_page(train: Train, job_file: Path) -> None:
    rows = "".join(f"{i},{300_000 * (i % 2)}\n" for i in range(40))
    job_file.with_suffix(".csv").write_text(f"a,price\n{rows}", encoding="utf-8")
    job_file.write_text(
        '[model]\nname = "houses"\n[data]\npath = "flowers.csv"\ntarget = "price"\ntask = "regression"\n'
    )
    found = train(job_file, "--set", "train.epochs=1")
    assert re.search(r"price +\d\d\d,\d\d\d +\d\d\d,\d\d\d +-?\d", found.stdout), found.output
    assert "e+0" not in found.stdout
    settings = Settings(store=str(store(job_file)), cache_dir=str(job_file.parent / "cache"), poll_seconds=0)
    page = create_app(settings).test_client().get("/docs").text
    assert len(re.findall(r"<td[^>]*>\d\d\d,\d\d\d</td>", page)) == 4  # RMSE and MAE, and those of the baseline
    assert re.findall(r'<th scope="col">(RMSE|MAE|R²)</th>', page) == ["RMSE", "MAE", "R²"]
    assert "The baseline always answers the training rows" in page
    shown = CliRunner().invoke(models, ["show", "houses", "--store", str(store(job_file))])
    assert re.search(r"price +\d\d\d,\d\d\d", shown.stdout)
    answered = CliRunner().invoke(models, ["predict", "houses", "--row", "[1]", "--store", str(store(job_file))])
    assert re.search(r" 0 +-?\d{5,}(\.\d)?\n", answered.stdout)  # as other programs read it
    assert "e+0" not in shown.stdout


def test_a_model_far_worse_than_the_mean_has_a_short_r2(train: Train, job_file: Path) -> None:
    lines = [f"{1e12 if i == 50 else i % 7},red,{i / 100}" for i in range(300)]
    (job_file.parent / "flowers.csv").write_text("\n".join(["length,colour,kind", *lines]))
    found = train(job_file, "--no-publish", "--set", "network.layers=[]")
    assert re.search(r"^kind .* −[\d.]+ × 10\S+ *$", found.stdout, re.MULTILINE), found.stdout


def test_a_row_too_long_for_a_line_is_fetched_from_the_service(train: Train, job_file: Path) -> None:
    values = np.arange(1600.0).reshape(8, 200)
    np.savez(job_file.with_suffix(".npz"), x=values, y=values[:, 0])
    job_file.write_text('[model]\nname = "long"\n[data]\npath = "flowers.npz"\n[split]\ntest = 0\nvalidation = 0\n')
    found = train(job_file, "--set", "train.epochs=1")
    model = "http://127.0.0.1:8000/models/long"
    assert f"  curl -s {model}/example | curl {model}/predict -d @-\n" in found.stdout, found.output


def test_a_report_lies_beside_the_version(train: Train, job_file: Path) -> None:
    page = store(job_file) / "flowers" / "1.html"
    assert f"report {page}" in train(job_file).stdout
    text = page.read_text(encoding="utf-8")
    for words in ("flowers", "Confusion matrix", "Reliability", "ROC curve", "colour", "of 8 test rows"):
        assert words in text
    assert json.loads(train(job_file, "--json").stdout)["published"]["report"] == str(page.with_name("2.html"))
    again = page.with_name("2.html").read_text(encoding="utf-8")
    assert again == text.replace("version 1<", "version 2<").replace("flowers/1", "flowers/2")


def test_a_report_that_cannot_be_written_is_told_with_what_was_published(
    train: Train, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise StoreError("1.html: cannot write a report: No space left on device; free some space")

    monkeypatch.setattr(Store, "add_report", broken)
    found = train(job_file)
    assert found.exit_code == 5
    assert "flowers/1 is published, but not its report: 1.html: cannot write" in found.stderr
    assert open_store(store(job_file)).versions("flowers") == [1]


def test_each_epoch_is_a_line_when_nobody_watches(train: Train, job_file: Path) -> None:
    lines = [line for line in train(job_file).stdout.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all("validation loss" in line for line in lines)


@pytest.mark.parametrize(("options", "shown"), [([], True), (["-q"], False)])
def test_a_terminal_is_told_what_is_read(job_file: Path, options: list[str], shown: bool) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "training", "check", str(job_file), *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "TERM": "xterm"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        said = b""
        with suppress(OSError):  # of a terminal that nobody writes to any more
            while part := os.read(ours, 4096):
                said += part
    os.close(ours)
    assert process.returncode == 0
    assert (b"Reading flowers.csv" in said) is shown
    assert b"40 rows" in said


def test_a_training_that_went_past_its_best_is_told_of_early_stopping(train: Train, job_file: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{rng.random()},red,{'ab'[rng.integers(2)]}" for _ in range(90)]
    (job_file.parent / "flowers.csv").write_text("\n".join(["length,colour,kind", *lines]))
    options = ["--no-publish", "--set", "network.layers=[64, 'relu', 64, 'relu']", "--set", "train.epochs=300"]
    found = train(job_file, *options)
    expected = r"300 epochs\.\nIn epoch \d+ the validation loss was [\d.]+, at the end it is [\d.]+: early_stopping = "
    assert re.search(expected, found.stdout), found.stdout
    found = train(job_file, *options, "--set", "train.early_stopping={ patience = 300 }")
    assert "the validation loss was" not in found.stdout
    assert "the validation loss was" not in train(job_file, "--no-publish").stdout


def test_quiet_leaves_progress_out_and_verbose_adds_the_plan(train: Train, job_file: Path) -> None:
    quiet = train(job_file, "-q").stdout
    assert "epoch " not in quiet
    assert "Published" in quiet
    assert "Linear" in train(job_file, "-v").stdout


def test_json_is_all_there_is_on_standard_output(train: Train, job_file: Path) -> None:
    found = train(job_file, "--json")
    answer = json.loads(found.stdout)
    assert answer["model"] == "flowers"
    assert answer["published"]["version"] == 1
    assert 0 <= answer["metrics"]["accuracy"] <= 1
    assert "epoch 1/3" in found.stderr


def test_no_publish_leaves_no_trace(train: Train, job_file: Path) -> None:
    found = train(job_file, "--no-publish")
    assert found.exit_code == 0
    assert "Not published." in found.stdout
    assert not store(job_file).exists()


def test_overrides_count(train: Train, job_file: Path) -> None:
    found = train(job_file, "--set", "train.epochs=5", "--set", "network.layers=[3]", "--seed", 4, "--json")
    assert json.loads(found.stdout)["epochs"] == 5
    _, model = open_store(store(job_file)).load("flowers")
    assert model.training["job"]["train"]["seed"] == 4
    assert model.training["job"]["network"]["layers"] == [3]


def test_the_alias_moves_to_the_new_version(train: Train, job_file: Path) -> None:
    for number in (1, 2):
        found = train(job_file, "--set", "publish.alias=champion")
        assert "The alias champion points to it." in found.stdout
        assert open_store(store(job_file)).aliases("flowers") == {"champion": number}
    assert "flowers.toml" in open_store(store(job_file)).history("flowers", "champion")[0].why


def test_exit_code_2_is_for_usage_and_job_files(train: Train, job_file: Path) -> None:
    for arguments in (
        ["--nope"],
        [],
        ["check"],
        [job_file.parent / "nope.toml"],
        [job_file, "--set", "epochs"],
        [job_file, "--set", "train.epochs=0"],
        [job_file, "--seed", "x"],
        [job_file, "--set", "network.output=relu"],
    ):
        assert train(*arguments).exit_code == 2, arguments


def test_exit_code_3_is_for_data(train: Train, job_file: Path) -> None:
    found = train(job_file, "--set", "data.target=knd")
    assert found.exit_code == 3
    assert "did you mean 'kind'?" in found.stderr
    (job_file.parent / "flowers.csv").unlink()
    found = train(job_file)
    assert found.exit_code == 3
    assert "no such file" in found.stderr


def test_exit_code_4_is_for_divergence_with_what_to_try_and_nothing_published(train: Train, job_file: Path) -> None:
    found = train(
        job_file, "--set", "train.learning_rate=1e30", "--set", "train.loss=mse", "--set", "data.target=length",
        "--set", "data.task=regression", "--set", "data.columns=['colour']",
    )  # fmt: skip
    assert found.exit_code == 4, found.output
    assert "in epoch 1, step " in found.stderr
    assert "--set train.learning_rate=1e+29" in found.stderr
    assert "Nothing is published" in found.stderr
    assert not store(job_file).exists()


def test_exit_code_5_is_for_the_store(train: Train, job_file: Path) -> None:
    store(job_file).write_text("a file")
    found = train(job_file)
    assert found.exit_code == 5, found.output
    assert "cannot publish" in found.stderr


def test_errors_show_no_traceback(train: Train, job_file: Path) -> None:
    assert "Traceback" not in train(job_file, "--set", "data.target=knd").output


def test_check_shows_the_plan_and_trains_nothing(train: Train, job_file: Path) -> None:
    found = train("check", job_file)
    assert found.exit_code == 0, found.output
    for words in (
        "length  number",
        "colour  category",
        "lily 20, rose 20",
        "4 -> 4",
        "30 parameters",
        "28 to learn from",
    ):
        assert words in found.stdout
    assert "epoch" not in found.stdout
    assert not store(job_file).exists()
    answer = json.loads(train("check", job_file, "--json").stdout)
    assert answer["split"] == {"training": 28, "validation": 4, "test": 8}
    assert [column["missing"] for column in answer["columns"]] == [1, 1]
    assert train("check", job_file, "--set", "data.target=knd").exit_code == 3


def test_a_job_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.toml"
    scaffold.write(path, "old")
    with pytest.raises(JobError, match=r"is there already \(--force replaces it"):
        scaffold.write(path, "new")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    for target in (path, tmp_path / "b.toml"):
        with pytest.raises(JobError, match=r"cannot be written: No space left on device"):
            scaffold.write(target, "new", force=True)
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("a.toml", "old")]


def test_init_writes_a_job_that_checks_and_trains(train: Train, job_file: Path) -> None:
    job_file.unlink()
    table = job_file.with_suffix(".csv")
    found = train("init", table, "--target", "kind")
    assert found.exit_code == 0, found.output
    text = job_file.read_text()
    assert "#   length: number, 0.5 to 29.5, 1 missing" in text
    assert "#   colour: category, 3 different texts, 1 missing" in text
    assert train("check", job_file).exit_code == 0
    assert train(job_file, "--set", "train.epochs=2").exit_code == 0
    assert open_store(store(job_file)).names() == ["flowers"]


def test_init_never_replaces_a_file_unless_forced(train: Train, job_file: Path) -> None:
    before = job_file.read_text()
    found = train("init", job_file.with_suffix(".csv"), "--target", "kind")
    assert found.exit_code == 2
    assert "--force" in found.stderr
    assert job_file.read_text() == before
    assert train("init", job_file.with_suffix(".csv"), "--target", "kind", "--force").exit_code == 0
    assert job_file.read_text() != before


def test_init_asks_for_the_target_by_listing_the_columns(train: Train, job_file: Path) -> None:
    found = train("init", job_file.with_suffix(".csv"))
    assert found.exit_code == 2
    assert "length, colour, kind" in found.stderr
    found = train("init", job_file.with_suffix(".csv"), "--target", "knd")
    assert found.exit_code == 3
    assert "did you mean 'kind'?" in found.stderr


def test_init_leaves_ids_and_constants_out(train: Train, tmp_path: Path) -> None:
    rows = "".join(f"name {i},same,{i},,{i % 7 + 0.5}\n" for i in range(60))
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
    assert "id: left out, 60 different texts" in text
    assert train(job, "--set", "train.epochs=2").exit_code == 0


@pytest.mark.parametrize("rows", [4, 19, 21, 100])
@pytest.mark.parametrize("classes", [2, 3])
def test_init_suits_tables_of_any_size(train: Train, tmp_path: Path, rows: int, classes: int) -> None:
    table = 'x,"odd ""name""\n#",y\n' + "".join(f"{i},{i % 3}z,{'abc'[i % classes]}\n" for i in range(rows))
    (tmp_path / "t.csv").write_text(table)
    found = train("init", tmp_path / "t.csv", "--target", "y")
    assert found.exit_code == 0, found.output
    found = train(tmp_path / "t.toml", "--set", "train.epochs=1")
    assert found.exit_code == 0, found.output


def test_of_many_classes_those_least_known_are_shown_and_none_without_rows_gets_a_grade(
    train: Train, job_file: Path
) -> None:
    lines = [f"{i % 40},red,k{i % 40}" for i in range(400)] + ["3.5,red,alone"]
    (job_file.parent / "flowers.csv").write_text("\n".join(["length,colour,kind", *lines]))
    found = train(job_file, "--no-publish")
    assert "The 30 of 41 classes with the lowest F1; --json has all." in found.stdout
    assert "alone" not in found.stdout.split("kind")[-1]
    lines = lines[-1:] + [f"{i % 10 + 20 * (i % 2)},red,{'ab'[i % 2]}" for i in range(60)]
    (job_file.parent / "flowers.csv").write_text("\n".join(["length,colour,kind", *lines]))
    found = train(job_file)
    assert re.search(r"^alone +- +- +- +0 *$", found.stdout, re.MULTILINE)
    page = (job_file.parent / "models" / "flowers" / "1.html").read_text(encoding="utf-8")
    assert re.search(r"<th[^>]*>alone</th>(<td[^>]*>–</td>){3}<td[^>]*>0</td>", page)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_init_loads_no_table_that_is_streamed(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A CSV of 303 MB took init 2.7 GB and 57 s, and one of 3 GB all the memory there is."""
    monkeypatch.setattr("training.data.streaming.dataset.STREAM_BYTES", 1000)
    monkeypatch.delattr("training.data.readers.read_csv")
    monkeypatch.setattr("training.data.streaming.table_reader.HEAD", 200)
    content = pa.table({"size": np.arange(900.0), "id": [f"n{i}" for i in range(900)], "y": ["u", "v"] * 450})
    (csv.write_csv if kind == "csv" else parquet.write_table)(content, tmp_path / f"t.{kind}")
    found = train("init", tmp_path / f"t.{kind}", "--target", "y")
    assert found.exit_code == 0, found.output
    text = (tmp_path / "t.toml").read_text()
    assert "the target has 2 different values in the first 200 rows" in text
    assert 'columns = ["size"]' in text
    assert train(tmp_path / "t.toml", "--no-publish").exit_code == 0


def test_the_job_that_init_writes_learns_a_small_table_of_skewed_numbers(train: Train, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    x = rng.lognormal(0, 1.5, (20, 3)).round(2)
    lines = [",".join(map(str, [*row, answer])) for row, answer in zip(x, (x @ [3, -2, 1]).round(2), strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,y", *lines]))
    assert train("init", tmp_path / "t.csv", "--target", "y").exit_code == 0
    found = train(tmp_path / "t.toml", "--no-publish")
    assert found.exit_code == 0, found.output
    assert train(tmp_path / "t.toml", "--no-publish", "--set", "train.clip_norm=").exit_code == 4


def test_init_says_what_a_column_may_be_instead(train: Train, tmp_path: Path) -> None:
    lines = [
        f"{i},2025-0{i % 9 + 1}-{i % 28 + 1} 10:00,{i % 28 + 1}.{i % 12 + 1}.25,0{i * 37},{i}.5,"
        f'"{i},25",{"?" if i == 3 else "none" if i == 7 else i * i},{i % 3}kg,{"ab"[i % 2]},{i * -5e4},{i * 1.5}'
        for i in range(60)
    ]
    header = "row,sold on,built,postcode,size,worth,yards,weight,letter,debt,price"
    (tmp_path / "t.csv").write_text("\n".join([header, *lines]))
    assert train("init", tmp_path / "t.csv", "--target", "price").exit_code == 0
    text = (tmp_path / "t.toml").read_text()
    assert "#   row: number, 0 to 59; the number of the row? Then leave it out\n" in text
    for dates in ("sold on", "built"):
        assert re.search(rf"#   {dates}: left out, \d+ different texts are no categories; dates: write what", text)
    assert "#   postcode: number, 0 to 2183; a code, as 00 begins with 0? Then it is a category\n" in text
    assert "#   size: number, 0.5 to 59.5\n" in text
    assert "#   debt: number, −2,950,000 to 0\n" in text
    assert (
        "#   worth: left out, 60 different texts are no categories; numbers, if '0,25' is written with a point" in text
    )
    assert "no categories; numbers but for 1, such as 'none': empty those cells if they are missing\n" in text
    assert "#   weight: category, 3 different texts; numbers, if '0kg' is written with a point alone" in text
    assert "#   letter: category, 2 different texts\n" in text


@pytest.mark.parametrize(
    ("file", "content", "options", "expected"),
    [
        ("t.npz", "", [], "expected a .csv or .parquet file; found .npz (start from examples/digits.toml)"),
        ("t.tsv", "x\ty\n", [], "expected a .csv or .parquet file; found .tsv (docs/jobs.md shows"),
        ("t.parquet", "PAR1", [], "not a Parquet file that can be read"),
        ("t.csv", "x,y\n1,2\n2,3\n", ["-o", "job.txt"], "ending in .toml"),
        ("t.csv", "x,y\n1,2\n", [], "there is one row of data (add rows"),
        (
            "t.csv",
            "x,y\n" + "".join(f"{i},{i}\n" for i in range(99)) + "1,inf\n",
            [],
            "line 101, column y: expected a num",
        ),
    ],
)
def test_init_says_what_it_cannot_do(
    train: Train, tmp_path: Path, file: str, content: str, options: list[str], expected: str
) -> None:
    (tmp_path / file).write_text(content)
    found = train("init", tmp_path / file, "--target", "y", *options)
    assert found.exit_code in (2, 3)
    assert expected in found.stderr


def test_the_command_runs_as_a_module_in_a_process_of_its_own(job_file: Path) -> None:
    root = Path(__file__).parents[3]
    found = subprocess.run(
        [sys.executable, "-m", "training", job_file.name, "--store", "shelf", "--set", "train.epochs=2"],
        cwd=job_file.parent,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "epoch 2/2" in found.stdout
    assert "serve --store shelf" in found.stdout
    assert not found.stderr
    assert (job_file.parent / "shelf" / "flowers" / "1.npz").is_file()
