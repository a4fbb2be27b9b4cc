"""Objects in a bucket: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`, through obstore.

Credentials, region and endpoint come from the environment variables of each kind (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL,
GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME ...) or from the machine's own role.

A conditional write (`If-None-Match: *`) puts an object where there is none. An answer can be lost on the way, and the
next try then finds the key taken; so every draft carries a mark of its own, which tells whose object it is.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
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
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_CHUNK = 4 << 20
_FIRST_CHUNK = 64 << 10  # most manifests
_MAX_UPLOAD_TRIES = 5
_UPLOAD_ID = "draft"
_PROBE = re.compile(r"(^|/)\.probe-[0-9a-f]{16}$")
_DURATION = re.compile(r" in [0-9.]+[a-zµ]+(, after .*?retry_timeout: \S+)? +-")
_ACCESS_DENIED = re.compile(r"status code: 40[13]\b")  # of a listing, which obstore tells as any other error
# A follower must learn in seconds that its store is away; an upload is one request, however large.
_CLIENT_CONFIG: ClientConfig = {"allow_http": True, "connect_timeout": "5s", "timeout": "30s"}
_UPLOAD_CLIENT_CONFIG: ClientConfig = {**_CLIENT_CONFIG, "timeout": "2h"}
_RETRY_CONFIG: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}

_user_pid: list[int] = []  # the process whose threads obstore uses


class BucketStorage:
    """Objects in a bucket. Artifacts are read from verified copies in `cache_dir`."""

    fork_safe = False

    def __init__(self, location: str, cache_dir: Path) -> None:
        self.location = location.rstrip("/")
        self.cache_dir = cache_dir
        self._tags: dict[str, str | None] = {}
        self._read: dict[str, tuple[str | None, bytes]] = {}
        self._lock = threading.Lock()
        with _translate_errors():  # which starts no thread yet
            self._store = _connect(self.location, _CLIENT_CONFIG)
            self.uploads = _connect(self.location, _UPLOAD_CLIENT_CONFIG)

    def keys(self, *patterns: str) -> list[str]:
        starred = [pattern for pattern in patterns if "*" in pattern]
        found = [pattern for pattern in patterns if "*" not in pattern and self._exists(pattern)]
        if starred:
            found += self._listed(starred)
        return found

    def get(self, key: str) -> bytes:
        """Objects never change, so what was read once and is listed as it was then needs no second request."""
        with self._lock:
            tag, data = self._read.get(key, (None, b""))
            if tag is not None and self._tags.get(key) == tag:
                return data
        with _request():
            result = obstore.get(self._store, key)
            size = result.meta["size"]
            data = check_object_size(bytes(result.bytes()) if size <= MAX_SMALL_OBJECT_BYTES else b"", size)
        with self._lock:
            self._read[key] = (_normalized_etag(result.meta["e_tag"]), data)
        return data

    def read_manifest(self, key: str) -> tuple[dict[str, Any], str]:
        with _request():
            return npz.read_manifest_from_stream(
                obstore.open_reader(self._store, key, buffer_size=_FIRST_CHUNK), f"{self.location}/{key}"
            )

    def local_path(self, key: str, *, refresh: bool = False) -> Path:
        with _request():
            source: Any = obstore.open_reader(self._store, key, buffer_size=_CHUNK)

            def fetch(target: BinaryIO) -> None:
                source.seek(0)
                shutil.copyfileobj(source, target, _CHUNK)

            location = f"{self.location}/{key}"
            _, digest = npz.read_manifest_from_stream(source, location)
            if source.size > npz.MAX_FILE_BYTES:  # the cache's disk is not for whoever may write to the bucket
                raise ArtifactError(f"{location}: expected an artifact, found {source.size} bytes")
            return artifact_cache.cache_artifact(location, digest, fetch, self.cache_dir, refresh=refresh)

    @contextmanager
    def stage(self, key: str) -> Iterator[BucketStagedObject]:
        with tempfile.NamedTemporaryFile(prefix="forward-pass-") as file:
            yield BucketStagedObject(self, Path(file.name), file)

    def delete(self, key: str) -> None:
        with suppress(FileNotFoundError), _request():
            obstore.delete(self._store, key)

    def check_writable(self, key: str) -> None:
        probe = str(PurePosixPath(key).with_name(f".probe-{secrets.token_hex(8)}"))
        with self.stage(probe) as staged:
            staged.commit(probe)
        self.delete(probe)

    def object_info(self, key: str) -> ObjectInfo:
        with _request():
            meta = obstore.head(self._store, key)
        return ObjectInfo(meta["size"], meta["last_modified"])

    def abandoned_keys(self) -> list[str]:
        """What `check_writable` left when it died. Drafts are temporary files of the machines that make them."""
        with _request():
            return [meta["path"] for page in obstore.list(self._store) for meta in page if _PROBE.search(meta["path"])]

    def mark(self, key: str) -> str | None:
        """The mark of the draft that was kept under a key; None where there is none."""
        with suppress(FileNotFoundError), _request():
            return str(obstore.get(self._store, key, options={"head": True}).attributes.get(_UPLOAD_ID, ""))
        return None

    def _exists(self, key: str) -> bool:
        with suppress(FileNotFoundError), _request():
            obstore.head(self._store, key)
            return True
        return False

    def _listed(self, patterns: list[str]) -> list[str]:
        """What fits, from one listing of all that may."""
        folder = os.path.commonpath([f"/{pattern.partition('*')[0].rpartition('/')[0]}" for pattern in patterns])[1:]
        fits = re.compile("|".join(re.escape(pattern).replace(r"\*", NAME_PATTERN) for pattern in patterns))
        with _request():
            pages = obstore.list(self._store, prefix=folder or None)
            found = [meta for page in pages for meta in page if fits.fullmatch(meta["path"])]
            tags = {meta["path"]: _normalized_etag(meta["e_tag"]) for meta in found}
        with self._lock:
            self._tags.update(tags)
        return list(tags)


class BucketStagedObject:
    """A temporary file, and what is known of it where it is put."""

    def __init__(self, bucket: BucketStorage, path: Path, file: Any) -> None:
        self.path, self.file = path, file
        self._bucket, self._mark = bucket, secrets.token_hex(16)

    def commit(self, key: str) -> bool:
        self.file.flush()
        for _ in range(_MAX_UPLOAD_TRIES):
            try:
                with _request():
                    self._put(key)
                return True
            except OSError as e:
                mark = self._bucket.mark(key)
                if mark is not None:
                    return mark == self._mark  # it may have been put, and the answer lost
                if not isinstance(e, FileExistsError):
                    raise
                # Two were writing at once, and the server let neither: once more.
        raise OSError(errno.EBUSY, f"the store refused it {_MAX_UPLOAD_TRIES} times, though nothing has that key")

    def _put(self, key: str) -> None:
        obstore.put(
            self._bucket.uploads,
            key,
            self.path,
            mode="create",
            use_multipart=False,
            attributes={_UPLOAD_ID: self._mark},
        )


def _connect(location: str, client: ClientConfig) -> ObjectStore:
    return from_url(location, client_options=client, retry_config=_RETRY_CONFIG)


@contextmanager
def _request() -> Iterator[None]:
    """A request. obstore makes it in threads, which a fork would lose: the child would wait for ever."""
    if not _user_pid:
        _user_pid.append(os.getpid())
    if _user_pid != [os.getpid()]:
        raise OSError(errno.EIO, "this process was forked from one that had used a bucket; use it after the fork only")
    with _translate_errors():
        yield


@contextmanager
def _translate_errors() -> Iterator[None]:
    """obstore's errors as OSErrors."""
    try:
        yield
    except AlreadyExistsError as e:
        raise FileExistsError(errno.EEXIST, "the key is taken") from e
    except FileNotFoundError as e:
        raise FileNotFoundError(errno.ENOENT, _describe_error(e)) from e
    except BaseError as e:
        refused = isinstance(e, PermissionDeniedError | UnauthenticatedError) or _ACCESS_DENIED.search(str(e))
        fix = "; check the credentials in the environment and what they may do" if refused else ""
        raise OSError(errno.EIO, f"{_describe_error(e)}{fix}") from e


def _normalized_etag(found: str | None) -> str | None:
    """An ETag as listings and answers have it alike: Azure quotes it in the one alone."""
    return found.strip('"') if found else None


def _describe_error(error: Exception) -> str:
    """What happened, in the same words each time: obstore adds durations, structures and the server's whole answer."""
    text = str(error).partition("\n")[0].partition(": <")[0]
    code = re.search(r"<Code>(.*?)</Code>", str(error))
    return _DURATION.sub(":", text) + (f" ({code[1]})" if code else "")
