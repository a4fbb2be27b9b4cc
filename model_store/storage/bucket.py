"""The bucket backend: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`, via obstore.

Credentials, region and endpoint come from each provider's environment variables (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL,
GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME ...) or from the machine's role.

A conditional write (`If-None-Match: *`) puts an object only if the key is free. If the response is lost, the retry
finds the key taken; so every upload carries a random id, which tells whether the object is its own.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from model_store.artifact import npz
from model_store.errors import ArtifactError
from model_store.storage import artifact_cache
from model_store.storage.base import MAX_SMALL_OBJECT_BYTES, ObjectInfo, check_object_size
from model_store.utils.values import NAME_PATTERN

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_CHUNK_BYTES = 4 << 20
_MANIFEST_CHUNK_BYTES = 64 << 10  # holds most manifests
_MAX_UPLOAD_TRIES = 5
MAX_LISTED_OBJECTS = 1_000_000  # of one listing: a server that never ends it must not fill the memory
MAX_LISTING_SECONDS = 120.0
_MAX_CALLBACK_SECONDS = 1.0
_UPLOAD_ID = "draft"  # metadata key of the upload's id
_PROBE = re.compile(r"(^|/)\.probe-[0-9a-f]{16}$")
_DURATION = re.compile(r" in [0-9.]+[a-zµ]+(, after .*?retry_timeout: \S+)? +-")
_ACCESS_DENIED = re.compile(r"status code: 40[13]\b")  # of a listing: obstore raises its generic error
# A follower must notice an unreachable store within seconds; an upload is one request of any size.
_CLIENT_CONFIG: ClientConfig = {"allow_http": True, "connect_timeout": "5s", "timeout": "30s"}
_UPLOAD_CLIENT_CONFIG: ClientConfig = {**_CLIENT_CONFIG, "timeout": "2h"}
_RETRY_CONFIG: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}

_user_pid: list[int] = []  # the process that has obstore's threads, once it has used a bucket


class BucketStorage:
    """Objects of a bucket. Artifacts are read from verified copies in `cache_dir`."""

    fork_safe = False

    def __init__(self, url: str, cache_dir: Path) -> None:
        self.location = url.rstrip("/")
        self.cache_dir = cache_dir
        self._etags: dict[str, str | None] = {}
        self._cache: dict[str, tuple[str | None, bytes]] = {}
        self._lock = threading.Lock()
        with _translate_errors():  # connecting starts no thread yet
            self._store = connect_reader(self.location)
            self.upload_store = _connect(self.location, _UPLOAD_CLIENT_CONFIG)

    def keys(self, *patterns: str, unreadable: dict[str, OSError] | None = None) -> list[str]:
        wildcards = [pattern for pattern in patterns if "*" in pattern]
        found = [pattern for pattern in patterns if "*" not in pattern and self._exists(pattern)]
        if wildcards:
            found += self._list_matching(wildcards)
        return found

    def get(self, key: str) -> bytes:
        """Return a small object. It is not fetched again while its listed ETag is that of the last read."""
        with self._lock:
            etag, data = self._cache.get(key, (None, b""))
            if etag is not None and self._etags.get(key) == etag:
                return data
        with bucket_request():
            result = obstore.get(self._store, key)
            data = _read_small(result)
        with self._lock:
            self._cache[key] = (normalized_etag(result.meta["e_tag"]), data)
        return data

    def read_manifest(self, key: str) -> tuple[dict[str, Any], str]:
        with bucket_request():
            return npz.read_manifest_from_stream(
                obstore.open_reader(self._store, key, buffer_size=_MANIFEST_CHUNK_BYTES), f"{self.location}/{key}"
            )

    def local_path(self, key: str, *, refresh: bool = False) -> Path:
        with bucket_request():
            source: Any = obstore.open_reader(self._store, key, buffer_size=_CHUNK_BYTES)

            def fetch(target: BinaryIO) -> None:
                source.seek(0)
                shutil.copyfileobj(source, target, _CHUNK_BYTES)

            location = f"{self.location}/{key}"
            digest = npz.read_claimed_digest_from_stream(source, location)
            if source.size > npz.MAX_FILE_BYTES:  # writers to the bucket must not fill the cache's disk
                raise ArtifactError(f"{location}: expected an artifact, found {source.size} bytes")
            return artifact_cache.cache_artifact(location, digest, fetch, self.cache_dir, refresh=refresh)

    @contextmanager
    def stage(self, key: str) -> Iterator[BucketStagedObject]:
        with tempfile.NamedTemporaryFile(prefix="forward-pass-") as file:
            yield BucketStagedObject(self, Path(file.name), file)

    def delete(self, key: str) -> None:
        with suppress(FileNotFoundError), bucket_request():
            obstore.delete(self._store, key)

    def check_writable(self, key: str) -> None:
        probe = str(PurePosixPath(key).with_name(f".probe-{secrets.token_hex(8)}"))
        with self.stage(probe) as staged:
            staged.commit(probe)
        self.delete(probe)

    def object_info(self, key: str) -> ObjectInfo:
        with bucket_request():
            meta = obstore.head(self._store, key)
        return ObjectInfo(meta["size"], meta["last_modified"])

    def abandoned_keys(self) -> list[str]:
        """Return the probes of interrupted `check_writable` calls; staged objects are temporary files, not objects."""
        with bucket_request():
            return [meta["path"] for meta in self._list("", _PROBE.search)]

    def upload_id(self, key: str) -> str | None:
        """Return the id of the upload that put an object, None if the key is free."""
        with suppress(FileNotFoundError), bucket_request():
            return str(obstore.get(self._store, key, options={"head": True}).attributes.get(_UPLOAD_ID, ""))
        return None

    def _exists(self, key: str) -> bool:
        with suppress(FileNotFoundError), bucket_request():
            obstore.head(self._store, key)
            return True
        return False

    def _list_matching(self, patterns: list[str]) -> list[str]:
        """Return the keys that match, from one listing of their common folder."""
        folder = os.path.commonpath([f"/{pattern.partition('*')[0].rpartition('/')[0]}" for pattern in patterns])[1:]
        matching = re.compile("|".join(re.escape(pattern).replace(r"\*", NAME_PATTERN) for pattern in patterns))
        with bucket_request():
            found = self._list(folder, matching.fullmatch)
            etags = {meta["path"]: normalized_etag(meta["e_tag"]) for meta in found}
        with self._lock:
            self._etags.update(etags)
        return list(etags)

    def _list(self, folder: str, matches: Callable[[str], object]) -> list[ObjectMeta]:
        """Return the objects in a folder whose keys match. OSError if the listing is too long or never ends."""
        listing: Future[list[ObjectMeta]] = Future()

        def run() -> None:
            try:
                with _waiting_for_callbacks():
                    found = asyncio.run(self._list_in_time(folder, matches))
                listing.set_result(found)
            except BaseException as error:  # noqa: BLE001 - raised by `result`
                listing.set_exception(error)

        # asyncio needs a thread without an event loop. A daemon, as a process that ends waits for no bucket.
        threading.Thread(target=run, name="list-bucket", daemon=True).start()
        return listing.result()

    async def _list_in_time(self, folder: str, matches: Callable[[str], object]) -> list[ObjectMeta]:
        found: list[ObjectMeta] = []
        seen = 0
        place = folder or "the store"
        try:
            async with asyncio.timeout(MAX_LISTING_SECONDS):
                # A server that sends empty pages without end never ends the wait for the next one.
                async for page in obstore.list(self._store, prefix=folder or None):
                    seen += len(page)
                    if seen > MAX_LISTED_OBJECTS:
                        problem = f"expected at most {MAX_LISTED_OBJECTS} objects in {place}, found more"
                        raise OSError(errno.EFBIG, f"{problem}; choose a prefix that only the store uses")
                    found += [meta for meta in page if matches(meta["path"])]
        except TimeoutError as e:
            problem = f"expected the list of {place} within {MAX_LISTING_SECONDS:g} s, found no end"
            raise OSError(errno.ETIMEDOUT, problem) from e
        return found


class BucketStagedObject:
    """A temporary file that `commit` uploads to its key."""

    def __init__(self, bucket: BucketStorage, path: Path, file: Any) -> None:
        self.path, self.file = path, file
        self._bucket, self._upload_id = bucket, secrets.token_hex(16)

    def commit(self, key: str) -> bool:
        self.file.flush()
        for _ in range(_MAX_UPLOAD_TRIES):
            try:
                with bucket_request():
                    self._put(key)
                return True
            except OSError as e:
                found = self._bucket.upload_id(key)
                if found is not None:
                    return found == self._upload_id  # the upload may have succeeded and its response been lost
                if not isinstance(e, FileExistsError):
                    raise
                # Two concurrent writers, and the server rejected both: retry.
        raise OSError(errno.EBUSY, f"the server rejected it {_MAX_UPLOAD_TRIES} times, although the key is free")

    def _put(self, key: str) -> None:
        obstore.put(
            self._bucket.upload_store,
            key,
            self.path,
            mode="create",
            use_multipart=False,
            attributes={_UPLOAD_ID: self._upload_id},
        )


@contextmanager
def _waiting_for_callbacks() -> Iterator[None]:
    """Wait at the end until obstore's threads have left Python: a process that ends during a callback is aborted."""
    before = sys._current_frames().keys()
    try:
        yield
    finally:
        end = time.monotonic() + _MAX_CALLBACK_SECONDS
        while time.monotonic() < end:
            known = {thread.ident for thread in threading.enumerate()}
            if not sys._current_frames().keys() - before - known:
                break
            time.sleep(0.001)


def _read_small(result: GetResult) -> bytes:
    """Return the object. OSError if it is large, also where the server said otherwise."""
    size, data = result.meta["size"], bytearray()
    for chunk in result.stream() if size <= MAX_SMALL_OBJECT_BYTES else ():
        data += chunk
        if len(data) > MAX_SMALL_OBJECT_BYTES:
            break
    return check_object_size(bytes(data), max(size, len(data)))


def connect_reader(url: str) -> ObjectStore:
    """Return a client of a bucket, or of a prefix of it, for requests of some megabytes."""
    return _connect(url, _CLIENT_CONFIG)


def _connect(url: str, client: ClientConfig) -> ObjectStore:
    return from_url(url, client_options=client, retry_config=_RETRY_CONFIG)


@contextmanager
def bucket_request() -> Iterator[None]:
    """Make a request. obstore uses threads, which a fork would lose: the child would wait for ever."""
    if not _user_pid:
        _user_pid.append(os.getpid())
    if _user_pid != [os.getpid()]:
        raise OSError(
            errno.EIO, "this process was forked from one that had used a bucket; open the bucket only after the fork"
        )
    with _translate_errors():
        yield


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise obstore's errors as OSErrors."""
    try:
        yield
    except AlreadyExistsError as e:
        raise FileExistsError(errno.EEXIST, "the key is taken") from e
    except FileNotFoundError as e:
        raise FileNotFoundError(errno.ENOENT, _describe_error(e)) from e
    except BaseError as e:
        denied = isinstance(e, PermissionDeniedError | UnauthenticatedError) or _ACCESS_DENIED.search(str(e))
        fix = "; check the credentials in the environment and their permissions" if denied else ""
        raise OSError(errno.EIO, f"{_describe_error(e)}{fix}") from e


def normalized_etag(found: str | None) -> str | None:
    """Return an ETag without quotes: Azure quotes it in responses or listings, not in both."""
    return found.strip('"') if found else None


def _describe_error(error: Exception) -> str:
    """Return obstore's message without the parts that vary: durations, structures and the server's whole response."""
    text = str(error).partition("\n")[0].partition(": <")[0]
    code = re.search(r"<Code>(.*?)</Code>", str(error))
    return _DURATION.sub(":", text) + (f" ({code[1]})" if code else "")
