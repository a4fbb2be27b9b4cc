"""Load a version of a model: copy and verify the artifact, check its signature and golden predictions.

Of the workers, the first that loads a version checks its golden predictions, once. The others are forked from the same
process and map the same bytes: four workers that repeated the check took 320 to 1030 ms each for a 400 MB model, on two
cores that also serve. It warms up nothing: a first pass took as long as a second one, 85 ms.

After a failure, the next attempt waits 2, 4, 8 ... up to 60 s; `failure_reason` says what was wrong.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model_store.artifact import npz
from model_store.artifact.model import Model
from model_store.errors import ArtifactError, ModelStoreError
from model_store.registry.publication import Publication
from model_store.storage.artifact_cache import cache_file
from service.registry.batching_policy import BatchingPolicy
from service.registry.example_request import make_example
from service.registry.loaded_version import LoadedVersion
from service.registry.shared_names import NameSet
from service.registry.signature_policy import SignatureCheck
from service.telemetry.metrics import Metrics
from service.validation.predict_request import PredictSchema
from service.validation.row_limits import RowLimits

log = logging.getLogger("service.registry.loader")

_MAX_BACKOFF_SECONDS = 60.0


class ArtifactSource(Protocol):
    """What the loader needs from a store."""

    def path(self, name: str, number: int) -> Path: ...

    def publication(self, name: str, number: int) -> Publication: ...


@dataclass(frozen=True)
class _Failure:
    problem: str
    attempts: int
    retry_at: float


def verify_hint(name: str, number: int) -> str:
    """Return the fix for a version that cannot be served."""
    return f"look at it: models verify {name}/{number}"


class Loader:
    def __init__(
        self,
        store: ArtifactSource,
        cache_dir: Path,
        metrics: Metrics,
        *,
        row_limits: RowLimits,
        checked_digests: NameSet | None = None,
        check_signature: SignatureCheck | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checked_digests: NameSet = set() if checked_digests is None else checked_digests
        self._store, self._cache_dir, self._metrics, self._clock = store, cache_dir, metrics, clock
        self._row_limits, self._check_signature = row_limits, check_signature
        self._failures: dict[tuple[str, int], _Failure] = {}

    def load(self, name: str, number: int, verified_digest: str | None = None) -> LoadedVersion | None:
        """Return the version, or None if it cannot be served (see `failure_reason`).

        If another process has verified the version, pass its digest: then only an artifact of this digest is loaded,
        and the checks are skipped.
        """
        key = (name, number)
        if self.in_backoff(*key):
            return None
        failure = self._failures.get(key)
        started = self._clock()
        try:
            model, found = self._read(name, number, verified_digest)
            mapped = self._clock()
            if verified_digest is None:
                if self._check_signature is not None:
                    self._check_signature(name, number, model.digest or "")
                self._check_golden(model)
            row_limit = self._row_limits.for_model(model)
            schema = PredictSchema(name, model)
            batching = BatchingPolicy(model.network.block_rows)
            publication = self._publication(name, number) if verified_digest is None else None
            example = make_example(model)
            digest = model.digest or ""
            served = LoadedVersion(name, number, digest, model, schema, example, batching, row_limit, publication)
        except Exception as e:  # one bad version must not stop the others
            known = isinstance(e, (ModelStoreError, OSError))
            attempts = failure.attempts + 1 if failure else 1
            problem = str(e).removeprefix(f"{name}/{number}: ") if known else f"{type(e).__name__}: {e}"
            self._failures[key] = _Failure(problem, attempts, self._clock() + min(2.0**attempts, _MAX_BACKOFF_SECONDS))
            self._metrics.model_load_failures.labels(self._metrics.model_label(name)).inc()
            trace = None if known else e
            log.error(
                "%s/%d cannot be served: %s (%s)", name, number, problem, verify_hint(name, number), exc_info=trace
            )
            return None
        self._failures.pop(key, None)
        label = self._metrics.model_label(name)
        self._metrics.model_loads.labels(label).inc()
        for counter in (self._metrics.model_load_failures, self._metrics.model_reloads):
            counter.labels(label)  # create it with 0: Prometheus sees no increase in a counter that starts at 1
        times = [1000 * (b - a) for a, b in ((started, found), (found, mapped), (mapped, self._clock()))]
        log.info("loaded %s/%d: verified copy in %.0f ms, mapped in %.1f ms, checked in %.1f ms", name, number, *times)
        return served

    def _check_golden(self, model: Model) -> None:
        """Check the golden predictions, unless a worker has checked those of this digest."""
        digest = model.digest or ""
        if digest in self._checked_digests:
            return
        model.check_golden()
        try:
            self._checked_digests.add(digest)
        except OSError as e:
            log.warning("golden predictions of %s are checked at every load: %s", digest[:12], e)

    def _publication(self, name: str, number: int) -> Publication | None:
        try:
            return self._store.publication(name, number)
        except (ModelStoreError, OSError) as e:
            log.warning("%s/%d is served without its author: %s", name, number, e)
            return None

    def in_backoff(self, name: str, number: int) -> bool:
        """Return True while a version that failed must not be tried again."""
        failure = self._failures.get((name, number))
        return failure is not None and self._clock() < failure.retry_at

    def has_failed(self, name: str, number: int) -> bool:
        """Return True if the last attempt to load a version failed."""
        return (name, number) in self._failures

    def failure_reason(self, name: str, number: int) -> str:
        """Return why the last attempt to load a version failed."""
        failure = self._failures.get((name, number))
        return failure.problem if failure else "cannot be loaded"

    def forget_failure(self, name: str, number: int) -> None:
        """Let a version be tried again at once."""
        self._failures.pop((name, number), None)

    def clear_failures(self, stored: Iterable[tuple[str, int]] = ()) -> None:
        """Forget the failures of all versions except `stored`, so that they may be tried again."""
        for key in self._failures.keys() - set(stored):
            self._failures.pop(key, None)

    def _read(self, name: str, number: int, verified_digest: str | None) -> tuple[Model, float]:
        """Return the model and the time at which its verified copy was ready to map."""
        copy = None if verified_digest is None else self._cache_dir / f"{verified_digest}.npz"
        while True:
            if copy is None or not copy.exists():
                copy = cache_file(self._store.path(name, number), self._cache_dir)
            ready = self._clock()
            try:
                # `cache_file` has verified it, here or in another process.
                model = npz.read(copy, verify=False, mapped=True)
            except ArtifactError:
                if copy.exists():
                    raise
                continue  # another process removed the copy before it was locked
            if verified_digest not in {None, model.digest}:
                raise ArtifactError(f"{name}/{number}: expected the digest {verified_digest}, found {model.digest}")
            return model, ready
