"""Trust: whose signature a version needs before it is served."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from model_store.errors import TrustError
from model_store.registry.store import Store
from service.config import SettingsError

SignatureCheck = Callable[
    [str, int, str], object
]  # of a version's name, number and digest: TrustError unless it is trusted


def signature_check(trusted_keys: str, store: Store) -> SignatureCheck | None:
    """None where every model is served. SettingsError for keys that cannot be read: better nothing than everything."""
    if not trusted_keys:
        return None
    try:
        from model_store.registry import signing  # noqa: PLC0415 - 40 ms and 10 MB, for those who ask for it
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
