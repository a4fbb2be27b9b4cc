"""A job with a search on a small table, and the studies of one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.training.conftest import JOB
from training.pipeline.job import load_content
from training.sweep.study import Study
from training.sweep.sweep import Sweep

SEARCH = """
[search]
trials = 6
[search.train]
learning_rate = { log_uniform = [0.01, 0.5] }
batch_size = { choice = [4, 8, 16] }
"""


@pytest.fixture
def sweep_file(job_file: Path) -> Path:
    """A job file with a search, next to its table."""
    job_file.write_text(JOB + SEARCH, encoding="utf-8")
    return job_file


@pytest.fixture
def open_sweep(sweep_file: Path) -> Callable[..., Sweep]:
    """A function that opens the sweep of the file with keys overridden: `open_sweep(train__epochs=5)`."""

    def opened(**overrides: object) -> Sweep:
        keys = {key.replace("__", "."): value for key, value in overrides.items()}
        return Sweep.open(load_content(sweep_file, keys), sweep_file.parent, str(sweep_file))

    return opened


@pytest.fixture
def open_study(tmp_path: Path) -> Iterator[Callable[..., Study]]:
    """A function that opens the study of a sweep in a journal."""
    studies: list[Study] = []

    def opened(sweep: Sweep, file: str = "study.journal") -> Study:
        studies.append(sweep.open_study(str(tmp_path / file)))
        return studies[-1]

    yield opened
    for study in studies:
        study.close()
