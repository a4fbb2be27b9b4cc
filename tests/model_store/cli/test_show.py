"""`models list | show | report`."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from model_store.evaluation.row_results import RowResults
from model_store.registry.store import Store
from tests.model_store.cli.conftest import read_json
from tests.model_store.conftest import replace_object


def test_list_shows_versions_authors_and_aliases(models, store: Store) -> None:
    models("alias", "chess", "champion", "2")
    line = models("list").stdout.splitlines()[1].split()
    published = store.publication("chess", 3)
    assert line[:5] == ["chess", "3", "newest", "1-3", f"{published.when:%Y-%m-%d}"]
    assert line[5:] == ["champion", "→", "2", "Who", "plays", "chess"]
    expected = {"name": "chess", "serves": 3, "follows": "newest", "versions": [1, 2, 3], "aliases": {"champion": 2}}
    expected |= {"published": published.as_dict(), "description": "Who plays chess", "error": None}
    assert read_json(models("list", "--json")) == [expected]


def test_list_of_a_model_shows_who_published_each_version_and_when(models, store: Store, model) -> None:
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    store.publish("chess", model, who="ada", when=noon)
    store.storage.delete("chess/2.json")
    models("alias", "chess", "champion", "4")
    models("alias", "chess", "default", "2")
    assert " (file) " in models("list").stdout
    lines = models("list", "chess").stdout.splitlines()
    assert lines[4].split() == ["4", "2026-01-02", "12:00:00", "by", "ada", "champion"]
    assert lines[2].rstrip().endswith("(date of the file; no record)  default")
    found = read_json(models("list", "chess", "--json"))
    assert [one["version"] for one in found] == [1, 2, 3, 4]
    assert found[3]["published"] == {"who": "ada", "when": "2026-01-02T12:00:00+00:00", "recorded": True, "copies": []}
    assert (found[3]["aliases"], found[3]["signed_by"]) == (["champion"], [])
    assert (found[1]["published"]["who"], found[1]["published"]["recorded"]) == (None, False)
    assert "no model 'ches'" in models("list", "ches", code=5).stderr


def test_a_damaged_record_is_an_error_of_its_model_only(models, store: Store, model) -> None:
    store.publish("go", model)
    replace_object(store, "chess/3.json", b"{")
    found = {one["name"]: one for one in read_json(models("list", "--json"))}
    assert found["go"]["error"] is None
    assert "3.json: expected a publication record" in found["chess"]["error"]
    assert "3.json: expected a publication record" in models("show", "chess", code=5).stderr


def test_list_of_an_empty_store_prints_a_note(models, tmp_path: Path) -> None:
    result = models("list", "--store", str(tmp_path))
    assert result.stdout == ""
    assert "No models" in result.stderr
    assert "train a model first" in models("list", "--store", str(tmp_path / "nowhere"), code=5).stderr


def test_list_shows_valid_models_next_to_a_damaged_one(models, store: Store, model) -> None:
    Path(store.publish("go", model).location).chmod(0o644)
    store.path("go", 1).write_bytes(b"x")
    found = {one["name"]: one for one in read_json(models("list", "--json"))}
    assert found["chess"]["error"] is None
    assert "expected an artifact" in found["go"]["error"]


def test_list_reports_an_unreadable_alias(models, store: Store) -> None:
    models("alias", "chess", "champion", "2")
    (store.root / "chess" / "aliases" / "champion" / "2.json").write_text("{")
    found = read_json(models("list", "--json"))[0]
    assert found["serves"] == 3
    assert "2.json: expected a revision of an alias" in found["error"]


def test_show_prints_every_part_of_a_version(models, store: Store) -> None:
    models("alias", "chess", "champion", "2")
    result = models("show", "chess/champion")
    digest = store.load("chess", 2)[0].digest
    by = f"{store.publication('chess', 2).when:%Y-%m-%d %H:%M:%S} UTC by {store.publication('chess', 2).who}"
    for words in (
        "chess/2",
        "champion",
        by,
        digest,
        "age",
        "Bath, York",
        "filled with 38",
        "Softmax",
        "0.75",
        "ab" * 32,
    ):
        assert words in result.stdout
    found = read_json(models("show", "chess/2", "--json"))
    assert (found["version"], found["digest"], found["aliases"]) == (2, digest, ["champion"])
    assert found["published"] == store.publication("chess", 2).as_dict()
    assert (found["default"], found["serves"], found["follows"]) == (False, 3, "newest")
    assert found["description"] == "Who plays chess"
    assert found["bytes"] == store.path("chess", 2).stat().st_size
    assert found["manifest"]["training"]["metrics"] == {"accuracy": 0.75}


def test_show_json_has_the_inputs_output_and_layers_of_the_page(models) -> None:
    found = read_json(models("show", "chess/2", "--json"))
    age, town = found["inputs"]
    assert (age["name"], age["kind"], age["fill"], age["seen"]["max"]) == ("age", "number", 38.0, 90.0)
    assert (town["categories"], town["required"]) == (["Bath", "York"], True)
    assert found["output"] == {"kind": "classes", "name": "chess", "labels": ["no", "yes"]}
    shown = [(layer["type"], layer["inputs"], layer["outputs"], layer["parameters"]) for layer in found["layers"]]
    assert shown == [
        ("Linear", [3], [4], 16),
        ("Tanh", [4], [4], 0),
        ("Linear", [4], [2], 10),
        ("Softmax", [2], [2], 0),
    ]
    assert found["parameters"] == 26


def test_json_of_a_move_has_the_version_that_callers_get(models) -> None:
    assert read_json(models("alias", "chess", "champion", "2", "--json"))["default"] == 3
    assert read_json(models("promote", "chess", "1", "--json"))["move"]["default"] == 1
    assert read_json(models("protect", "chess", "champion", "--json"))["default"] == 1
    assert read_json(models("rollback", "chess", "--json"))["default"] == 3


def test_report_writes_a_page_to_a_file_or_to_standard_output(models, store: Store, tmp_path: Path) -> None:
    target = tmp_path / "chess.html"
    assert f"Wrote {target}" in models("report", "chess/2", "-o", str(target)).stderr
    text = target.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert store.load("chess", 2)[0].digest in text
    assert models("report", "chess/2", "-o", "-").stdout == text
    found = read_json(models("report", "chess/2", "-o", str(target), "--json"))
    assert found == {"name": "chess", "version": 2, "report": str(target)}


def test_the_default_report_file_is_named_after_the_version(models, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    models("report", "chess")
    assert (tmp_path / "chess-3.html").is_file()


def test_report_names_a_file_that_cannot_be_written(models, tmp_path: Path) -> None:
    target = tmp_path / "nowhere" / "chess.html"
    assert (
        f"{target}: no such file or directory; check the path"
        in models("report", "chess", "-o", str(target), code=2).stderr
    )
    models("report", "go", code=5)


def test_show_prints_no_results_of_single_rows(models, store: Store, model) -> None:
    correct = np.arange(90_000) % 3 > 0
    results = RowResults.of_classes("ab" * 32, correct)
    training = {"metrics": {"rows": len(correct), "accuracy": float(correct.mean())}, "held_out": results.as_json()}
    store.publish("go", replace(model, training=training))
    assert len(models("show", "go").stdout) < 3000
    assert read_json(models("show", "go", "--json"))["manifest"]["training"]["held_out"] == results.as_json()


def test_show_includes_a_summary_of_the_diagnostics(models, store: Store, model) -> None:
    importance = {"measure": "log_loss", "score": 0.9, "rows": 9, "repeats": 5, "left_out": 0}
    parts = [{"name": "town", "cost": 0.25, "low": 0.24, "high": 0.26}]
    training = {"diagnostics": {"importance": {**importance, "parts": parts}}}
    version = store.publish("go", replace(model, training=training))
    shown = models("show", "go").stdout
    assert re.search(r"log loss added.*\ntown +0\.25 +0\.24 +0\.26", shown)
    assert "report" not in shown
    where = store.add_report(version, "<p>")
    assert where in re.sub(r" *\n +", "", models("show", "go").stdout)  # a long path is wrapped
    assert read_json(models("show", "go", "--json"))["report"] == where


def test_show_prints_a_table_of_the_linear_model_and_each_note_on_its_own_line(models, store: Store, model) -> None:
    figures = {"mae": 1.5, "r2": 0.75, "rmse": 2.5}
    notes = ["filled in missing values: 2 of age", "the validation loss was lowest in epoch 9"]
    training = {"linear": {"targets": {"price": figures, "area": figures}}, "notes": notes, "epochs": 9}
    store.publish("go", replace(model, training=training))
    shown = models("show", "go").stdout
    assert re.search(r"Linear model *\ntargets +mae +r2 +rmse\narea +1\.5 +0\.75 +2\.5\nprice", shown)
    assert re.search(r"Notes *\n- filled in missing values: 2 of age *\n- the validation loss", shown)
    ensemble = {"networks": 5, "out_of_fold": {"targets": {"price": figures}}}
    store.publish("go", replace(model, training={"ensemble": ensemble}))
    assert re.search(r"ensemble\.out_of_fold\.targets +mae +r2 +rmse\nprice +1\.5", models("show", "go").stdout)


def test_show_prints_the_layers_of_the_job(models, store: Store, model) -> None:
    layers = [{"embedding": 8}, {"periodic": 16, "sigma": 0.1}, "feature_scale", 64, "relu"]
    metrics = {"mistakes": [{"actual": "a", "predicted": "b", "count": 3}]}
    store.publish("go", replace(model, training={"job": {"network": {"layers": layers}}, "metrics": metrics}))
    shown = models("show", "go").stdout
    line = "network.layers { embedding = 8 }, { periodic = 16, sigma = 0.1 }, feature_scale, 64, relu"
    assert line in re.sub(r"\s+", " ", shown)
    assert "predicted" not in shown


def test_a_model_alone_is_compared_with_its_newest_version_or_else_the_two_newest(models, store: Store, model) -> None:
    def compared(*arguments: str) -> list[str]:
        found = read_json(models("compare", *arguments, "--json"))
        return [found["first"], found["second"]]

    assert compared("chess") == ["chess/2", "chess/3"]  # callers get the newest
    models("alias", "chess", "default", "1")
    assert compared("chess") == ["chess/1", "chess/3"]
    assert compared("chess/2") == ["chess/2", "chess/3"]
    assert compared("chess/latest") == ["chess/2", "chess/3"]
    store.publish("go", model)
    assert "found only go/1: train another version" in models("compare", "go", code=2).stderr
