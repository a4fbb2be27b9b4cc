"""Stress tests in its short form: what is promised without a clock, and that each defence is what keeps it."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.stress.__main__ import TRIALS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("trial", TRIALS.values(), ids=TRIALS)
def test_no_request_is_lost(trial: ModuleType) -> None:
    outcome = trial.trial(short=True)
    assert outcome.tried > 0
    assert outcome.lost == 0, "\n".join(outcome.faults)


@pytest.mark.parametrize("trial", TRIALS.values(), ids=TRIALS)
def test_each_trial_fails_without_its_defence(trial: ModuleType) -> None:
    controls = list(trial.controls())
    assert controls
    assert [f"{control.what}: {control.seen}" for control in controls if not control.hurt] == []
