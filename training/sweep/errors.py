"""The errors of a sweep."""

from __future__ import annotations

from training.errors import FaultListError, TrainingError


class StudyError(TrainingError):
    """A study cannot be opened or reached."""


class OtherStudyError(FaultListError):
    """A study belongs to another job, other data or another search."""


class StudyInUseError(TrainingError):
    """Other processes work on the study, and this one was not asked to join them."""


class InterruptedSweepError(TrainingError):
    """A signal ended the search; what was tried is kept."""

    def __init__(self, number: int) -> None:
        self.signal = number
        super().__init__("interrupted; the same command continues the search")
