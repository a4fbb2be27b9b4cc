"""Score the parts of a batch job on a Dask cluster. distributed is installed by the extra `dask`.

The model goes to each worker once, with a worker plugin, also to workers that join later or are restarted; a task
holds only the part. A worker that dies loses its tasks to others, and the client may die as well: parts are put if
absent, so what was running may end twice without harm.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from threading import Event, Thread
from typing import Any

import dask
from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin, as_completed

from model_store.artifact.model import Model
from model_store.batch.job import BatchJob
from model_store.batch.model_source import ModelSource
from model_store.batch.plan import Part
from model_store.batch.scoring import PartJob, PartResult, score_part
from model_store.errors import StoreError

_TASKS_PER_THREAD = 4  # that the scheduler holds: a million would take a gigabyte there
_RETRIES = 2
_WAIT_SECONDS = 60  # for the first worker
_SCALE_SECONDS = 5
# Of "local", which shares its processors with client and scheduler. By default they and two idle workers take 10 % of a
# processor, most of it for profiles, health checks and statistics that nobody sees; so 1 %.
_LOCAL_CONFIG = {
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.tick.interval": "500ms",
    "distributed.deploy.lost-worker-timeout": "120s",  # by default 15 s for a restart: too short for a busy machine
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.worker.profile.enabled": False,
}
_LOCAL = re.compile(r"local(?::([1-9][0-9]{0,3}))?")

_models: dict[str, Model] = {}  # of this worker, by digest


class ShipModel(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Loads the model in each worker before its first task."""

    def __init__(self, source: ModelSource) -> None:
        self.source = source
        self.name = f"forward-pass-{source.model.digest}"

    def setup(self, worker: Any) -> None:
        _models[self.source.model.digest] = self.source.load()

    def teardown(self, worker: Any) -> None:
        _models.pop(self.source.model.digest, None)


def score_in_worker(job: PartJob, part: Part) -> PartResult:
    """Score a part in a worker. StoreError if the storage failed, for Dask to try again, perhaps elsewhere."""
    result = score_part(job, part, _models[job.model.digest])
    if result.store_error:
        raise StoreError(result.store_error)
    return result


def score_on_cluster(address: str, job: BatchJob, parts: Sequence[Part], source: ModelSource) -> Iterator[PartResult]:
    """Yield the results of parts as they come, from the workers of a scheduler, or of this machine: "local", "local:4".

    StoreError if the scheduler cannot be reached or has no worker.
    """
    with connect(address) as client:
        plugin = ShipModel(source if _LOCAL.fullmatch(address) else source.with_content())
        try:
            client.register_plugin(plugin)
            yield from score_all(client, partial(score_in_worker, job.part_job), parts)
        finally:
            client.unregister_worker_plugin(plugin.name)


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """Yield a client of the scheduler at an address, or of new processes here. StoreError if it has no worker."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # the death of a worker is no news: its tasks move
    local = _LOCAL.fullmatch(address)
    try:
        if local is not None:
            workers = int(local[1] or 0) or len(os.sched_getaffinity(0))
            with (
                dask.config.set(_LOCAL_CONFIG),
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                ) as cluster,
                _replace_lost_workers(cluster, workers),
                Client(cluster) as client,
            ):
                yield client
            return
        with Client(address) as client:
            client.wait_for_workers(1, timeout=_WAIT_SECONDS)
            yield client
    except (OSError, TimeoutError) as e:
        fix = f"start them: dask scheduler, and dask worker {address} on each machine"
        raise StoreError(f"{address}: expected a Dask scheduler with workers, found none: {e}; {fix}") from e


@contextmanager
def _replace_lost_workers(cluster: Any, count: int) -> Iterator[None]:
    """Start a worker for each one that is lost for good: Dask gives up one that dies while it is restarted."""
    ended = Event()

    def scale() -> None:
        while not ended.wait(_SCALE_SECONDS):
            cluster.scale(count)

    thread = Thread(target=scale, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def score_all(client: Any, score: Callable[[Part], PartResult], parts: Sequence[Part]) -> Iterator[PartResult]:
    """Yield the results of parts as they come. The workers have the model: see `ShipModel`."""
    waiting = iter(parts)
    limit = _TASKS_PER_THREAD * max(1, sum(client.nthreads().values()))
    by_key: dict[str, Part] = {}

    def submit(count: int) -> list[Any]:
        """Submit parts in one message."""
        some = list(islice(waiting, count))
        futures: list[Any] = client.map(score, some, retries=_RETRIES, pure=False) if some else []
        by_key.update((future.key, part) for future, part in zip(futures, some, strict=True))
        return futures

    running = as_completed(submit(limit))  # with `with_results` it loses a future now and then, and waits for ever
    for future in running:
        yield _result(future, by_key.pop(future.key))
        if len(by_key) <= limit // 2:
            running.update(submit(limit - len(by_key)))


def _result(future: Any, part: Part) -> PartResult:
    error = future.exception()
    if error is None:
        result: PartResult = future.result()
        return result
    if isinstance(error, KilledWorker):
        problem = f"{part.location}: {error.allowed_failures + 1} workers died while they scored this part"
        return PartResult(part.number, store_error=f"{problem}; give the workers more memory, or see their logs")
    problem = str(error) if isinstance(error, StoreError) else f"{part.location}: {type(error).__name__}: {error}"
    return PartResult(part.number, store_error=problem)
