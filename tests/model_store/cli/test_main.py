"""`models`, as a user runs it: tables for people, JSON for programs, and exit codes for both."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from model_store.cli import alias, common, main
from model_store.registry.store import Store


@pytest.fixture
def models(store: Store, make_model, monkeypatch):
    """Runs `models ...` on a store that holds chess 1, 2 and 3."""
    for seed in range(3):
        store.publish("chess", make_model(seed))
    monkeypatch.setattr(common, "user", lambda: "ada")
    monkeypatch.setattr(alias, "user", lambda: "ada")

    def run(*arguments: str, code: int = 0, text: str | None = None) -> Any:
        result = CliRunner().invoke(main.main, arguments, input=text, env={"MODEL_STORE": str(store.root)})
        assert result.exit_code == code, result.output
        return result

    return run


def read(result: Any) -> Any:
    return json.loads(result.stdout)


def test_list_shows_what_each_model_serves(models) -> None:
    models("alias", "chess", "champion", "2")
    line = models("list").stdout.splitlines()[1].split()
    assert line == ["chess", "3", "1-3", "champion", "→", "2", "Who", "plays", "chess"]
    expected = {"name": "chess", "serves": 3, "versions": [1, 2, 3], "aliases": {"champion": 2}}
    assert read(models("list", "--json")) == [{**expected, "description": "Who plays chess", "error": None}]


def test_list_of_an_empty_store_says_so(models, tmp_path: Path) -> None:
    result = models("list", "--store", str(tmp_path))
    assert result.stdout == ""
    assert "No models" in result.stderr
    assert "train a model first" in models("list", "--store", str(tmp_path / "nowhere"), code=5).stderr


def test_list_shows_the_sound_models_beside_a_damaged_one(models, store: Store, model) -> None:
    Path(store.publish("go", model).location).chmod(0o644)
    store.path("go", 1).write_bytes(b"x")
    found = {one["name"]: one for one in read(models("list", "--json"))}
    assert found["chess"]["error"] is None
    assert "expected an artifact" in found["go"]["error"]


def test_list_names_an_alias_that_cannot_be_read(models, store: Store) -> None:
    models("alias", "chess", "champion", "2")
    (store.root / "chess" / "aliases" / "champion" / "2.json").write_text("{")
    found = read(models("list", "--json"))[0]
    assert found["serves"] == 3
    assert "2.json: expected a move of an alias" in found["error"]


def test_show_tells_all_about_a_version(models, store: Store) -> None:
    models("alias", "chess", "champion", "2")
    result = models("show", "chess/champion")
    digest = store.load("chess", 2)[0].digest
    for words in ("chess/2", "champion", digest, "age", "Bath, York", "filled with 38", "Softmax", "0.75", "ab" * 32):
        assert words in result.stdout
    found = read(models("show", "chess/2", "--json"))
    assert (found["version"], found["digest"], found["aliases"]) == (2, digest, ["champion"])
    assert found["bytes"] == store.path("chess", 2).stat().st_size
    assert found["manifest"]["training"]["metrics"] == {"accuracy": 0.75}


def test_report_writes_a_page_to_a_file_or_to_standard_output(models, store: Store, tmp_path: Path) -> None:
    target = tmp_path / "chess.html"
    assert f"Wrote {target}" in models("report", "chess/2", "-o", str(target)).stderr
    text = target.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert store.load("chess", 2)[0].digest in text
    assert models("report", "chess/2", "-o", "-").stdout == text
    found = read(models("report", "chess/2", "-o", str(target), "--json"))
    assert found == {"name": "chess", "version": 2, "report": str(target)}


def test_report_is_called_after_its_version(models, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    models("report", "chess")
    assert (tmp_path / "chess-3.html").is_file()


def test_report_says_where_it_cannot_write(models, tmp_path: Path) -> None:
    target = tmp_path / "nowhere" / "chess.html"
    assert f"{target}: cannot be written" in models("report", "chess", "-o", str(target), code=2).stderr
    models("report", "go", code=5)


def test_show_has_the_diagnostics_in_short(models, store: Store, model) -> None:
    importance = {"measure": "accuracy", "score": 0.9, "rows": 9, "repeats": 5, "left_out": 0}
    parts = [{"name": "town", "cost": 0.25, "deviation": 0.01}]
    training = {"diagnostics": {"importance": {**importance, "parts": parts}}}
    version = store.publish("go", replace(model, training=training))
    shown = models("show", "go").stdout
    assert re.search(r"cost in accuracy.*\ntown +0\.25 +0\.01", shown)
    assert "report" not in shown
    where = store.add_report(version, "<p>")
    assert where in models("show", "go").stdout
    assert read(models("show", "go", "--json"))["report"] == where


@pytest.mark.parametrize(("model", "count"), [(None, 3), ("chess", 3), ("chess/2", 1)])
def test_verify_checks_one_or_all(models, model: str | None, count: int) -> None:
    arguments = ["verify"] if model is None else ["verify", model]
    assert len(models(*arguments).stdout.splitlines()) == count
    found = read(models(*arguments, "--json"))
    assert len(found) == count
    assert all(one["ok"] for one in found)


def test_verify_names_what_is_damaged(models, store: Store) -> None:
    path = store.path("chess", 2)
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-1])
    found = read(models("verify", "--json", code=5))
    assert [one["ok"] for one in found] == [True, False, True]
    assert str(path) in found[1]["error"]
    assert "chess/2  damaged  " in models("verify", "chess", code=5).stdout


def test_alias_moves_with_a_reason_and_is_listed(models) -> None:
    assert "no aliases" in models("alias", "chess").stderr
    assert "chess/champion now points to version 2" in models("alias", "chess", "champion", "2", "--why", "best").stderr
    move = read(models("alias", "chess", "champion", "latest", "--why", "[red]newer", "--json"))
    assert (move["version"], move["number"], move["who"], move["why"]) == (3, 2, "ada", "[red]newer")
    assert read(models("alias", "chess", "--json")) == {"champion": 3}
    assert read(models("alias", "chess", "champion", "--json")) == {"champion": 3}
    assert "did you mean 'champion'" in models("alias", "chess", "champoin", code=5).stderr


def test_history_and_rollback(models) -> None:
    assert "No alias of chess" in models("history", "chess").stderr
    for version in ("1", "3"):
        models("alias", "chess", "champion", version, "--why", "better")
    assert "version 1" in models("rollback", "chess", "champion", "--why", "worse").stderr
    assert read(models("rollback", "chess", "--json"))["version"] == 2
    moves = read(models("history", "chess", "champion", "--json"))
    assert [(move["version"], move["rollback"], move["why"]) for move in moves] == [
        (1, False, "better"),
        (3, False, "better"),
        (1, True, "worse"),
    ]
    shown = models("history", "chess").stdout
    assert "rollback · worse" in shown
    assert "default" in shown


def test_promote_moves_what_passes_and_tells_what_does_not(models, store: Store) -> None:
    assert "champion now points to version 1" in models("promote", "chess", "1").stderr
    result = models("promote", "chess", "2", "--if", "accuracy>=champion", "--if", "accuracy<1", "--why", "newer")
    assert result.stdout.splitlines() == [
        "passed  accuracy>=champion: 0.75 against 0.75 of chess/1",
        "passed  accuracy<1: 0.75 against 1 of the gate",
    ]
    assert "champion now points to version 2" in result.stderr
    failed = models("promote", "chess", "3", "--if", "accuracy>champion", "--json", code=5)
    assert "chess/champion stays where it is: chess/3 did not pass" in failed.stderr
    assert read(failed)["move"] is None
    assert [gate["passed"] for gate in read(failed)["gates"]] == [False]
    assert store.resolve("chess", "champion") == 2
    assert store.history("chess", "champion")[-1].why.startswith("newer; accuracy>=champion: 0.75 against 0.75")
    assert read(models("promote", "chess", "3", "--to", "default", "--json"))["move"]["alias"] == "default"
    assert "write it as in" in models("promote", "chess", "3", "--if", "better", code=3).stderr


def test_a_protected_alias_wants_force_or_a_gate(models, store: Store) -> None:
    models("alias", "chess", "champion", "1")
    assert "champion is protected" in models("protect", "chess", "champion", "--why", "it earns money").stderr
    for words in (("alias", "chess", "champion", "2"), ("promote", "chess", "2"), ("rollback", "chess", "champion")):
        models(*words, code=5)
    models("promote", "chess", "2", "--if", "accuracy>0.5")
    models("rollback", "chess", "champion", "--force")
    models("alias", "chess", "champion", "3", "--force")
    assert "protected · it earns money" in models("history", "chess").stdout
    assert not read(models("protect", "chess", "champion", "--off", "--json"))["protected"]
    models("alias", "chess", "champion", "2")
    assert models("history", "chess").stdout.count("no longer protected") == 1


def test_gc_tells_what_it_would_delete_and_deletes_it(models, store: Store) -> None:
    assert "Nothing is left over" in models("gc", "--grace", "0s").stderr
    left = store.root / "chess" / ".tmp-01"
    left.write_bytes(b"0123456789")
    assert "Nothing is left over" in models("gc").stderr
    assert "Would delete 1 objects of 10 bytes" in models("gc", "--grace", "0s", "--dry-run").stderr
    assert left.exists()
    found = read(models("gc", "--grace", "0s", "--json"))
    assert [(one["key"], one["size"]) for one in found] == [("chess/.tmp-01", 10)]
    assert not left.exists()
    for grace in ("1", "h", "1y", "-1h", "1.5h", "99999999d"):
        assert "expected a duration such as" in models("gc", "--grace", grace, code=2).stderr


def test_rm_asks_first(models, store: Store) -> None:
    assert "--yes" in models("rm", "chess/2", code=2).stderr
    assert "Which version" in models("rm", "chess", "--yes", code=2).stderr
    assert store.versions("chess") == [1, 2, 3]
    assert "Removed chess/2" in models("rm", "chess/2", "--yes").stderr
    assert read(models("rm", "chess/3", "--yes", "--json")) == {"name": "chess", "removed": 3}
    assert store.versions("chess") == [1]
    models("alias", "chess", "champion", "1")
    assert "found champion" in models("rm", "chess/1", "--yes", code=5).stderr


def test_predict_answers_rows_of_the_command_line(models, store: Store) -> None:
    row = '{"age": 30, "town": "Bath"}'
    found = read(models("predict", "chess/2", "--row", row, "--row", '[null, "York"]', "--json"))
    expected = store.load("chess", 2)[1].predict([[30, "Bath"], [None, "York"]])
    assert found == {"model": "chess", "version": 2, "predictions": expected}
    lines = models("predict", "chess/2", "--row", row).stdout.splitlines()
    assert lines[0].split() == ["row", "label", "no", "yes"]
    assert lines[1].split()[1] == expected[0]["label"]


def test_predict_answers_files_and_standard_input(models, tmp_path: Path) -> None:
    text = "town,age,chess\nBath,30,yes\nYork,,no\n"
    (tmp_path / "rows.csv").write_text(text)
    (tmp_path / "rows.json").write_text('[[30, "Bath"], {"town": "York"}]')
    found = [
        read(models("predict", "chess", "--json", str(tmp_path / "rows.csv"))),
        read(models("predict", "chess", "--json", str(tmp_path / "rows.json"))),
        read(models("predict", "chess", "--json", "-", text=text)),
    ]
    assert found[0] == found[1] == found[2]


def test_predict_tells_what_is_wrong(models, tmp_path: Path) -> None:
    message = models("predict", "chess", "--row", '{"age": "x", "town": "Yorck"}', code=3).stderr
    assert "instances.0.age: expected a number" in message
    assert "did you mean 'York'" in message
    assert "either a FILE, or --row" in models("predict", "chess", code=2).stderr
    assert "does not exist" in models("predict", "chess", str(tmp_path / "no.csv"), code=2).stderr
    assert "no model 'ches' in" in models("predict", "ches", "--row", "[]", code=5).stderr


def test_every_command_has_the_common_options() -> None:
    for command in main.main.commands.values():
        flags = {flag for option in command.params for flag in option.opts}
        assert {"--json", "-v", "-q"} <= flags
        assert "--store" in flags or command.name == "keygen"


def test_python_m_model_store_is_models(models, store: Store) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "model_store", "list", "--json", "--store", str(store.root)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
        env=os.environ,
    )
    assert json.loads(result.stdout)[0]["name"] == "chess"
    assert result.stderr == ""


def test_sign_and_verify_with_keys(models, store: Store, tmp_path: Path) -> None:
    mine, theirs = str(tmp_path / "mine.pem"), str(tmp_path / "theirs.pem")
    made = read(models("keygen", mine, "--json"))
    assert (made["private"], made["public"]) == (mine, f"{mine}.pub")
    assert "keep it to yourself" in models("keygen", theirs).stderr
    assert "never overwritten" in models("keygen", mine, code=5).stderr
    models("alias", "chess", "champion", "2")
    signed = read(models("sign", "chess/champion", "--key", mine, "--json"))
    assert (signed["version"], signed["key"], signed["added"]) == (2, made["key"], True)
    assert signed["digest"] == store.load("chess", 2)[0].digest
    assert "already" in models("sign", "chess/2", "--key", mine).stderr
    assert read(models("show", "chess/2", "--json"))["signed_by"] == [made["key"]]
    assert made["key"] in models("show", "chess/2").stdout

    (one,) = read(models("verify", "chess/2", "--key", f"{mine}.pub", "--json"))
    assert (one["ok"], one["signed_by"]) == (True, made["key"])
    assert read(models("verify", "chess/2", "--key", f"{theirs}.pub", "--key", f"{mine}.pub", "--json"))[0]["ok"]
    found = read(models("verify", "chess", "--key", f"{mine}.pub", "--json", code=5))
    assert [one["verdict"] for one in found] == ["untrusted", "ok", "untrusted"]
    assert "chess/2  untrusted  " in models("verify", "chess/2", "--key", f"{theirs}.pub", code=5).stdout
    assert "found a private one" in models("verify", "chess", "--key", mine, code=5).stderr
    assert all(one["ok"] for one in read(models("verify", "--json")))


def test_a_damaged_version_is_neither_signed_nor_trusted(models, store: Store, tmp_path: Path) -> None:
    key = str(tmp_path / "key.pem")
    models("keygen", key)
    models("sign", "chess/2", "--key", key)
    path = store.path("chess", 2)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    assert "expected" in models("sign", "chess/2", "--key", key, code=5).stderr
    assert read(models("verify", "chess/2", "--key", f"{key}.pub", "--json", code=5))[0]["verdict"] == "damaged"
