"""API keys: bearer keys with scopes, checked against a file of hashes.

    # name     scopes           SHA-256 of the key
    shop       predict          sha256:4c0f8b3f1b8c3f0d...  expires=2027-01-31T00:00:00Z
    grafana    metrics          sha256:9a3b6d5e27c1f0aa...
    intern     predict,metrics  sha256:77d1e0b2c4a9f3e8...  revoked=2026-10-05T14:12:00Z

    keys = ApiKeys(Path("keys"))                                        # KeyFileError if it cannot be read
    keys.require_scope(request.headers.get("Authorization"), "predict") # returns, or raises AccessDeniedError

The file holds only hashes, so reading it does not give access. A key is 32 random bytes, which cannot be guessed: plain
SHA-256 is enough. A name may have several keys, for example while one replaces another. A revoked key stays in the
file: its owner gets the reason, and the file stays valid when its only key is revoked.

Checking a key reads the file again if it has changed, at most once a second; expiry takes effect as fast. If the file
is empty, invalid or unreadable, no key is valid: the change may have been meant to revoke one. Only if the file has
vanished, as while a volume is mounted again, do the last keys stay in force. `problem` reports both until it is fixed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from model_store.errors import Fault, did_you_mean
from model_store.utils.atomic_write import atomic_write
from model_store.utils.file_lock import wait_for_lock
from model_store.utils.printable import valid_unicode
from model_store.utils.regular_file import open_regular

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
_OPTION = re.compile(r"(expires|revoked)=(\S*)")
# Errors of the machine, not of the file: they say nothing of what it contains.
_TEMPORARY_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EIO, errno.ESTALE})
_SEND_KEY = "send `Authorization: Bearer` and a key"


class KeyFileError(Exception):
    """A key file that cannot be read, with a message for each fault; `MAX_FAULTS` of them at most."""

    MAX_FAULTS = 20

    def __init__(self, faults: list[str], errno: int | None = None) -> None:
        more = [f"and {len(faults) - self.MAX_FAULTS} more faults"] if len(faults) > self.MAX_FAULTS else []
        self.faults, self.errno = faults[: self.MAX_FAULTS] + more, errno
        super().__init__("; ".join(self.faults))


class AccessDeniedError(Exception):
    """The key is missing or unknown (401), or lacks the scope (403).

    `challenge` is the value of WWW-Authenticate, `key_name` that of a key in the file, "" for any other.
    """

    def __init__(self, status: int, code: str, fault: Fault, challenge: str, key_name: str = "") -> None:
        self.status, self.code, self.fault, self.challenge, self.key_name = status, code, fault, challenge, key_name
        super().__init__(str(fault))


@dataclass(frozen=True)
class ApiKey:
    name: str
    scopes: tuple[str, ...]
    digest: bytes
    expires: datetime | None = None
    revoked: datetime | None = None

    def __str__(self) -> str:
        """Return the key's line in the file."""
        times = (("expires", self.expires), ("revoked", self.revoked))
        options = "".join(f" {option}={_format_time(time)}" for option, time in times if time is not None)
        return f"{self.name} {','.join(self.scopes)} sha256:{self.digest.hex()}{options}"

    def is_active(self, now: datetime) -> bool:
        """True if the key is neither revoked nor expired."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def status(self, now: datetime) -> str:
        """Return "active", or since when the key is not valid."""
        if self.is_active(now):
            return "active"
        word, since = ("revoked", self.revoked) if self.revoked else ("expired", self.expires)
        return f"{word} on {since:%Y-%m-%d %H:%M:%S} UTC"


def generate_key(name: str, scopes: tuple[str, ...], expires: datetime | None = None) -> tuple[str, ApiKey]:
    """Make a new key: the secret for its owner, and the entry for the key file."""
    if not _KEY_NAME.fullmatch(name):
        raise KeyFileError([f"NAME: {_EXPECTED_NAME}; found {name!r}"])
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    return secret, ApiKey(name, scopes, hashlib.sha256(secret.encode()).digest(), expires)


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
        options = [match for word in words[3:] if (match := _OPTION.fullmatch(word))]
        times = {match[1]: _parse_time(match[2]) for match in options}
        if None in times.values() or len(times) < len(options):
            faults.append(f"{here}: expected expires= and revoked= once, each with a time such as 2027-01-31T00:00:00Z")
        words = [*words[:3], *(word for word in words[3:] if not _OPTION.fullmatch(word))]
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
            keys.append(ApiKey(name, scopes, bytes.fromhex(digest[1]), times.get("expires"), times.get("revoked")))
    if not keys and not faults:
        faults.append(f"{location}: expected at least one key, found none; create one with: serve keygen NAME")
    if faults:
        raise KeyFileError(faults)
    return keys


def _format_time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _parse_time(text: str) -> datetime | None:
    """Return a time with a zone; None for anything else."""
    try:
        time = datetime.fromisoformat(text)
        return None if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def append_key(path: Path, key: ApiKey) -> None:
    """Add a key to a file, which may be new. If the file is not a key file: KeyFileError, and nothing is written."""
    with _exclusive(path):
        before = _read_text(path) if path.exists() else ""
        text = f"{before}{'' if before.endswith(chr(10)) or not before else chr(10)}{key}\n"
        parse_key_file(text, str(path))
        with atomic_write(path, "x", encoding="utf-8") as file:
            file.write(text)


def read_keys(path: Path) -> list[ApiKey]:
    """Return the keys of a file. KeyFileError if it cannot be read."""
    return parse_key_file(_read_text(path), str(path))


def revoke_keys(path: Path, name: str, digest_prefix: str, when: datetime) -> list[ApiKey]:
    """Mark the keys of a name as revoked, those whose hash begins with `digest_prefix`. Return the newly revoked.

    Comments and other lines stay. KeyFileError if there is no such key.
    """
    with _exclusive(path):
        return _revoke_keys(path, name, digest_prefix, when)


def _revoke_keys(path: Path, name: str, digest_prefix: str, when: datetime) -> list[ApiKey]:
    text = _read_text(path)
    found = parse_key_file(text, str(path))
    names = [key.name for key in found]
    if name not in names:
        hint = did_you_mean(name, names) or f"the names are: {', '.join(dict.fromkeys(names))}"
        raise KeyFileError([f"{path}: no key of the name {name!r}; {hint}"])
    matching = [key for key in found if key.name == name and key.digest.hex().startswith(digest_prefix)]
    if not matching:
        raise KeyFileError([f"{path}: no key of {name!r} begins with {digest_prefix!r}; see: serve keys list"])
    revoked = [key for key in matching if key.revoked is None]
    lines = text.splitlines(keepends=True)
    for i, line in enumerate(lines):
        if line.partition("#")[0].split() and parse_key_file(line, str(path))[0] in revoked:
            entry, comment = line.rstrip(), ""
            if "#" in line:
                entry, _, rest = line.partition("#")
                comment = "  #" + rest.rstrip()
            lines[i] = f"{entry.rstrip()} revoked={_format_time(when)}{comment}\n"
    if revoked:
        with atomic_write(path, "x", encoding="utf-8") as file:
            file.write("".join(lines))
    return revoked


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Let one process at a time read and replace a key file: hold the lock of the folder of the file behind links.

    The file itself is replaced, so that its lock would be that of an old file; a lock file would stay.
    """
    folder = Path(os.path.realpath(path)).parent
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise KeyFileError([f"{path}: its folder cannot be locked: {e.strerror or e}"], e.errno) from e
    try:
        try:
            wait_for_lock(descriptor, fcntl.LOCK_EX, str(folder))
        except TimeoutError:
            raise
        except OSError as e:
            log.warning("%s has no locks (%s): let no other process change %s meanwhile", folder, e.strerror or e, path)
        yield
    finally:
        os.close(descriptor)


class ApiKeys:
    """The keys in force. Without a file no key is required."""

    def __init__(
        self,
        path: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.problem: Fault | None = None
        self.keys: list[ApiKey] = []  # those of the file, expired and revoked ones included
        self._path, self._clock, self._now = path, clock, now
        self._next_check_at = 0.0
        self._next_expiry: datetime | None = None
        self._by_digest: dict[bytes, ApiKey] = {}
        self._loaded_state: tuple[int, ...] | None = None
        self._digests: list[tuple[bytes, int]] = []  # of each key its hash, and what it may as bits
        if path is not None:
            self._loaded_state = _file_state(path)
            self._replace_keys(read_keys(path))
            self._next_check_at = clock() + RELOAD_CHECK_SECONDS

    def __bool__(self) -> bool:
        return self._path is not None

    def require_scope(self, authorization: str | None, scope: str) -> str:
        """Return the key's name if it has the scope, "" if no key is required; otherwise raise AccessDeniedError.

        Every known key is compared, in constant time.
        """
        if self._path is None:
            return ""
        granted, digest = self._granted_bits(authorization)
        known = self._by_digest.get(digest)
        key_name = known.name if known else ""
        if granted & _SCOPE_BITS[scope]:
            return key_name
        if not authorization or authorization.partition(" ")[0].lower() != "bearer":  # RFC 6750, 3.1: no error code
            raise AccessDeniedError(
                401, "unauthorized", Fault("Authorization", "expected a key, found none", _SEND_KEY), _REALM
            )
        if not granted:
            fault = Fault("Authorization", "expected a valid key, found an unknown one", _SEND_KEY)
            if known is not None:  # the caller has the key, so may know its state
                found = f"expected a valid key, found the key {key_name!r}, {known.status(self._now())}"
                fault = Fault("Authorization", found, "ask the operator of the service for a new key")
            raise AccessDeniedError(401, "unauthorized", fault, f'{_REALM}, error="invalid_token"', key_name)
        fix = f"send a key with that scope; create one with: serve keygen NAME --scope {scope}"
        fault = Fault("Authorization", f"expected a key with the scope {scope}, found one without it", fix)
        challenge = f'{_REALM}, error="insufficient_scope", scope="{scope}"'
        raise AccessDeniedError(403, "forbidden", fault, challenge, key_name)

    def expiry_by_name(self) -> dict[str, datetime]:
        """Return when the last active key of each name expires, without names that have a key which never does."""
        now, found = self._now(), dict[str, datetime | None]()
        for key in self.keys:
            if key.is_active(now):
                before = found.get(key.name, key.expires)
                found[key.name] = max(before, key.expires) if before and key.expires else None
        return {name: expires for name, expires in found.items() if expires is not None}

    def is_known(self, authorization: str | None) -> bool:
        """True if the key is valid for any scope, or if no key is required."""
        return self._path is None or bool(self._granted_bits(authorization)[0])

    def has_scope(self, authorization: str | None, scope: str) -> bool:
        """True if the key is valid for the scope, or if no key is required."""
        return self._path is None or bool(self._granted_bits(authorization)[0] & _SCOPE_BITS[scope])

    def _granted_bits(self, authorization: str | None) -> tuple[int, bytes]:
        """Return what the key grants, 0 if nothing, and its hash."""
        if self._clock() >= self._next_check_at:
            self.reload_if_changed()
        kind, _, secret = (authorization or "").partition(" ")
        if kind.lower() != "bearer":
            return 0, b""
        digest = hashlib.sha256(secret.strip().encode("utf-8", "replace")).digest()
        granted = 0
        for known, bits in self._digests:
            granted |= bits * hmac.compare_digest(known, digest)
        return granted, digest

    def reload_if_changed(self) -> None:
        """Read the file again if it has changed, and drop the keys that have expired."""
        if self._path is None:
            return
        if self._next_expiry is not None and self._now() >= self._next_expiry:
            self._replace_keys(self.keys)
        self._next_check_at = self._clock() + RELOAD_CHECK_SECONDS
        state = _file_state(self._path)
        if state == self._loaded_state and state is not None:
            return
        self._loaded_state = state
        try:
            found = read_keys(self._path)
        except KeyFileError as e:
            keep = e.errno == errno.ENOENT or e.errno in _TEMPORARY_ERRORS
            if keep:
                self._loaded_state = None  # try again
                fix = "restore the file; the previous keys stay in force"
            else:
                self._replace_keys([])
                fix = "fix the file; until then no key is valid"
            fault = Fault("keys", valid_unicode(str(e)), fix)
            if fault != self.problem:
                log.error("%s", fault)
            self.problem = fault
            return
        self._replace_keys(found)
        self.problem = None
        log.info("loaded %d keys from %s", len(found), self._path)

    def _replace_keys(self, keys: list[ApiKey]) -> None:
        now = self._now()
        self.keys = keys
        self._next_expiry = min((key.expires for key in keys if key.expires and key.is_active(now)), default=None)
        # If a key has several lines, its name and state are those of an active one.
        self._by_digest = {key.digest: key for key in sorted(keys, key=lambda key: key.is_active(now))}
        # One assignment, so that a concurrent check sees either list whole. A key that grants nothing is compared, too.
        self._digests = [(key.digest, _bits(key) if key.is_active(now) else 0) for key in keys]


def _bits(key: ApiKey) -> int:
    return _KNOWN_KEY_BIT | sum(_SCOPE_BITS[scope] for scope in set(key.scopes))


def _file_state(path: Path) -> tuple[int, ...] | None:
    """Return what changes when the file is rewritten or replaced, or a link to it changes (as in Kubernetes)."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _read_text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as e:
        raise KeyFileError([f"{path}: cannot be read: {e.strerror or e}"], e.errno) from e
    if len(content) > MAX_FILE_BYTES:
        raise KeyFileError([f"{path}: expected {MAX_FILE_BYTES} bytes at most"])
    try:
        return content.decode()
    except UnicodeDecodeError as e:
        raise KeyFileError([f"{path}: expected text in UTF-8"]) from e
