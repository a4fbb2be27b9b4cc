"""Choose the backend for a store's location: a directory, or the URL of a bucket."""

from __future__ import annotations

import os
from pathlib import Path

from model_store.errors import StoreError
from model_store.storage.artifact_cache import default_cache_dir, store_cache_dir
from model_store.storage.base import StorageBackend, translate_os_errors
from model_store.storage.local import LocalStorage
from model_store.utils.extras import install_command

BUCKET_SCHEMES = ("s3", "gs", "az")


def open_storage(location: str | os.PathLike[str], cache_dir: Path | None = None) -> StorageBackend:
    """Return the backend of a directory, which need not exist yet, or of a bucket's URL.

    `cache_dir` holds copies of a bucket's artifacts; by default it is in the user's cache directory.
    """
    text = os.fspath(location)
    scheme, slashes, _ = text.partition("://")
    if slashes and scheme in BUCKET_SCHEMES:
        return _open_bucket(text, store_cache_dir(cache_dir or default_cache_dir(os.environ), text))
    if slashes or not text:
        kinds = ", ".join(f"{known}://" for known in BUCKET_SCHEMES)
        raise StoreError(f"store: expected the path of a directory, or a URL with {kinds}; found {text!r}")
    root = Path(text).expanduser()
    if os.path.exists(root) and not os.path.isdir(root):  # noqa: PTH110, PTH112 - Path's raise without permission
        raise StoreError(f"{text}: expected a directory, found a file; choose another store")
    return LocalStorage(root)


def _open_bucket(url: str, cache_dir: Path) -> StorageBackend:
    try:
        from model_store.storage.bucket import BucketStorage  # noqa: PLC0415 - obstore is an optional dependency
    except ModuleNotFoundError as e:
        raise StoreError(f"{url}: needs obstore; install it with: {install_command('buckets')}") from e
    with translate_os_errors(url, "open the model store"):
        return BucketStorage(url, cache_dir)
