"""Certificates in use: the server's, which may be replaced while it runs, and the client's."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from qtopt.errors import ConfigError
from qtopt.rpc.metrics import ServerMetrics
from qtopt.rpc.settings import ClientConfig, ServerConfig, read_file
from qtopt.rpc.watched import Watched


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key and its certificate chain, PEM, found to belong together and not to have expired."""

    key: bytes
    chain: bytes


class ServerCertificates:
    """The certificates of a server with TLS; each new connection gets what the files hold then.

    Args:
        config: names the files.
        metrics: shows whether changed files are left aside.
        arrived: called for each new connection, before its handshake, in a thread of gRPC's.

    Raises:
        ConfigError: a file cannot be read, key and certificate do not fit, or the certificate has expired.
    """

    def __init__(self, config: ServerConfig, metrics: ServerMetrics, arrived: Callable[[], None]) -> None:
        assert config.cert_file is not None
        assert config.key_file is not None
        self._arrived = arrived
        self._cert, self._key, self._authority = config.cert_file, config.key_file, config.client_ca_file
        paths = [path for path in (self._cert, self._key, self._authority) if path is not None]
        self._files = Watched(paths, self._read)
        self._given = self._files.get()
        metrics.watch("certificates", self._files.left_aside)

    def credentials(self) -> grpc.ServerCredentials:
        """Returns credentials that ask for a client's certificate where there is an authority of clients."""
        asks = self._authority is not None
        changed = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._changed)  # None is allowed: no change
        return grpc.dynamic_ssl_server_credentials(self._given, changed, asks)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        self._arrived()
        found = self._files.get()
        if found is self._given:
            return None
        self._given = found
        return found

    def _read(self) -> grpc.ServerCertificateConfiguration:
        pair = read_pair(self._cert, self._key)
        authority = None
        if self._authority is not None:
            authority = read_file(self._authority, "certificate file")
            _parse(authority, self._authority)
        return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)], authority)


def client_credentials(config: ClientConfig) -> grpc.ChannelCredentials:
    """Returns a client's credentials; raises ConfigError for files that cannot work, or have expired."""
    assert config.ca_file is not None
    authority = read_file(config.ca_file, "certificate file")
    _parse(authority, config.ca_file)
    if config.cert_file is None or config.key_file is None:
        return grpc.ssl_channel_credentials(authority)
    pair = read_pair(config.cert_file, config.key_file)
    return grpc.ssl_channel_credentials(authority, pair.key, pair.chain)


def read_pair(cert_file: Path, key_file: Path) -> KeyPair:
    """Returns a key with its certificate.

    Raises:
        ConfigError: a file cannot be read, they do not fit, or the certificate has expired.
    """
    chain, key = read_file(cert_file, "certificate file"), read_file(key_file, "key file")
    certificate = _parse(chain, cert_file)
    try:
        public = load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError) as error:
        raise ConfigError(f"key file {key_file} holds no PEM private key without a password: {error}") from error
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*spki) != certificate.public_key().public_bytes(*spki):
        raise ConfigError(f"key file {key_file} does not fit the certificate {cert_file}: give both of one making")
    expires = certificate.not_valid_after_utc
    if expires < datetime.now(UTC):
        raise ConfigError(f"certificate {cert_file} expired on {expires:%Y-%m-%d}: make it anew with qtopt certs renew")
    return KeyPair(key, chain)


def _parse(chain: bytes, path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(chain)
    except ValueError as error:
        raise ConfigError(f"certificate file {path} holds no PEM certificate: {error}") from error
