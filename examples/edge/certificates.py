"""Make TLS certificates for tests: a certificate authority, and a server and a client certificate signed by it.

    python examples/edge/certificates.py FOLDER [NAME ...]

FOLDER gets server.crt and server.key for the host names (default: localhost), client.crt and client.key for a client,
and clients.crt, the certificate of the authority. Existing files are not overwritten. The key of the authority is not
stored: for another client, make another set. The certificates are valid for 30 days.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_DAYS = 30


class Authority:
    """A certificate authority. Its key exists only as long as this object."""

    def __init__(self, name: str, now: datetime) -> None:
        self.now, self.key, self.name = now, ec.generate_private_key(ec.SECP256R1()), _common_name(name)
        builder = _builder(self.name, self.name, self.key.public_key(), now)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        self.certificate = builder.add_extension(usage, critical=True).sign(self.key, hashes.SHA256())

    def issue(
        self, folder: Path, file: str, name: str, purpose: x509.ObjectIdentifier, hosts: Sequence[str] = ()
    ) -> None:
        """Write FILE.crt and FILE.key."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_common_name(name), self.name, key.public_key(), self.now)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_alternative_name(each) for each in hosts]), critical=False
            )
        _write(folder / f"{file}.key", _pem(key), 0o600)
        _write(folder / f"{file}.crt", builder.sign(self.key, hashes.SHA256()).public_bytes(_PEM), 0o644)


def make(folder: Path, hosts: Sequence[str] = ("localhost",), *, now: datetime | None = None) -> None:
    authority = Authority("Forward Pass test authority", now or datetime.now(UTC))
    folder.mkdir(parents=True, exist_ok=True)
    authority.issue(folder, "server", hosts[0], ExtendedKeyUsageOID.SERVER_AUTH, hosts)
    authority.issue(folder, "client", "a client", ExtendedKeyUsageOID.CLIENT_AUTH)
    _write(folder / "clients.crt", authority.certificate.public_bytes(_PEM), 0o644)


_PEM = serialization.Encoding.PEM


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    # Valid from an hour ago, because clocks differ.
    return builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=VALID_DAYS))


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write(path: Path, content: bytes, mode: int) -> None:
    path.touch(mode)
    path.write_bytes(content)


if __name__ == "__main__":
    if len(sys.argv) < 2 or any(argument.startswith("-") for argument in sys.argv[1:]):
        sys.exit(__doc__)
    target = Path(sys.argv[1])
    if (target / "clients.crt").exists():
        sys.stdout.write(f"{target}: certificates already exist\n")
    else:
        make(target, sys.argv[2:] or ("localhost",))
        sys.stdout.write(f"{target}: certificates made, valid for {VALID_DAYS} days\n")
