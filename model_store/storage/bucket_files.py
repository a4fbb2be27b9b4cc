"""Objects of any bucket as files: listed, and read by ranges of bytes. See bucket.py for credentials and errors."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

import obstore
from obstore.store import ObjectStore

from model_store.errors import StoreError
from model_store.storage.base import translate_os_errors
from model_store.storage.bucket import MAX_LISTED_OBJECTS, bucket_request, connect_reader, normalized_etag
from model_store.storage.input_files import CHANGED

ObjectFacts = tuple[str, int, str]  # URL, size in bytes, entity tag


@lru_cache(maxsize=64)
def _open_bucket(url: str) -> ObjectStore:
    with bucket_request():
        return connect_reader(url)


def _split_url(url: str) -> tuple[str, str]:
    """Return the URL of the bucket, and the key."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}", key


def find_object(url: str) -> ObjectFacts | None:
    """Return size and entity tag of an object, None if there is none."""
    bucket, key = _split_url(url)
    with suppress(FileNotFoundError), bucket_request():
        meta = obstore.head(_open_bucket(bucket), key)
        return url, meta["size"], normalized_etag(meta["e_tag"]) or ""
    return None


def list_objects(prefix: str) -> Iterator[ObjectFacts]:
    """Yield the objects below a URL that ends with a slash. OSError if they are more than a million."""
    bucket, folder = _split_url(prefix)
    seen = 0
    with bucket_request():
        for page in obstore.list(_open_bucket(bucket), prefix=folder.rstrip("/") or None):
            seen += len(page)
            if seen > MAX_LISTED_OBJECTS:
                problem = f"expected at most {MAX_LISTED_OBJECTS} objects in {prefix}, found more"
                raise OSError(errno.EFBIG, f"{problem}; use a narrower pattern")
            for meta in page:
                yield f"{bucket}/{meta['path']}", meta["size"], normalized_etag(meta["e_tag"]) or ""


class ObjectReader(io.RawIOBase):
    """An object as a file: each read is a request of a range.

    StoreError if the bucket cannot be reached, or if the object is not the one of that tag: the parsers of files would
    take an OSError for a damaged file.
    """

    def __init__(self, url: str, size: int, etag: str) -> None:
        bucket, self._key = _split_url(url)
        self._url, self._size, self._etag = url, size, etag
        with translate_os_errors(url, "read the file", {}):
            self._store = _open_bucket(bucket)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        with translate_os_errors(self._url, "read the file", {}), bucket_request():
            result = obstore.get(self._store, self._key, options={"range": (self._position, end)})
            if (normalized_etag(result.meta["e_tag"]) or "", result.meta["size"]) != (self._etag, self._size):
                raise StoreError(f"{self._url}: {CHANGED}")
            data = result.bytes()
        view = memoryview(buffer).cast("B")
        view[: len(data)] = memoryview(data)
        self._position += len(data)
        return len(data)
