"""A batch job and its output folder, a directory or a prefix of a bucket.

    _job.json               the plan; the first process puts it, the others compare theirs with it
    part-000000.parquet     the predictions of the plan's first part, and so on
    _SUCCESS                put when all parts are there

Every object is put only if it is absent. So a rerun after a crash, or any number of processes at a time, write each
part exactly once, and never mix two models or two states of the inputs. Names that begin with "_" are no data for
programs that read the folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from model_store.artifact.model import Model
from model_store.batch.plan import Part, Plan
from model_store.batch.scoring import PartJob, PartResult, check_columns, score_part
from model_store.errors import StoreError
from model_store.storage.base import StorageBackend, put_object, translate_os_errors
from model_store.storage.input_files import list_input_files
from model_store.storage.open_storage import open_storage

__all__ = ["BatchJob", "check_columns", "score_here"]

PLAN_KEY, SUCCESS_KEY = "_job.json", "_SUCCESS"
_MAX_PLAN_BYTES = 1 << 28
_PART_KEY = re.compile(r"part-([0-9]{6})\.parquet")


class BatchJob:
    """A plan whose output folder is open: it holds this plan, and perhaps parts of its output."""

    def __init__(self, plan: Plan, output: str) -> None:
        """Put the plan, or compare it with the one that is there. ConflictError if that is another job."""
        self.plan, self.output = plan, output
        self._storage: StorageBackend = open_storage(output)
        with translate_os_errors(f"{output}/{PLAN_KEY}", "begin the job"):
            if not put_object(self._storage, PLAN_KEY, plan.to_json()):
                plan.check_equal(Plan.from_json(_read_plan(f"{output}/{PLAN_KEY}"), f"{output}/{PLAN_KEY}"), output)

    @property
    def part_job(self) -> PartJob:
        return PartJob(self.output, self.plan.model, self.plan.options)

    def missing_parts(self, index: int = 0, count: int = 1) -> list[Part]:
        """Return the parts without output, of those whose number is `index` modulo `count`."""
        present = self._present()
        return [part for part in self.plan.parts() if part.number % count == index and part.number not in present]

    def finish(self) -> int:
        """Return how many parts are missing; if none is, mark the job as complete."""
        missing = self.plan.part_count - len(self._present())
        if not missing:
            content = {"parts": self.plan.part_count, "model": self.plan.model.name, "version": self.plan.model.version}
            with translate_os_errors(f"{self.output}/{SUCCESS_KEY}", "complete the job"):
                put_object(self._storage, SUCCESS_KEY, f"{json.dumps(content)}\n".encode())
                for abandoned in self._storage.abandoned_keys():  # of processes that were killed
                    self._storage.delete(abandoned)
        return missing

    def _present(self) -> set[int]:
        with translate_os_errors(self.output, "list the output"):
            found = (_PART_KEY.fullmatch(key) for key in self._storage.keys("*"))
            return {number for match in found if match and (number := int(match[1])) < self.plan.part_count}


def score_here(job: BatchJob, parts: Iterable[Part], model: Model) -> Iterator[PartResult]:
    """Score parts in this process, one after the other."""
    for part in parts:
        yield score_part(job.part_job, part, model)


def _read_plan(location: str) -> bytes:
    (file,) = list_input_files([location])
    if file.size > _MAX_PLAN_BYTES:
        raise StoreError(f"{location}: expected at most {_MAX_PLAN_BYTES} bytes, found {file.size}")
    with file.open(1 << 20) as opened:
        return opened.read()
