"""Check that a version is signed by a trusted key before it is served."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from model_store.errors import TrustError
from model_store.registry.store import Store
from service.config import SettingsError

# Called with a version's name, number and digest; raises TrustError unless a trusted key signed it.
SignatureCheck = Callable[[str, int, str], object]


def signature_check(trusted_keys: str, store: Store) -> SignatureCheck | None:
    """Return the check for SERVE_TRUSTED_KEYS, or None if it is empty. SettingsError if a key cannot be read."""
    if not trusted_keys:
        return None
    try:
        from model_store.registry import signing  # noqa: PLC0415 - 40 ms and 10 MB, only if needed
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

    def check(name: str, number: int, digest: str) -> None:
        signing.verify(keys, name, number, digest, partial(store.signature, name, number))

    return check
