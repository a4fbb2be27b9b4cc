"""API keys: bearer keys with scopes, checked against a file of hashes.

    # name     scopes           SHA-256 of the key
    shop       predict          sha256:4c0f8b3f1b8c3f0d...
    grafana    metrics          sha256:9a3b6d5e27c1f0aa...

    keys = ApiKeys(Path("keys"))                                        # KeyFileError if it cannot be read
    keys.require_scope(request.headers.get("Authorization"), "predict") # returns, or raises AccessDeniedError

The file holds only hashes, so reading it does not give access. A key is 32 random bytes, which cannot be guessed: plain
SHA-256 is enough. A name may have several keys, for example while one replaces another.

Checking a key reads the file again if it has changed, at most once a second. If the file becomes unreadable, the last
valid keys stay in force, and `problem` reports it until the file is fixed.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model_store.errors import Fault
from model_store.utils.atomic_write import atomic_write

log = logging.getLogger("service")

SCOPES = ("predict", "metrics", "admin")
KEY_PREFIX = "fp_"  # so that secret scanners find leaked keys
RELOAD_CHECK_SECONDS = 1.0
MAX_FILE_BYTES = 1_000_000

_REALM = 'Bearer realm="forward-pass"'
_SCOPE_BITS = {scope: 2 << location for location, scope in enumerate(SCOPES)}
_KNOWN_KEY_BIT = 1
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_EXPECTED_NAME = "expected a name of letters, digits and . _ @ -, 64 at most"
_KEY_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_SEND_KEY = "send `Authorization: Bearer` and a key"


class KeyFileError(Exception):
    """A key file that cannot be read, with a message for each fault."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("; ".join(faults))


class AccessDeniedError(Exception):
    """The key is missing or unknown (401), or lacks the scope (403). `challenge` is the value of WWW-Authenticate."""

    def __init__(self, status: int, code: str, fault: Fault, challenge: str) -> None:
        self.status, self.code, self.fault, self.challenge = status, code, fault, challenge
        super().__init__(str(fault))


@dataclass(frozen=True)
class ApiKey:
    name: str
    scopes: tuple[str, ...]
    digest: bytes

    def __str__(self) -> str:
        """Return the key's line in the file."""
        return f"{self.name} {','.join(self.scopes)} sha256:{self.digest.hex()}"


def generate_key(name: str, scopes: tuple[str, ...]) -> tuple[str, ApiKey]:
    """Make a new key: the secret for its owner, and the entry for the key file."""
    if not _KEY_NAME.fullmatch(name):
        raise KeyFileError([f"NAME: {_EXPECTED_NAME}; found {name!r}"])
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    return secret, ApiKey(name, scopes, hashlib.sha256(secret.encode()).digest())


def parse_key_file(text: str, location: str) -> list[ApiKey]:
    """Parse a key file; KeyFileError with every fault.

    Messages quote nothing of the file: a secret in the wrong place would reach the log and /readyz.
    """
    keys, faults = [], []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        here = f"{location} line {number}"
        if len(words) != 3:
            faults.append(f"{here}: expected a name, its scopes and the hash of its key, found {len(words)} words")
            continue
        name, scopes, digest = words[0], tuple(words[1].split(",")), _KEY_HASH.fullmatch(words[2])
        if not _KEY_NAME.fullmatch(name):
            faults.append(f"{here}: {_EXPECTED_NAME}")
        if not set(scopes) <= set(SCOPES):
            faults.append(f"{here}: expected scopes of {', '.join(SCOPES)}, with commas between and no spaces")
        if digest is None:
            faults.append(f"{here}: expected sha256: and 64 hexadecimal digits; `serve keygen` makes such a line")
        else:
            keys.append(ApiKey(name, scopes, bytes.fromhex(digest[1])))
    if not keys and not faults:
        faults.append(f"{location}: expected at least one key, found none; create one with: serve keygen NAME")
    if faults:
        raise KeyFileError(faults)
    return keys


def append_key(path: Path, key: ApiKey) -> None:
    """Add a key to a file, which may be new. If the file is not a key file: KeyFileError, and nothing is written."""
    before = _read_text(path) if path.exists() else ""
    text = f"{before}{'' if before.endswith(chr(10)) or not before else chr(10)}{key}\n"
    parse_key_file(text, str(path))
    with atomic_write(path, "x", encoding="utf-8") as file:
        file.write(text)


class ApiKeys:
    """The keys in force. Without a file no key is required."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.problem: Fault | None = None
        self._path, self._clock = path, clock
        self._next_check_at = 0.0
        self._loaded_state: tuple[int, ...] | None = None
        self._digests: list[tuple[bytes, int]] = []  # of each key its hash, and what it may as bits
        if path is not None:
            self._loaded_state = _file_state(path)
            self._replace_keys(_read_keys(path))
            self._next_check_at = clock() + RELOAD_CHECK_SECONDS

    def __bool__(self) -> bool:
        return self._path is not None

    def require_scope(self, authorization: str | None, scope: str) -> None:
        """Return if the key has the scope; otherwise raise AccessDeniedError.

        Every known key is compared, in constant time.
        """
        if self._path is None:
            return
        granted = self._granted_bits(authorization)
        if granted & _SCOPE_BITS[scope]:
            return
        if not authorization:
            raise AccessDeniedError(
                401, "unauthorized", Fault("Authorization", "expected a key, found none", _SEND_KEY), _REALM
            )
        if not granted:
            fault = Fault("Authorization", "expected a valid key, found an unknown one", _SEND_KEY)
            raise AccessDeniedError(401, "unauthorized", fault, f'{_REALM}, error="invalid_token"')
        fix = f"send a key with that scope; create one with: serve keygen NAME --scope {scope}"
        fault = Fault("Authorization", f"expected a key with the scope {scope}, found one without it", fix)
        raise AccessDeniedError(403, "forbidden", fault, f'{_REALM}, error="insufficient_scope", scope="{scope}"')

    def is_known(self, authorization: str | None) -> bool:
        """True if the key is valid for any scope, or if no key is required."""
        return self._path is None or bool(self._granted_bits(authorization))

    def _granted_bits(self, authorization: str | None) -> int:
        if self._clock() >= self._next_check_at:
            self.reload_if_changed()
        kind, _, secret = (authorization or "").partition(" ")
        if kind.lower() != "bearer":
            return 0
        digest = hashlib.sha256(secret.strip().encode("utf-8", "replace")).digest()
        granted = 0
        for known, bits in self._digests:
            granted |= bits * hmac.compare_digest(known, digest)
        return granted

    def reload_if_changed(self) -> None:
        """Read the file again if it has changed."""
        if self._path is None:
            return
        self._next_check_at = self._clock() + RELOAD_CHECK_SECONDS
        state = _file_state(self._path)
        if state == self._loaded_state and state is not None:
            return
        self._loaded_state = state
        try:
            found = _read_keys(self._path)
        except KeyFileError as e:
            fault = Fault("keys", str(e), "fix the file; the previous keys stay in force")
            if fault != self.problem:
                log.error("%s", fault)
            self.problem = fault
            return
        self._replace_keys(found)
        self.problem = None
        log.info("loaded %d keys from %s", len(found), self._path)

    def _replace_keys(self, keys: list[ApiKey]) -> None:
        # One assignment, so that a concurrent check sees either list whole.
        self._digests = [
            (key.digest, _KNOWN_KEY_BIT | sum(_SCOPE_BITS[scope] for scope in set(key.scopes))) for key in keys
        ]


def _file_state(path: Path) -> tuple[int, ...] | None:
    """Return what changes when the file is rewritten or replaced, or a link to it changes (as in Kubernetes)."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _read_keys(path: Path) -> list[ApiKey]:
    return parse_key_file(_read_text(path), str(path))


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as e:
        raise KeyFileError([f"{path}: cannot be read: {e.strerror or e}"]) from e
    if len(content) > MAX_FILE_BYTES:
        raise KeyFileError([f"{path}: expected {MAX_FILE_BYTES} bytes at most"])
    try:
        return content.decode()
    except UnicodeDecodeError as e:
        raise KeyFileError([f"{path}: expected text in UTF-8"]) from e
