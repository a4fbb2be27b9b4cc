"""A job on a small table, and the `train` command in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.small_disk import small_disk
from training.cli.main import main

EXAMPLES = Path(__file__).parents[2] / "examples"

JOB = """
[model]
name = "flowers"
[data]
path = "flowers.csv"
target = "kind"
[network]
layers = [4, "tanh"]
[train]
epochs = 3
learning_rate = 0.1
"""


def flowers(rows: int = 40) -> str:
    """Return a table with a number, a category, missing values and two classes that the number separates."""
    lines = ["length,colour,kind"]
    for i in range(rows):
        length = "NA" if i == 7 else f"{i % 10 + 20 * (i % 2)}.5"
        colour = "" if i == 8 else ("red", "white", "blue")[i % 3]
        lines.append(f"{length},{colour},{('rose', 'lily')[i % 2]}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    """A job file next to its table."""
    (tmp_path / "flowers.csv").write_text(flowers(), encoding="utf-8")
    path = tmp_path / "flowers.toml"
    path.write_text(JOB, encoding="utf-8")
    return path


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Result]:
    """A function that runs `train` with its arguments and a temporary store."""

    def run(*arguments: object) -> Result:
        return CliRunner(env={"MODEL_STORE": str(tmp_path / "models")}).invoke(main, [*map(str, arguments)], "train")

    return run


@pytest.fixture
def examples() -> Path:
    return EXAMPLES


@pytest.fixture(name="small_disk")
def disk_of_100_kb(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "100k", lazy=False) as location:
        yield location
