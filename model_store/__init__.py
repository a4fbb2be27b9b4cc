"""The model store: what a model is, and where its versions are kept.

`open_store`, `publish` and `make_signature` are imported when they are first used, so that `model_store.nn` needs NumPy
alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model_store.publishing import make_signature, publish
    from model_store.registry.store import open_store

__all__ = ["make_signature", "open_store", "publish"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from model_store import publishing  # noqa: PLC0415 - see above

    return getattr(publishing, name)
