"""Keys and certificates on disk: an authority, and what it signs for servers and clients."""

import ipaddress
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from qtopt.errors import ConfigError

_EARLIER: Final = timedelta(minutes=5)
"""Certificates are valid from a little before their making, as clocks differ."""


@dataclass(frozen=True, slots=True)
class Authority:
    """What signs."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def make_authority(cert_file: Path, key_file: Path, days: float) -> None:
    """Makes a new authority's key and certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("qtopt authority")
    builder = (
        _builder(name, name, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
    )
    _save(builder.sign(key, hashes.SHA256()), key, cert_file, key_file)


def read_authority(cert_file: Path, key_file: Path) -> Authority:
    """Reads an authority; raises ConfigError when it is not there."""
    try:
        key = load_pem_private_key(key_file.read_bytes(), None)
        certificate = read_certificate(cert_file)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"authority {cert_file} with {key_file}: {error}; make one with qtopt certs authority"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"authority {key_file}: found a key of another kind, expected one of qtopt certs authority")
    return Authority(key, certificate)


def make_certificate(
    authority: Authority,
    subject: str,
    names: Sequence[x509.GeneralName],
    files: tuple[Path, Path],
    days: float,
    *,
    server: bool,
) -> None:
    """Makes a new key and a certificate for it, which lasts no longer than the authority's.

    Args:
        authority: signs it.
        subject: its common name.
        names: its subject alternative names: a server's host names and addresses, or a client's identity.
        files: the certificate's and the key's.
        days: how long it is good for.
        server: whether it is a server's, or a client's.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
    last = authority.certificate.not_valid_after_utc
    builder = (
        _builder(_name(subject), authority.certificate.subject, key, days, last)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    _save(builder.sign(authority.key, hashes.SHA256()), key, *files)


def read_certificate(path: Path) -> x509.Certificate:
    """Returns the first certificate of a PEM file; raises ConfigError."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"certificate {path} cannot be read: {error}") from error


def alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """Returns a certificate's subject alternative names; none where it has none."""
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def host_name(text: str) -> x509.GeneralName:
    """Returns a host name or an IP address as a certificate holds it; raises ConfigError."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text)
    except ValueError as error:
        raise ConfigError(f"name is {text!r}, expected a host name in ASCII or an IP address") from error


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that its owner alone may read, or in the place of another whoever may read that; never half of it.

    Raises:
        ConfigError: the file in its place belongs to somebody else, whom this process cannot give the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    writing = path.with_name(path.name + ".writing")
    writing.unlink(missing_ok=True)
    descriptor = os.open(writing, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if path.exists():
            _keep_readers(path, writing)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    writing.replace(path)


def _keep_readers(path: Path, writing: Path) -> None:
    """Gives ``writing`` the owner and the mode of ``path``, which a server of another user may have to read."""
    found = path.stat()
    try:
        os.chown(writing, found.st_uid, found.st_gid)
    except PermissionError as error:
        writing.unlink()
        raise ConfigError(
            f"{path} belongs to user {found.st_uid}, group {found.st_gid}, who could not read what this user "
            "writes in its place: do this as that user, or as root"
        ) from error
    writing.chmod(stat.S_IMODE(found.st_mode))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    days: float,
    last: datetime | None = None,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    ends = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, ends) - _EARLIER)
        .not_valid_after(ends if last is None else min(ends, last))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _save(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, cert_file: Path, key_file: Path) -> None:
    write_private(key_file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    write_private(cert_file, certificate.public_bytes(Encoding.PEM))
