"""Copy a version from one store to another: the same bytes, with its signatures and its publication record."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from model_store.artifact import npz
from model_store.errors import ArtifactError
from model_store.registry.index import check_name, read_model_index
from model_store.registry.publication import Publication, commit_version
from model_store.registry.store import Store, Version
from model_store.storage.base import translate_os_errors
from model_store.utils.regular_file import open_regular
from model_store.utils.values import is_name

_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class CopyResult:
    """The version at the destination; whether it was added or there before; the keys whose signatures it has now."""

    version: Version
    added: bool
    signed_by: list[str]


def copy_version(
    source: Store, name: str, number: int, destination: Store, new_name: str, *, who: str, when: datetime
) -> CopyResult:
    """Copy a version under the next free number of `new_name`, unless the destination has a version of its digest.

    The artifact is verified as read, and again as stored. A copy that was interrupted is completed by a second one. A
    signature covers the name, so signatures are copied only under the same name. ArtifactError if either side is
    damaged, StoreError if a signature or the record cannot be read; the version is not added then.
    """
    original, _ = source.load(name, number)
    keys = source.signing_keys(name, number) if new_name == name else []
    signatures = {key: source.signature(name, number, key) for key in keys}
    present = _number_of(destination, new_name, original.digest)
    if present is None:
        record = source.publication(name, number).copied(original.location, who, when)
        present, added = _put_copy(source.path(name, number), original.digest, destination, new_name, record), True
    else:
        added = False
    version, _ = destination.load(new_name, present)
    if version.digest != original.digest:
        raise ArtifactError(f"{version.location}: expected the digest {original.digest}, found {version.digest}")
    for key, signature in signatures.items():
        if signature is not None:
            destination.add_signature(new_name, present, key, signature)
    return CopyResult(version, added, destination.signing_keys(new_name, present))


def _put_copy(artifact: Path, digest: str, destination: Store, name: str, record: Publication) -> int:
    """Put a copy of an artifact as the next version. Return its number."""
    storage = destination.storage
    check_name("model", name)
    with translate_os_errors(f"{storage.location}/{name}", "publish"), storage.stage(f"{name}/1.npz") as staged:
        with open_regular(artifact) as file:
            shutil.copyfileobj(file, staged.file, _CHUNK_BYTES)
        staged.file.flush()
        found = npz.read(staged.path).digest
        if found != digest:
            raise ArtifactError(f"{artifact}: expected the digest {digest}, found {found}")
        last_number = max(read_model_index(storage, name, "*").exists_by_number, default=0)
        return commit_version(storage, staged, name, last_number, record)


def _number_of(store: Store, name: str, digest: str) -> int | None:
    """Return the newest version of a digest, None if there is none. Damaged versions are no obstacle."""
    numbers = read_model_index(store.storage, name, "*").versions if is_name(name) else []
    for number in reversed(numbers):
        try:
            if store.manifest(name, number)[0].digest == digest:
                return number
        except ArtifactError:
            continue
    return None
