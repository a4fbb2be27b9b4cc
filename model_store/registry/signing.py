"""Signing: who vouches for a model, by an Ed25519 signature of its name and digest.

What is signed is text of three lines, each with a newline at its end:

    forward-pass model 1
    penguins
    5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef

The digest vouches for every byte that a model is made of, so whoever holds the key says: this model, under this name.
A signature says nothing of version numbers and aliases: who may write to the store can still choose among all versions
of that name that were signed. It is 64 bytes and lies beside its version (see store.py), so that a model is signed
when it has been looked at, by as many keys as there are people to convince, and its own file never changes.

Keys are PEM files, as OpenSSL has them: the private one in PKCS #8, unencrypted and readable by its owner alone, the
public one as SubjectPublicKeyInfo. A key is called by its fingerprint: 16 hexadecimal digits of the SHA-256 of its
32 bytes. That is a name to look a signature up by; what decides is the key.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from model_store.errors import TrustError

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
        load_pem_public_key,
    )
except ImportError as e:
    raise TrustError("signatures need cryptography; install it with: pip install 'forward-pass[signing]'") from e

PublicKey: TypeAlias = Ed25519PublicKey
PrivateKey: TypeAlias = Ed25519PrivateKey
SIGNATURE_BYTES = 64

_MAX_KEY_BYTES = 10_000
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def signed_message(name: str, digest: str) -> bytes:
    """What is signed. A name has no newline in it (see store.py), so no two statements are alike."""
    return f"forward-pass model 1\n{name}\n{digest}\n".encode()


def fingerprint(key: PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def sign(key: PrivateKey, name: str, digest: str) -> bytes:
    """The 64 bytes. The same key, name and digest always give the same."""
    return key.sign(signed_message(name, digest))


def verify(keys: Sequence[PublicKey], name: str, number: int, digest: str, find: Callable[[str], bytes | None]) -> str:
    """The fingerprint of the first of `keys` that vouches for a version; TrustError when none does.

    `find` gives the signature of that version by the key of a fingerprint, where there is one.
    """
    wrong = ""
    for key in keys:
        called = fingerprint(key)
        signature = find(called)
        if signature is None:
            continue
        try:
            key.verify(signature, signed_message(name, digest))
        except InvalidSignature:
            wrong = wrong or f"one of {called} for something else"
        else:
            return called
    expected = " or ".join(fingerprint(key) for key in keys)
    raise TrustError(
        f"{name}/{number}: expected a signature by {expected}, found {wrong or 'none'}; "
        f"look at it, then: models sign {name}/{number} --key FILE"
    )


def generate_key(path: Path) -> PublicKey:
    """Make a key: the private half at `path`, the public half at `path` + ".pub". Nothing is ever overwritten."""
    key = PrivateKey.generate()
    public = key.public_key()
    private_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public_pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _create_key_file(path, private_pem, 0o600)
    try:
        _create_key_file(public_key_path(path), public_pem, 0o644)
    except TrustError:
        path.unlink()
        raise
    return public


def public_key_path(path: Path) -> Path:
    return path.with_name(path.name + ".pub")


def load_private_key(path: Path) -> PrivateKey:
    data, mode = _read_key_file(path)
    if b"PUBLIC KEY" in data:
        raise TrustError(f"{path}: expected a private key, found a public one; sign with the one that it belongs to")
    if mode & 0o077:
        raise TrustError(f"{path}: expected a key that its owner alone can read, found mode {mode:o}; chmod 600 {path}")
    try:
        key = load_pem_private_key(data, None)
    except TypeError as e:
        raise TrustError(f"{path}: expected a key without a passphrase, found it encrypted") from e
    except (ValueError, UnsupportedAlgorithm) as e:
        raise TrustError(f"{path}: expected a private key in PEM, found something else; models keygen makes one") from e
    if not isinstance(key, PrivateKey):
        raise TrustError(f"{path}: expected an Ed25519 key, found another kind; models keygen makes one")
    return key


def load_public_key(path: Path) -> PublicKey:
    data, _ = _read_key_file(path)
    if b"PRIVATE KEY" in data:
        raise TrustError(
            f"{path}: expected a public key, found a private one; keep that, and give {public_key_path(path)}"
        )
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as e:
        raise TrustError(f"{path}: expected a public key in PEM, found something else; models keygen makes one") from e
    if not isinstance(key, PublicKey):
        raise TrustError(f"{path}: expected an Ed25519 key, found another kind; models keygen makes one")
    return key


def _read_key_file(path: Path) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY_BYTES), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as e:
        raise TrustError(f"{path}: expected a key to read; {e.strerror or e}") from e


def _create_key_file(path: Path, data: bytes, mode: int) -> None:
    try:
        with os.fdopen(os.open(path, _CREATE, mode), "wb") as file:
            file.write(data)
    except FileExistsError as e:
        raise TrustError(f"{path}: expected a new name for the key, found a file; a key is never overwritten") from e
    except OSError as e:
        raise TrustError(f"{path}: cannot write the key: {e.strerror or e}") from e
