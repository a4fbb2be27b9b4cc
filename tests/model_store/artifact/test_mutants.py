"""Mutants of an artifact raise ArtifactError, or are valid models with another digest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attacks.forge import valid_artifact
from tests.attacks.mutants import run_mutants
from tests.model_store.conftest import chess, pictures

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.parametrize("model", [chess, pictures])
def test_no_mutant_is_accepted_with_the_original_digest(model, tmp_path: Path) -> None:
    found = run_mutants(valid_artifact(model()), 0, 500, tmp_path / "mutant.npz")
    assert found["accepted"] > 30  # other weights or texts with correct hashes
    assert found["rejected"] > 250


@pytest.mark.slow
def test_105000_mutants_are_read_in_bounded_time_and_memory() -> None:
    words = [sys.executable, "-m", "tests.attacks.mutants"]
    runs = [
        subprocess.Popen([*words, str(seed), "42000"], cwd=ROOT, stdout=subprocess.PIPE, text=True) for seed in (1, 2)
    ]
    found = [one for run in runs for one in json.loads(run.communicate()[0] or "[]")]
    assert [run.returncode for run in runs] == [0, 0]
    assert [sum(one.values()) for one in found] == [42_000, 10_500] * 2
