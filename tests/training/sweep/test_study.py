"""A study: exact numbers of trials, no set of values twice, and one more attempt after a killed process."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from training.sweep.errors import OtherStudyError, StudyError
from training.sweep.sampling import params_key
from training.sweep.storage import shown_address
from training.sweep.study import KILLED, Study
from training.sweep.sweep import Sweep, search

OpenSweep, OpenStudy = Callable[..., Sweep], Callable[..., Study]


def test_a_search_tries_exactly_its_number_of_sets(open_sweep: OpenSweep, open_study: OpenStudy) -> None:
    sweep = open_sweep()
    study = open_study(sweep)
    search(sweep, study)
    tried = study.tried()
    assert len(tried) == 6
    assert len({params_key(one.values) for one in tried}) == 6
    assert all(len(one.attempts) == 1 for one in tried)
    assert {one.state for one in tried} <= {"complete", "pruned"}


def test_a_finite_space_is_tried_once_and_no_more(open_sweep: OpenSweep, open_study: OpenStudy) -> None:
    finite = {"batch_size": {"choice": [4, 8, 16]}, "epochs": {"integer": [2, 4]}}
    sweep = open_sweep(search__train=finite, search__trials=100)
    study = open_study(sweep)
    search(sweep, study)
    assert len(study.tried()) == 9


def test_the_first_trial_is_the_job_itself(open_sweep: OpenSweep, open_study: OpenStudy) -> None:
    sweep = open_sweep(train__batch_size=16)
    study = open_study(sweep)
    claim = study.claim(sweep.initial_values)
    assert claim is not None
    assert claim.values == {"train.learning_rate": 0.1, "train.batch_size": 16}


def test_a_search_continues_where_it_ended(open_sweep: OpenSweep, open_study: OpenStudy) -> None:
    """In pieces it tries the same sets in the same order as at once: each trial has a seed of its own."""
    sweep = open_sweep()
    whole = open_study(sweep, "whole.journal")
    search(sweep, whole)
    expected = [(one.values, one.value, one.state) for one in whole.tried()]
    for trials in (2, 5, 6):
        part = open_sweep(search__trials=trials)
        study = open_study(part, "parts.journal")
        search(part, study)
        assert [(one.values, one.value, one.state) for one in study.tried()] == expected[:trials]


def test_a_killed_trial_is_tried_once_more_with_the_same_values(open_sweep: OpenSweep, open_study: OpenStudy) -> None:
    sweep = open_sweep()
    for attempt in (1, 2):
        study = open_study(sweep)
        claim = study.claim(sweep.initial_values)
        assert claim is not None
        assert (claim.number, claim.index) == (1, attempt - 1)
        study.close()  # as the kernel does for a process that is killed
    study = open_study(sweep)
    after = study.claim(sweep.initial_values)
    assert after is not None
    assert after.number == 2
    first = study.tried()[0]
    assert (first.state, first.reason, len(first.attempts)) == ("failed", KILLED, 2)


def test_an_interrupted_trial_is_tried_again(open_sweep: OpenSweep, open_study: OpenStudy) -> None:
    sweep = open_sweep()
    study = open_study(sweep)
    for _ in range(3):
        claim = study.claim()
        assert claim is not None
        assert claim.number == 1
        study.fail(claim, "it was interrupted")
        assert study.tried()[0].state == "waiting"


def test_a_result_that_comes_after_another_attempt_has_begun_does_not_count(
    open_sweep: OpenSweep, open_study: OpenStudy
) -> None:
    sweep = open_sweep()
    study = open_study(sweep)
    claim = study.claim()
    assert claim is not None
    assert study.has_work()  # of this process, whose own locks are free to it
    again = study.claim()
    assert again is not None
    assert again.values == claim.values
    assert study.complete(claim, 0.5, 3) is False
    assert study.complete(again, 0.25, 3) is True
    assert [one.value for one in study.tried()] == [0.25]


@pytest.mark.parametrize(
    ("override", "location", "found"),
    [
        ({"train__epochs": 4}, "job.train.epochs", "expected 3, as when the study began; found 4"),
        ({"search__metric": "accuracy"}, "search.metric", 'expected "loss"'),
        ({"search__train__batch_size": {"choice": [4, 8]}}, "search.train.batch_size.choice", "[4, 8, 16]"),
    ],
)
def test_a_study_of_another_job_is_an_error(
    open_sweep: OpenSweep, open_study: OpenStudy, override: dict[str, object], location: str, found: str
) -> None:
    open_study(open_sweep()).close()
    with pytest.raises(OtherStudyError) as caught:
        open_study(open_sweep(**override))
    assert {fault.location: found in fault.problem for fault in caught.value.faults}[location]


def test_a_study_of_other_data_is_an_error(open_sweep: OpenSweep, open_study: OpenStudy, sweep_file: Path) -> None:
    open_study(open_sweep()).close()
    table = sweep_file.with_name("flowers.csv")
    table.write_text(table.read_text(encoding="utf-8") + "5.5,red,rose\n", encoding="utf-8")
    with pytest.raises(OtherStudyError, match=r"data\.sha256"):
        open_study(open_sweep())


def test_more_trials_and_time_are_the_same_study(open_sweep: OpenSweep, open_study: OpenStudy) -> None:
    open_study(open_sweep()).close()
    open_study(open_sweep(search__trials=9, search__timeout=60)).close()


def test_a_torn_last_line_is_removed(open_sweep: OpenSweep, open_study: OpenStudy, tmp_path: Path) -> None:
    """A machine that loses power may leave one; Optuna would fail at it once more lines follow."""
    sweep = open_sweep(search__trials=2)
    study = open_study(sweep)
    search(sweep, study)
    study.close()
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"a')
    sweep = open_sweep(search__trials=3)
    study = open_study(sweep)
    search(sweep, study)
    assert len(study.tried()) == 3


def test_another_file_is_no_study(open_sweep: OpenSweep, sweep_file: Path) -> None:
    with pytest.raises(StudyError, match="expected the journal of a study"):
        open_sweep().open_study(str(sweep_file))


def test_steps_that_are_inexact_in_binary_are_all_tried_once(open_sweep: OpenSweep, open_study: OpenStudy) -> None:
    sweep = open_sweep(search__train={"weight_decay": {"uniform": [0, 1], "step": 0.3}}, search__trials=10)
    study = open_study(sweep)
    search(sweep, study)
    assert sorted(one.values["train.weight_decay"] for one in study.tried()) == [0, 0.3, 0.6, 0.9]


@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_a_journal_that_is_no_regular_file_is_an_error(open_sweep: OpenSweep, tmp_path: Path, kind: str) -> None:
    """A link to /dev/zero filled the memory, and a pipe without a writer blocked the sweep."""
    path = tmp_path / "study.journal"
    if kind == "a pipe":
        os.mkfifo(path)
        writer = os.open(path, os.O_RDWR)
        os.write(writer, b"x\n")  # what a sweep that opened it would find
    else:
        path.symlink_to("/dev/null")
    with pytest.raises(StudyError, match=f"expected a regular file, found {kind}.*name another one with --storage"):
        open_sweep().open_study(str(path))


HOSTILE = {
    "an unknown operation": (b'{"op_code": 99, "worker_id": "a"}', "line 2: expected an operation .* operation 99"),
    "no object": (b"[]", "line 2: expected an operation of a study, found"),
    "nested deeply": (b"[" * 100_000, "found RecursionError"),
    "many levels": (b'{"op_code": 2, "a": ' + b"[" * 200 + b"]" * 200 + b"}", "line 2: .* more than 100 levels"),
    "a missing field": (b'{"op_code": 4, "worker_id": "a"}', "found KeyError: 'study_id'"),
    "an unknown state": (b'{"op_code": 6, "worker_id": "a", "trial_id": [], "state": 9}', "found TypeError"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_operation_that_cannot_be_applied_is_an_error_of_the_journal(
    open_sweep: OpenSweep, open_study: OpenStudy, tmp_path: Path, case: str
) -> None:
    """Also if another process appends it during a search."""
    path, (line, problem) = tmp_path / "study.journal", HOSTILE[case]
    study = open_study(open_sweep())
    first = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(first + line + b"\n")
    with pytest.raises(StudyError, match=problem):
        open_sweep().open_study(str(path))
    path.write_bytes(first)
    study = open_study(open_sweep())
    with path.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(StudyError, match=problem.replace("line 2", r"line \d")):
        study.tried()


@pytest.mark.parametrize(
    ("written", "change", "problem"),
    [
        (r"\"values\":\[[^]]*\]", '"values":["x"]', "trial 0: expected the number that it was evaluated to"),
        (
            r"\"user_attr\":{\"epochs\":\d+",
            '"user_attr":{"epochs":"x"',
            "trial 0: expected the number of epochs, found 'x'",
        ),
        (
            r"\"train.learning_rate\":0[.]\d+",
            '"train.learning_rate":7',
            "trial 0: train.learning_rate: expected a value",
        ),
        (r"\"intermediate_value\":[^}]*", '"intermediate_value":"x"', "trial 0: expected a number for each epoch"),
        (r"\"directions\":\[\d\]", '"directions":[]', "expected minimize, found none"),
    ],
)
def test_a_trial_of_other_values_is_an_error_of_the_study(
    open_sweep: OpenSweep, open_study: OpenStudy, tmp_path: Path, written: str, change: str, problem: str
) -> None:
    path, sweep = tmp_path / "study.journal", open_sweep(search__trials=1)
    study = open_study(sweep)
    search(sweep, study)
    study.close()
    text = path.read_text(encoding="utf-8")
    assert re.search(written, text)
    path.write_text(re.sub(written, lambda _: change, text), encoding="utf-8")
    with pytest.raises(StudyError, match=re.escape(problem)):
        open_study(sweep).tried()


def test_an_address_is_shown_without_its_password(open_sweep: OpenSweep) -> None:
    assert shown_address("postgresql://me:secret@db:5432/sweeps") == "postgresql://me@db:5432/sweeps"
    with pytest.raises(StudyError) as caught:
        open_sweep().open_study("mysql://me:secret@db/sweeps")
    assert "secret" not in str(caught.value)
    assert "expected the path of a journal file, or postgresql://" in str(caught.value)
