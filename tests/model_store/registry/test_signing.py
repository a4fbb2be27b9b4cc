"""Signatures: only the holder of a trusted key can sign a model."""

from __future__ import annotations

import hashlib
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from model_store import registry
from model_store.cli.main import main
from model_store.errors import TrustError
from model_store.registry import signing
from model_store.registry.store import open_store
from service.config import SettingsError
from service.registry.signature_policy import signature_check

DIGEST = hashlib.sha256(b"a manifest").hexdigest()
OTHER = hashlib.sha256(b"another").hexdigest()


@pytest.fixture
def key_path(tmp_path: Path) -> Path:
    path = tmp_path / "release.pem"
    signing.generate_key(path)
    return path


@pytest.fixture
def key(key_path: Path) -> ed25519.Ed25519PrivateKey:
    return signing.load_private_key(key_path)


@pytest.fixture
def other() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def verify(keys: list[ed25519.Ed25519PrivateKey], signatures: dict[str, bytes]) -> str:
    return signing.verify([key.public_key() for key in keys], "penguins", 3, DIGEST, signatures.get)


def test_a_signature_by_any_trusted_key_is_enough(key, other) -> None:
    fingerprint = signing.fingerprint(key.public_key())
    signatures = {fingerprint: signing.sign(key, "penguins", DIGEST)}
    assert verify([key], signatures) == verify([other, key], signatures) == fingerprint


def test_an_unsigned_model_or_one_signed_by_an_untrusted_key_is_rejected(key, other) -> None:
    fingerprint = signing.fingerprint(key.public_key())
    theirs = {signing.fingerprint(other.public_key()): signing.sign(other, "penguins", DIGEST)}
    for signatures in ({}, theirs):
        with pytest.raises(
            TrustError, match=f"^penguins/3: expected a signature by {fingerprint}, found none; review it"
        ):
            verify([key], signatures)


def test_a_signature_of_another_model_name_or_key_is_rejected(key, other) -> None:
    fingerprint = signing.fingerprint(key.public_key())
    good = signing.sign(key, "penguins", DIGEST)
    wrong = [
        *(signing.sign(key, "xor", DIGEST), signing.sign(key, "penguins", OTHER), key.sign(DIGEST.encode())),
        *(signing.sign(other, "penguins", DIGEST), b"", bytes(64), good + b"\0", good[:-1]),
        *(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(64)),
    ]
    for signature in wrong:
        with pytest.raises(TrustError, match=f"found an invalid one by {fingerprint}"):
            verify([key], {fingerprint: signature})


def test_signatures_have_64_bytes_and_are_deterministic(key) -> None:
    assert len(signing.sign(key, "penguins", DIGEST)) == signing.SIGNATURE_BYTES
    assert signing.sign(key, "penguins", DIGEST) == signing.sign(key, "penguins", DIGEST)


def test_a_private_key_is_readable_only_by_its_owner_and_never_overwritten(key_path: Path) -> None:
    assert stat.S_IMODE(key_path.stat().st_mode) == 0o600
    before = key_path.read_bytes()
    with pytest.raises(TrustError, match="never overwritten"):
        signing.generate_key(key_path)
    assert key_path.read_bytes() == before
    fresh = key_path.with_name("fresh.pem")
    signing.public_key_path(fresh).write_text("another key")
    with pytest.raises(TrustError, match=r"fresh\.pem\.pub: file already exists"):
        signing.generate_key(fresh)
    assert not fresh.exists()
    with pytest.raises(TrustError, match="cannot write the key"):
        signing.generate_key(key_path.parent / "nowhere" / "key.pem")


def test_the_public_key_belongs_to_the_private_key(key_path: Path, key) -> None:
    public = signing.load_public_key(signing.public_key_path(key_path))
    assert signing.fingerprint(public) == signing.fingerprint(key.public_key())


def test_a_private_key_readable_by_others_is_rejected(key_path: Path) -> None:
    key_path.chmod(0o640)
    with pytest.raises(TrustError, match="found mode 640; chmod 600"):
        signing.load_private_key(key_path)


def test_invalid_key_files_are_rejected(tmp_path: Path, key_path: Path, key) -> None:
    path = tmp_path / "key"

    def put(data: bytes) -> Path:
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_bytes(data)
        return path

    pem, private = Encoding.PEM, PrivateFormat.PKCS8
    rsa_key = rsa.generate_private_key(65537, 2048)
    for data, message in (
        (b"", "expected a private key in PEM"),
        (signing.public_key_path(key_path).read_bytes(), "expected a private key, found a public key"),
        (rsa_key.private_bytes(pem, private, NoEncryption()), "expected an Ed25519 key"),
        (key.private_bytes(pem, private, BestAvailableEncryption(b"x")), "found an encrypted key"),
    ):
        with pytest.raises(TrustError, match=message):
            signing.load_private_key(put(data))
    for data, message in (
        (b"rubbish", "expected a public key in PEM"),
        (key_path.read_bytes(), r"found a private key; pass .*key\.pub"),
    ):
        with pytest.raises(TrustError, match=message):
            signing.load_public_key(put(data))
    with pytest.raises(TrustError, match="expected a key file that can be read; No such file"):
        signing.load_public_key(tmp_path / "missing")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL's command is not installed")
def test_openssl_keys_work_and_openssl_verifies_our_signatures(tmp_path: Path) -> None:
    def openssl(*words: str) -> str:
        return subprocess.run(["openssl", *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    openssl("genpkey", "-algorithm", "ed25519", "-out", "theirs.pem")
    openssl("pkey", "-in", "theirs.pem", "-pubout", "-out", "theirs.pub")
    key = signing.load_private_key(tmp_path / "theirs.pem")
    signing.verify(
        [signing.load_public_key(tmp_path / "theirs.pub")], "xor", 1, DIGEST, lambda _: signing.sign(key, "xor", DIGEST)
    )
    (tmp_path / "message").write_text(f"forward-pass model 1\nxor\n{DIGEST}\n")
    (tmp_path / "signature").write_bytes(signing.sign(key, "xor", DIGEST))
    openssl_verify = ("pkeyutl", "-verify", "-pubin", "-inkey", "theirs.pub", "-rawin", "-in", "message")
    assert "Verified Successfully" in openssl(*openssl_verify, "-sigfile", "signature")


def test_without_cryptography_signing_names_the_package_and_everything_else_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    monkeypatch.delitem(sys.modules, "model_store.registry.signing")
    monkeypatch.delattr(registry, "signing")
    result = CliRunner().invoke(main, ["keygen", str(tmp_path / "release.pem")])
    assert result.exit_code == 5
    assert "signatures need cryptography; install it with: pip install 'cryptography>=" in result.stderr
    with pytest.raises(SettingsError, match="SERVE_TRUSTED_KEYS: signatures need cryptography"):
        signature_check("release.pem.pub", open_store(str(tmp_path)))
    assert CliRunner().invoke(main, ["list", "--store", str(tmp_path)]).exit_code == 0
