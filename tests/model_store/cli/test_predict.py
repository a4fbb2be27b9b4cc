"""`models predict` from the store."""

from __future__ import annotations

from pathlib import Path

from model_store.registry.store import Store
from tests.model_store.cli.conftest import read_json


def test_predict_takes_rows_from_the_command_line(models, store: Store) -> None:
    row = '{"age": 30, "town": "Bath"}'
    found = read_json(models("predict", "chess/2", "--row", row, "--row", '[null, "York"]', "--json"))
    expected = store.load("chess", 2)[1].predict([[30, "Bath"], [None, "York"]])
    assert found == {"model": "chess", "version": 2, "predictions": expected}
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


def test_predict_reports_invalid_input(models, tmp_path: Path) -> None:
    message = models("predict", "chess", "--row", '{"age": "x", "town": "Yorck"}', code=3).stderr
    assert "instances.0.age: expected a number" in message
    assert "did you mean 'York'" in message
    assert "Give either FILE or --row" in models("predict", "chess", code=2).stderr
    assert "does not exist" in models("predict", "chess", str(tmp_path / "no.csv"), code=2).stderr
    assert "no model 'ches' in" in models("predict", "ches", "--row", "[]", code=5).stderr
