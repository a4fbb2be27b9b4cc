"""The schema of job files: valid keys and values, and the faults of others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from model_store.utils.toml import parse_toml
from training.config.schema import SECTION_SCHEMAS
from training.config.settings import EarlyStoppingSection
from training.config.train_schema import EarlyStoppingSchema, ScheduleSchema
from training.errors import JobError
from training.pipeline.job import from_dict, load

MINIMAL: dict[str, Any] = {"model": {"name": "m"}, "data": {"path": "d.csv", "target": "t"}}


def faults(**sections: dict[str, Any]) -> dict[str, str]:
    """Return the faults of the minimal job with these sections changed, by location."""
    job = {**MINIMAL, **{name: {**MINIMAL.get(name, {}), **keys} for name, keys in sections.items()}}
    with pytest.raises(JobError) as caught:
        from_dict(job, Path())
    return {fault.location: f"{fault.problem} ({fault.fix})" for fault in caught.value.faults}


def test_a_minimal_job_gets_the_documented_defaults() -> None:
    settings = from_dict(MINIMAL, Path()).settings
    assert (settings.split.test, settings.split.validation) == (0.2, 0.1)
    assert (settings.train.learning_rate, settings.train.momentum) == (0.01, 0.9)
    assert (settings.train.epochs, settings.train.batch_size, settings.train.seed) == (100, 32, 0)
    assert settings.train.early_stopping is None
    assert (settings.data.missing, settings.data.unknown, settings.data.scale) == ("impute", "bucket", "standard")


def test_early_stopping_has_its_own_defaults() -> None:
    job = from_dict({**MINIMAL, "train": {"early_stopping": {}}}, Path())
    assert job.settings.train.early_stopping == EarlyStoppingSection(patience=20, min_delta=0.0)


def test_all_faults_of_a_job_are_reported_at_once_in_file_order() -> None:
    found = faults(
        data={"task": "classfication", "kinds": {"year": "categry"}},
        split={"test": 0.7, "validation": 0.6},
        network={"layers": [16, "tanj", 0], "output": "linear"},
        train={"learning_rat": 0.1, "epochs": "50", "early_stopping": {"patience": 0}},
        publsh={"alias": "x"},
    )
    assert list(found) == [
        "data.task",
        "data.kinds.year",
        "split.validation",
        "network.layers.1",
        "network.layers.2",
        "network.output",
        "train.learning_rat",
        "train.epochs",
        "train.early_stopping.patience",
        "publsh",
    ]
    assert found["data.task"] == (
        "expected one of 'classification', 'regression', 'multi_label', "
        "found 'classfication' (did you mean 'classification'?)"
    )
    assert "did you mean 'tanh'?" in found["network.layers.1"]
    assert found["train.learning_rat"] == "unknown key (did you mean 'learning_rate'?)"
    assert "write 50 without quotes" in found["train.epochs"]
    assert "did you mean 'publish'?" in found["publsh"]


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("model", "name", "a b", "expected a name of letters"),
        ("model", "name", "", "expected a name of letters"),
        ("model", "description", 3, "expected text, found 3"),
        ("data", "target", [], "expected a column name"),
        ("data", "target", ["a", "a"], "'a' is listed twice"),
        ("data", "columns", "a", "expected a list of column names"),
        ("data", "columns", ["a", "t"], "'t' is the target"),
        ("data", "columns", ["a", "a"], "'a' is listed twice"),
        ("data", "kinds", "category", "expected a table"),
        (
            "data",
            "path",
            "d.doc",
            "expected a .csv, .tsv, .txt, .jsonl (each also with .gz), .parquet, ",
        ),
        ("data", "separator", ";;", "expected one character, such as ';'"),
        ("data", "decimal", ";", "expected '.' or ','"),
        ("data", "encoding", "rot13", "expected the name of a text encoding"),
        ("data", "comment", "", "expected one character, such as '#'"),
        ("data", "sheet", 1, "expected the name of a sheet"),
        ("data", "path", 3, "expected the path of a file"),
        ("data", "missing", "drop", "expected one of 'impute', 'refuse'"),
        ("split", "test", 1.0, "expected a fraction"),
        ("split", "test", -0.1, "expected a fraction"),
        ("split", "test", True, "found true"),
        ("split", "test", "0.1", "write 0.1 without quotes"),
        ("network", "layers", 16, "expected a list such as"),
        ("network", "layers", [True], "found true"),
        ("network", "dtype", "float16", "did you mean"),
        ("network", "initializer", "he", "expected one of"),
        ("train", "loss", "crossentropy", "did you mean 'cross_entropy'?"),
        ("train", "optimizer", "adan", "did you mean 'adam'?"),
        ("train", "beta1", 0.9, "only for 'adam', 'adamw', found the optimizer 'sgd' (remove it)"),
        ("train", "nesterov", 1, "expected true or false"),
        ("train", "class_weights", "balance", "did you mean 'balanced'?"),
        ("train", "class_weights", {}, "a table such as"),
        ("train", "weight_decay", -1, "a number of at least 0"),
        ("train", "clip_norm", 0, "a number above 0"),
        ("train", "schedule", 3, "expected a table of keys"),
        ("train", "learning_rate", 0, "expected a number above 0"),
        ("train", "learning_rate", float("nan"), "expected a number above 0"),
        ("train", "momentum", 1, "from 0 to below 1"),
        ("train", "epochs", 1.5, "expected an integer"),
        ("train", "epochs", 0, "of at least 1"),
        ("train", "batch_size", 0, "or 'all'"),
        ("train", "seed", -1, "of at least 0"),
        ("train", "threads", 0, "from 1 to 1024"),
        ("train", "early_stopping", True, "expected a table of keys"),
        ("publish", "alias", "latest", "neither a number nor 'latest'"),
        ("publish", "alias", "3", "neither a number nor 'latest'"),
        ("network", "learning_rate", 0.1, "it belongs in [train]"),
    ],
)
def test_an_invalid_value_is_one_fault_at_its_location(section: str, key: str, value: Any, expected: str) -> None:
    found = faults(**{section: {key: value}})
    (location,) = found
    assert location in {f"{section}.{key}", f"{section}.{key}.0"}
    assert expected in found[location]


def test_defaults_depend_on_the_optimizer() -> None:
    train = from_dict({**MINIMAL, "train": {"optimizer": "adamw", "beta2": 0.99}}, Path()).settings.as_dict()["train"]
    chosen = {key: train.get(key) for key in ("learning_rate", "momentum", "beta1", "beta2", "weight_decay")}
    assert chosen == {"learning_rate": 0.001, "momentum": None, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.01}


@pytest.mark.parametrize(
    ("train", "location", "expected"),
    [
        ({"optimizer": "adam", "momentum": 0.5}, "train.momentum", "only for 'sgd', 'rmsprop', found"),
        ({"momentum": 0, "nesterov": True}, "train.nesterov", "expected a momentum above 0"),
        ({"schedule": "cosin"}, "train.schedule.name", "did you mean 'cosine'?"),
        ({"schedule": {}}, "train.schedule.name", "missing; expected one of"),
        (
            {"schedule": {"name": "step", "rise_fraction": 1 / 3}},
            "train.schedule.rise_fraction",
            "only for 'one_cycle',",
        ),
        ({"schedule": {"name": "step", "epoch": 3}}, "train.schedule.epoch", "did you mean 'epochs'?"),
        ({"schedule": {"name": "plateau", "decay": 1}}, "train.schedule.decay", "above 0, below 1"),
        ({"schedule": {"name": "cosine", "warm_up": 0}}, "train.schedule.warm_up", "a number above 0"),
    ],
)
def test_conflicting_keys_of_train_are_reported(train: dict[str, Any], location: str, expected: str) -> None:
    found = faults(train=train)
    assert list(found) == [location]
    assert expected in found[location]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rest", "cooldown"),
        ("lowest", "min_factor"),
        ("rise", "rise_fraction"),
        ("first", "initial_factor"),
        ("last", "final_factor"),
    ],
)
def test_a_renamed_key_is_an_error_that_names_the_new_key(old: str, new: str) -> None:
    found = faults(train={"schedule": {"name": "plateau", old: 0.5}})
    assert found == {f"train.schedule.{old}": f"unknown key (rename it to '{new}')"}
    assert new in ScheduleSchema().fields


def test_a_schedule_may_be_only_a_name() -> None:
    by_name, by_table = (
        from_dict({**MINIMAL, "train": {"schedule": value}}, Path()).settings
        for value in ("cosine", {"name": "cosine"})
    )
    assert by_name == by_table
    assert by_name.as_dict()["train"]["schedule"] == {"name": "cosine"}


@pytest.mark.parametrize(
    ("data", "location", "expected"),
    [
        ({}, "data.path", "missing"),
        ({"path": "a.csv"}, "data.target", "missing; expected the column to predict"),
        ({"images": "i"}, "data.labels", "the IDX file for 'images'"),
        ({"labels": "i"}, "data.images", "the IDX file for 'labels'"),
        ({"path": "a.npz", "images": "i", "labels": "l"}, "data.path", "found both"),
        ({"path": "a.npz", "columns": ["a"]}, "data.columns", "only tables have named columns"),
        ({"images": "i", "labels": "l", "kinds": {"a": "number"}}, "data.kinds", "only tables"),
        ({"path": "a.csv", "target": ["a", "b"], "task": "classification"}, "data.target", "expected one column"),
    ],
)
def test_conflicting_keys_of_data_are_reported(data: dict[str, Any], location: str, expected: str) -> None:
    with pytest.raises(JobError) as caught:
        from_dict({"model": {"name": "m"}, "data": data}, Path())
    assert [(fault.location, expected in fault.problem) for fault in caught.value.faults] == [(location, True)]


@pytest.mark.parametrize("job", [{}, {"model": 3, "data": []}])
def test_missing_and_invalid_sections_are_reported(job: dict[str, Any]) -> None:
    with pytest.raises(JobError) as caught:
        from_dict(job, Path())
    assert [fault.location for fault in caught.value.faults] == ["model", "data"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[model]\nname = penguins\n", "line 2, column 8: not TOML"),
        ("[model]\nname = penguins\n", "put quotes around text"),
        ("a = 1\na = 2\n", "line 2"),
        ('name = "x', "line 1, column 10"),
        (b"name = '\xff'\n", "line 1: expected text in UTF-8"),
        (b"\xef\xbb\xbf[model]\nname = penguins\n", "line 2, column 8: not TOML"),
        (b"\xef\xbb\xbfx y\n", "line 1, column 3: not TOML"),
        ("[model]\n".encode("utf-16"), "expected text in UTF-8, found UTF-16 (save the file as UTF-8)"),
        ("[model]\n".encode("utf-16-be"), "expected text in UTF-8, found UTF-16 (save the file as UTF-8)"),
    ],
)
def test_invalid_toml_is_reported_with_line_and_column(tmp_path: Path, text: str | bytes, expected: str) -> None:
    path = tmp_path / "job.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(JobError) as caught:
        load(path)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1\nx = " + "[" * 20_000, "line 2: expected at most 32 tables and lists in each other, found more"),
        ("x = " + "{a=" * 20_000, "line 1: expected at most 32 tables and lists in each other"),
        ("[train]\nx = " + "[" * 100 + "]" * 100, "train: expected at most 32 tables and lists in each other"),
        ("[" + ".".join("a" * 40) + "]\nb = 1", "a: expected at most 32 tables and lists in each other"),
        ("[train]\nseed = " + "1" * 5_000, "line 2: expected an integer of at most 64 bits, found a longer one"),
        ("a = 1\n" + "a." * 6_000 + "a = 1", "line 2: expected keys of few parts"),
        ("a = 1\n" + "'a' . " * 6_000 + "a = 1", "line 2: expected keys of few parts"),
        ("a = 1\n" + '","."="."{".' * 2_000 + "a = 1", "line 2: expected keys of few parts"),
        ("\n".join(f"b{i}." + "a." * 100 + "a = 1" for i in range(5_000)), "line 2941: expected keys of few parts"),
        ("#" * ((8 << 20) + 1), "expected at most 8 MiB, found more"),
    ],
)
def test_a_job_file_that_takes_long_to_parse_is_rejected(tmp_path: Path, text: str, expected: str) -> None:
    """Deep nesting and long integers were reported as a bug; 20,000 parts of a key took 4 s, and 200,000 minutes."""
    path = tmp_path / "job.toml"
    path.write_text(text)
    with pytest.raises(JobError) as caught:
        load(path)
    assert expected in str(caught.value)


def test_a_list_of_many_dotted_names_is_read() -> None:
    names = [f"sensor.{i}" for i in range(20_000)]
    assert parse_toml(f"columns = {names}\nrates = {[0.5] * 20_000}")["columns"] == names


def test_a_byte_order_mark_in_a_job_file_is_ignored(job_file: Path) -> None:
    plain = load(job_file).settings
    job_file.write_bytes(b"\xef\xbb\xbf" + job_file.read_bytes())
    assert load(job_file).settings == plain


def test_a_missing_job_file_is_a_job_error_with_a_suggestion(job_file: Path) -> None:
    with pytest.raises(JobError, match=r"did you mean 'flowers.toml'"):
        load(job_file.with_name("flower.toml"))


def test_overrides_set_any_key_and_are_validated(job_file: Path) -> None:
    job = load(job_file, {"train.epochs": 7, "data.kinds.colour": "category", "publish.alias": "champion"})
    assert job.settings.train.epochs == 7
    assert job.settings.data.kinds == {"colour": "category"}
    assert job.settings.publish.alias == "champion"
    with pytest.raises(JobError, match=r"train.epochs: expected an integer"):
        load(job_file, {"train.epochs": "many"})
    with pytest.raises(JobError, match="is not a section"):
        load(job_file, {"train.epochs.x": 1})


def test_an_empty_override_removes_a_key(job_file: Path, train: Callable[..., Result]) -> None:
    assert load(job_file, {"train.epochs": None, "split.test": None}).settings.train.epochs == 100
    found = json.loads(train("check", job_file, "--json", "--set", "train.learning_rate=").stdout)
    assert found["job"]["train"]["learning_rate"] == 0.01


def test_every_key_of_a_job_is_documented(examples: Path) -> None:
    reference = (examples.parent / "docs" / "jobs.md").read_text(encoding="utf-8")
    for section, schema in SECTION_SCHEMAS.items():
        assert f"## `[{section}]`" in reference
        for key in schema().fields:
            assert f"`{key}`" in reference.split(f"## `[{section}]`")[1].split("\n## ")[0], f"{section}.{key}"
    assert all(f"`{key}`" in reference for key in (*EarlyStoppingSchema().fields, *ScheduleSchema().fields))
