"""Names and cells of a table can neither command the terminal that `train` writes to nor forge its lines."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.model_store.cli.test_hostile_strings import EVIL, assert_visible
from tests.training.conftest import flowers


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "evil.csv"
    rows = [line.split(",") for line in flowers().splitlines()]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*(name + EVIL for name in rows[0]), f"same{EVIL}"])
        writer.writerows([length, colour + EVIL, kind + EVIL, "1"] for length, colour, kind in rows[1:])
    return path


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--json"],
        ["--folds", "3"],
        ["--set", f"data.target=x{EVIL}"],
        ["-vv", "--set", "data.target=x"],
    ],
    ids=ascii,
)
def test_train_shows_visible_characters_only(
    train: Callable[..., Result], table: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(table.parent)
    made = train("init", table.name, "--target", f"kind{EVIL}", "-o", "evil.toml")
    assert_visible(made.output)
    assert made.exit_code == 0, made.output
    assert_visible(Path("evil.toml").read_text(encoding="utf-8"))
    assert_visible(train("check", "evil.toml").output)
    found = train("evil.toml", "--set", "train.epochs=2", *words)
    assert_visible(found.output)
    assert found.exit_code in {0, 2, 3}, found.output
