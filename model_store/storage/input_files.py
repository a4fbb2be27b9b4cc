"""Input files of a batch job: local files and objects of buckets, found by patterns and read by ranges of bytes.

The entity tag of a file changes with its content, so a job that runs for hours or is continued the next day does not
mix two states of its input.
"""

from __future__ import annotations

import glob
import io
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from model_store.errors import Fault, InputError, StoreError
from model_store.storage.base import translate_os_errors
from model_store.storage.open_storage import BUCKET_SCHEMES
from model_store.utils.extras import install_command
from model_store.utils.regular_file import open_regular

_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class InputFile:
    """A file at a path or a URL, with its size in bytes and its entity tag."""

    location: str
    size: int
    etag: str

    @property
    def name(self) -> str:
        """The last part of the location."""
        return self.location.rpartition("/")[2]

    def open(self, buffer_bytes: int = 0) -> BinaryIO:
        """Open the file for reading, with `seek`; an object of a bucket is fetched in ranges of `buffer_bytes` or more.

        OSError or StoreError if it cannot be read; StoreError if it is not the one that was listed.
        """
        if is_bucket_url(self.location):
            from model_store.storage.bucket_files import ObjectReader  # noqa: PLC0415 - obstore is an optional dependency

            reader = ObjectReader(self.location, self.size, self.etag)
            return io.BufferedReader(reader, buffer_bytes) if buffer_bytes else reader  # type: ignore[return-value]
        file = open_regular(Path(self.location))
        if _local_etag(os.fstat(file.fileno())) != self.etag:
            file.close()
            raise StoreError(f"{self.location}: {CHANGED}")
        return file


CHANGED = "the file has changed since the job began; use a new output folder"


def is_bucket_url(location: str) -> bool:
    """Return True for the URL of a bucket or of an object in it."""
    return location.partition("://")[0] in BUCKET_SCHEMES and "://" in location


def list_input_files(patterns: Iterable[str]) -> list[InputFile]:
    """Return the files that match, sorted by location, each once.

    A pattern is a path or a URL: of a file, of a folder, whose files are meant, or with `*`, `?`, `[...]` and `**/`.
    Names that begin with "_" or "." are left out unless they are given. InputError if nothing matches a pattern.
    """
    found: dict[str, InputFile] = {}
    faults = []
    for pattern in patterns:
        files = _list_bucket(pattern) if is_bucket_url(pattern) else _list_local(pattern)
        if not files:
            faults.append(Fault(pattern, "expected files, found none", "check the path or the pattern"))
        found |= {file.location: file for file in files}
    if faults:
        raise InputError(faults)
    return [found[location] for location in sorted(found)]


def matches(pattern: str, location: str) -> bool:
    """Return True if a file at this location would be among those of the pattern."""
    base, glob_part = split_pattern(pattern)
    if glob_part:
        return pattern_expression(pattern).fullmatch(location) is not None and not _is_hidden(location)
    return location.rpartition("/")[0] == base.rstrip("/")


def split_pattern(pattern: str) -> tuple[str, str]:
    """Return the folder before the first wildcard, and the rest; the pattern and "" if it has none."""
    wildcard = _WILDCARD.search(pattern)
    if wildcard is None:
        return pattern, ""
    end = pattern.rfind("/", 0, wildcard.start()) + 1
    return pattern[:end], pattern[end:]


def pattern_expression(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern; `*` and `?` match no slash, `**/` any number of folders."""
    parts, i = [], 0
    while i < len(pattern):
        if pattern.startswith("**/", i):
            parts.append("(?:.*/)?")
            i += 3
        elif pattern[i] in "*?":
            parts.append("[^/]*" if pattern[i] == "*" else "[^/]")
            i += 1
        elif pattern[i] == "[" and (end := pattern.find("]", i + 2)) > 0:
            inside = pattern[i + 1 : end].replace("\\", r"\\")
            parts.append(f"[{'^' + inside[1:] if inside[0] == '!' else inside}]")
            i = end + 1
        else:
            parts.append(re.escape(pattern[i]))
            i += 1
    return re.compile("".join(parts))


def _list_local(pattern: str) -> list[InputFile]:
    paths = [Path(found) for found in glob.glob(pattern, recursive=True)] if split_pattern(pattern)[1] else []  # noqa: PTH207
    path = Path(pattern)
    if path.is_dir():
        paths = [each for each in path.iterdir() if not _is_hidden(str(each))]
    elif path.exists():
        paths = [path]
    else:
        paths = [each for each in paths if not _is_hidden(str(each))]
    files = []
    for each in paths:
        if each.is_file():
            status = each.stat()
            files.append(InputFile(str(each), status.st_size, _local_etag(status)))
    return files


def _list_bucket(pattern: str) -> list[InputFile]:
    try:
        from model_store.storage import bucket_files  # noqa: PLC0415 - obstore is an optional dependency
    except ModuleNotFoundError as e:
        raise StoreError(f"{pattern}: needs obstore; install it with: {install_command('buckets')}") from e
    folder, wildcards = split_pattern(pattern)
    with translate_os_errors(pattern, "list the files", {}):
        if not wildcards and not pattern.endswith("/") and (found := bucket_files.find_object(pattern)):
            return [InputFile(*found)]
        prefix = folder if wildcards else f"{folder.rstrip('/')}/"
        expression = pattern_expression(pattern if wildcards else f"{glob.escape(prefix)}*")
        listed = bucket_files.list_objects(prefix)
        return [InputFile(*each) for each in listed if expression.fullmatch(each[0]) and not _is_hidden(each[0])]


def _is_hidden(location: str) -> bool:
    return location.rpartition("/")[2].startswith(("_", "."))


def _local_etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"
