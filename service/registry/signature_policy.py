"""Check that a version is signed by a trusted key before it is served."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from model_store.errors import TrustError
from model_store.registry.store import Store
from service.config import SettingsError

# Called with a version's name, number and digest; raises TrustError unless a trusted key signed it.
SignatureCheck = Callable[[str, int, str], object]


def signature_check(trusted_keys: str, store: Store) -> SignatureCheck | None:
    """Return the check for SERVE_TRUSTED_KEYS, or None if it is empty. SettingsError if a key cannot be read."""
    if not trusted_keys:
        return None
    keys = read_trusted_keys(trusted_keys)
    from model_store.registry import signing  # noqa: PLC0415 - 40 ms and 10 MB, only if needed

    def check(name: str, number: int, digest: str) -> None:
        signing.verify(keys, name, number, digest, partial(store.signature, name, number))

    return check


def read_trusted_keys(trusted_keys: str) -> list[Any]:
    """Return the public keys in comma-separated files, none if the text is empty. SettingsError lists every fault."""
    if not trusted_keys:
        return []
    try:
        from model_store.registry import signing  # noqa: PLC0415 - as above
    except TrustError as e:
        raise SettingsError([f"SERVE_TRUSTED_KEYS: {e}"]) from e

    keys, faults = [], []
    for path in trusted_keys.split(","):
        try:
            keys.append(signing.load_public_key(Path(path.strip())))
        except TrustError as e:
            faults.append(f"SERVE_TRUSTED_KEYS: {e}")
    if faults:
        raise SettingsError(faults)
    return keys
