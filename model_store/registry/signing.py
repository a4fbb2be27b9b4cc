"""Signing: Ed25519 signatures of a model's name and digest.

The signed message is text of three lines, each ending in a newline:

    forward-pass model 1
    penguins
    5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef

The digest covers every byte of a model, so a signature states: this model, under this name. It does not cover version
numbers or aliases: a writer to the store can still choose among all signed versions of that name. A signature has 64
bytes and is an object next to its version (see store.py). So a model can be signed after a review, by any number of
keys, and its file never changes.

Keys are PEM files in OpenSSL's formats: the private key in PKCS #8, unencrypted and readable only by its owner, the
public key as SubjectPublicKeyInfo. A key's fingerprint is the first 16 hexadecimal digits of the SHA-256 of its 32
bytes. It is only used to find a signature; verification uses the key.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias

from model_store.errors import SigningKeyError, TrustError
from model_store.utils.extras import install_command
from model_store.utils.regular_file import open_regular

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
    raise TrustError(f"signatures need cryptography; install it with: {install_command('signing')}") from e

PublicKey: TypeAlias = Ed25519PublicKey
PrivateKey: TypeAlias = Ed25519PrivateKey
SIGNATURE_BYTES = 64

_MAX_KEY_BYTES = 10_000
_OTHER_KIND_OF_KEY = "expected an Ed25519 key, found another kind of key; create one with models keygen"
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def signed_message(name: str, digest: str) -> bytes:
    """Return the signed message. A name contains no newline (see store.py), so messages are unambiguous."""
    return f"forward-pass model 1\n{name}\n{digest}\n".encode()


def fingerprint(key: PublicKey) -> str:
    """Return the fingerprint of a key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def sign(key: PrivateKey, name: str, digest: str) -> bytes:
    """Return the signature, 64 bytes: always the same for the same key, name and digest."""
    return key.sign(signed_message(name, digest))


def verify(keys: Sequence[PublicKey], name: str, number: int, digest: str, find: Callable[[str], bytes | None]) -> str:
    """Return the fingerprint of the first of `keys` that signed a version. TrustError if none did.

    `find` returns the signature of that version by the key of a fingerprint, None if there is none.
    """
    invalid = ""
    for key in keys:
        key_fingerprint = fingerprint(key)
        signature = find(key_fingerprint)
        if signature is None:
            continue
        try:
            key.verify(signature, signed_message(name, digest))
        except InvalidSignature:
            invalid = invalid or f"an invalid one by {key_fingerprint}"
        else:
            return key_fingerprint
    expected = " or ".join(fingerprint(key) for key in keys)
    raise TrustError(
        f"{name}/{number}: expected a signature by {expected}, found {invalid or 'none'}; "
        f"review it, then run: models sign {name}/{number} --key FILE"
    )


def generate_key(path: Path) -> PublicKey:
    """Create a key pair: the private key at `path`, the public key at `path` + ".pub". No file is overwritten."""
    key = PrivateKey.generate()
    public = key.public_key()
    private_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public_pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _create_key_file(path, private_pem, 0o600)
    try:
        _create_key_file(public_key_path(path), public_pem, 0o644)
    except SigningKeyError:
        path.unlink()
        raise
    return public


def public_key_path(path: Path) -> Path:
    """Return where `generate_key` writes the public key of the private key at `path`."""
    return path.with_name(path.name + ".pub")


def load_private_key(path: Path) -> PrivateKey:
    """Read a private key. SigningKeyError if it is not a usable one, or if other users can read it."""
    data, mode = _read_key_file(path, lambda path: path.open("rb"))  # may be a pipe from a secret manager
    if b"PUBLIC KEY" in data:
        raise SigningKeyError(f"{path}: expected a private key, found a public key; sign with its private key")
    if mode & 0o077:
        raise SigningKeyError(
            f"{path}: expected a key that only its owner can read, found mode {mode:o}; chmod 600 {path}"
        )
    try:
        key = load_pem_private_key(data, None)
    except TypeError as e:
        raise SigningKeyError(f"{path}: expected a key without a passphrase, found an encrypted key") from e
    except (ValueError, UnsupportedAlgorithm) as e:
        raise SigningKeyError(
            f"{path}: expected a private key in PEM, found something else; create a key with models keygen"
        ) from e
    if not isinstance(key, PrivateKey):
        raise SigningKeyError(f"{path}: {_OTHER_KIND_OF_KEY}")
    return key


def load_public_key(path: Path) -> PublicKey:
    """Read a public key. SigningKeyError if it is not a usable one."""
    data, _ = _read_key_file(path, open_regular)  # a service reads it as it starts: a pipe must not block it
    if b"PRIVATE KEY" in data:
        raise SigningKeyError(f"{path}: expected a public key, found a private key; pass {public_key_path(path)}")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as e:
        raise SigningKeyError(
            f"{path}: expected a public key in PEM, found something else; create a key with models keygen"
        ) from e
    if not isinstance(key, PublicKey):
        raise SigningKeyError(f"{path}: {_OTHER_KIND_OF_KEY}")
    return key


def _read_key_file(path: Path, open_file: Callable[[Path], BinaryIO]) -> tuple[bytes, int]:
    try:
        with open_file(path) as file:
            return file.read(_MAX_KEY_BYTES), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as e:
        raise SigningKeyError(f"{path}: expected a key file that can be read; {e.strerror or e}; check the path") from e


def _create_key_file(path: Path, data: bytes, mode: int) -> None:
    try:
        with os.fdopen(os.open(path, _CREATE_FLAGS, mode), "wb") as file:
            file.write(data)
    except FileExistsError as e:
        raise SigningKeyError(f"{path}: file already exists; a key is never overwritten, choose another name") from e
    except OSError as e:
        raise SigningKeyError(f"{path}: cannot write the key: {e.strerror or e}; choose another path") from e
