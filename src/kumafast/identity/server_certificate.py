"""The dp-server's own certificate, for who brings none.

In: a directory, the names by which clients reach the server. Out: two PEM files, made once and then kept.
Never: replacing a certificate that is good; clients pin it.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kumafast.errors import SettingsError

LIFETIME = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A certificate and its private key in PEM. `is_new` says that this call has made them."""

    certificate: Path
    key: Path
    is_new: bool = False


def ensure_server_certificate(directory: Path, *, host: str) -> CertificateFiles:
    """The certificate `dp-server.crt` and key `dp-server.key` of a directory; made if they are not there.

    It is its own authority, so that clients can be given the certificate itself to trust. EC P-256, ten years, for
    `host`, this machine's name and loopback. Raises `SettingsError` where the files are unreadable or have expired.
    """
    files = CertificateFiles(directory / "dp-server.crt", directory / "dp-server.key")
    if files.certificate.exists() and files.key.exists():
        _check(files)
        return files
    directory.mkdir(parents=True, exist_ok=True)
    names = ["localhost", socket.gethostname(), "127.0.0.1", "::1", host]
    write_server_certificate(certificate=files.certificate, key=files.key, names=names)
    return CertificateFiles(files.certificate, files.key, is_new=True)


def write_server_certificate(*, certificate: Path, key: Path, names: Iterable[str]) -> None:
    """Write a new certificate that is its own authority, for these names and addresses, and its key.

    Raises OSError, and `SettingsError` for a name that is none; then nothing is written.
    """
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    signed = _self_signed(private, names).public_bytes(serialization.Encoding.PEM)
    _write(key, pem, mode=0o600)
    _write(certificate, signed, mode=0o644)


def _check(files: CertificateFiles) -> None:
    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read {files.certificate}: {error}; delete it to have a new one made") from error
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise SettingsError(f"{files.certificate} has expired; delete it and {files.key.name} to have new ones made")


def _self_signed(key: ec.EllipticCurvePrivateKey, hosts: Iterable[str]) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kumafast dp-server")])
    now = datetime.now(UTC)
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        # Clocks of clients may be behind a little.
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(hosts)), critical=False)
        .sign(key, hashes.SHA256())
    )


def _key_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    names: dict[str, x509.GeneralName] = {}
    for host in hosts:
        try:
            names[host] = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            try:
                names[host] = x509.DNSName(host)
            except ValueError:
                raise SettingsError(f"{host!r} cannot stand in a certificate; write a name in its ASCII form") from None
    return list(names.values())


def _write(path: Path, content: bytes, *, mode: int) -> None:
    # Written apart and renamed: whoever looks sees the whole file or none.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
    Path(temporary).rename(path)
