"""The artifact of a batch job in each process that scores: fetched once for each machine, verified, and mapped.

The digest in the plan decides: a store whose version had been replaced, or a worker with another store, is an error.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from model_store.artifact import npz
from model_store.artifact.model import Model
from model_store.batch.plan import ScoredModel
from model_store.errors import ArtifactError
from model_store.storage.artifact_cache import cache_artifact, cache_file, default_cache_dir, store_cache_dir
from model_store.storage.base import translate_os_errors
from model_store.storage.input_files import is_bucket_url
from model_store.storage.open_storage import open_storage
from model_store.utils.malloc import set_malloc_thresholds

_KEPT_BLOCK_BYTES, _KEPT_BYTES = 32 << 20, 64 << 20  # glibc's limits for the memory of threads


@dataclass(frozen=True)
class ModelSource:
    """Where a process gets the model: from the store, or from `content`, the bytes of the artifact."""

    store: str
    model: ScoredModel
    content: bytes | None = field(default=None, repr=False)

    @property
    def _key(self) -> str:
        return f"{self.model.name}/{self.model.version}.npz"

    def load(self) -> Model:
        """Return the model, mapped from a verified copy that all processes of this machine share.

        BLAS has one thread from now on, as in the service: with another number a row may get other bits. malloc keeps
        freed memory for the next batch of rows: a worker thread got 470 kB of zeroed pages per 1,000 rows from the
        kernel without, which took a quarter of its time.
        """
        threadpool_limits(1, user_api="blas")
        set_malloc_thresholds(_KEPT_BLOCK_BYTES, _KEPT_BYTES)
        path = self._cached_copy()
        model = npz.read(path, mapped=True)
        if model.digest != self.model.digest:
            problem = f"expected the digest {self.model.digest}, found {model.digest}"
            raise ArtifactError(f"{self.store}/{self._key}: {problem}; the version has been replaced")
        return model

    def with_content(self) -> ModelSource:
        """Return a source for machines that may not reach the store: a directory is not the same one everywhere."""
        if is_bucket_url(self.store):
            return self
        with translate_os_errors(self._key, "read a version"):
            return replace(self, content=self._cached_copy().read_bytes())

    def _cached_copy(self) -> Path:
        cache_dir = store_cache_dir(default_cache_dir(os.environ), self.store)
        if self.content is not None:
            return cache_artifact(self._key, self.model.digest, self._write, cache_dir)
        with translate_os_errors(self._key, "fetch a version"):
            return cache_file(open_storage(self.store).local_path(self._key), cache_dir)

    def _write(self, target: BinaryIO) -> None:
        target.write(self.content or b"")
