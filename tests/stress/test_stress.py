"""The short forms of the stress tests, without bounds on time, and their controls."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.stress.__main__ import TRIALS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("trial", TRIALS.values(), ids=TRIALS)
def test_no_request_is_lost(trial: ModuleType) -> None:
    result = trial.trial(short=True)
    assert result.tried > 0
    assert result.lost == 0, "\n".join(result.losses)


@pytest.mark.parametrize("trial", TRIALS.values(), ids=TRIALS)
def test_each_trial_fails_without_its_defence(trial: ModuleType) -> None:
    controls = list(trial.controls())
    assert controls
    assert [f"{control.name}: {control.observed}" for control in controls if not control.failed] == []
