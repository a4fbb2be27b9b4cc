"""A hash of texts that has the same value in every run, by which many texts are counted in little memory."""

from __future__ import annotations

import hashlib


def hash_text(text: str) -> int:
    """Return 64 bits of the BLAKE2b hash of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
