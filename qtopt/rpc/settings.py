"""Where servers listen and how clients reach them, and the rule that nothing unprotected listens beyond loopback."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from qtopt.config import STRICT
from qtopt.errors import ConfigError
from qtopt.rpc.limits import Limits

DEFAULT_PORT = 50051
MESSAGE_LIMIT_BYTES = 64 << 20
"""Largest message in either direction."""
SLOWEST_LINK = 64 << 10
"""Where a client says how large its request is, both sides give it the time that such a link needs [bytes/s], and so do
clients for networks; a shorter one would never let it pass, and what is dead is found by keepalive long before."""
SIZE_KEY = "qtopt-request-bytes"
"""Metadata of a call whose request may be long on its way: how large it is."""
MIN_TOKEN_LENGTH = 16


@dataclass(frozen=True)
class ServerConfig:
    """Where a server listens and whom it lets in.

    Attributes:
        host: an IP address, ``localhost`` or ``unix:/path``.
        port: 0 lets the system choose.
        cert_file: PEM certificate chain; with ``key_file`` it turns TLS on.
        key_file: PEM private key.
        client_ca_file: PEM certificates that sign clients' certificates; clients without one are refused.
        token_file: list of the clients' tokens, hashed; clients without one of them are refused.
        reflection: whether tools may ask for the services' descriptions; unset, on loopback only. Where clients are
            asked who they are, tools are too.
        max_calls: calls handled at a time; more are refused.
        limits: how much of the server one client may take.
    """

    __pydantic_config__ = STRICT

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    cert_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None
    token_file: Path | None = None
    reflection: bool | None = None
    max_calls: int = 512
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"server port is {self.port}, expected 0 to 65535 (0 chooses a free one)")
        if self.max_calls < 1:
            raise ConfigError(f"server max_calls is {self.max_calls}, expected at least 1")
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("--listen.cert-file and --listen.key-file: found one of them, expected both or neither")
        if self.client_ca_file is not None and self.cert_file is None:
            raise ConfigError("--listen.client-ca-file needs TLS: give --listen.cert-file and --listen.key-file too")
        missing = []
        if self.cert_file is None:
            missing.append("--listen.cert-file and --listen.key-file, to speak TLS")
        if self.token_file is None and self.client_ca_file is None:
            missing.append("--listen.client-ca-file or --listen.token-file or both, to tell who calls")
        if missing and not is_loopback(self.host):
            raise ConfigError(
                f"refusing to listen on {self.host}, which other machines reach, without protection: found no "
                f"{', and no '.join(missing)}; qtopt certs makes them; or listen on 127.0.0.1"
            )

    @property
    def address(self) -> str:
        """The address to bind, as gRPC writes it."""
        return join_address(self.host, self.port)

    @property
    def describes_itself(self) -> bool:
        """Whether the server offers reflection."""
        return is_loopback(self.host) if self.reflection is None else self.reflection


@dataclass(frozen=True)
class ClientConfig:
    """How to reach a server.

    Attributes:
        address: ``host:port`` or ``unix:/path``.
        ca_file: PEM certificates that sign the server's; turns TLS on.
        cert_file: PEM certificate chain of this client, where the server asks for one.
        key_file: PEM private key of this client.
        token_file: file that holds the bearer token.
        server_name: name in the server's certificate, where it differs from the address.
        connect_timeout_s: how long to wait for a server that does not answer yet [s].
        call_timeout_s: deadline of a call, retries included [s].
        attempts: how often an idempotent call is tried within its deadline.
        jpeg: send episodes' images as JPEG, for links too slow for raw ones; what is stored is then not what was seen.
    """

    __pydantic_config__ = STRICT

    address: str = f"127.0.0.1:{DEFAULT_PORT}"
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    token_file: Path | None = None
    server_name: str | None = None
    connect_timeout_s: float = 10.0
    call_timeout_s: float = 20.0
    attempts: int = 3
    jpeg: bool = False

    def __post_init__(self) -> None:
        if not self.address.startswith("unix:"):
            host, separator, port = self.address.rpartition(":")
            if not (separator and host and port.isdecimal() and 0 < int(port) <= 65535):
                raise ConfigError(
                    f"server address is {self.address!r}, expected host:port, as 127.0.0.1:{DEFAULT_PORT}"
                )
        for name in ("connect_timeout_s", "call_timeout_s", "attempts"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"client {name} is {getattr(self, name)}, expected more than 0")
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("client cert_file and key_file: found one of them, expected both or neither")
        if self.cert_file is not None and self.ca_file is None:
            raise ConfigError("client cert_file needs TLS: give ca_file too, the certificate that signs the server's")
        if self.token_file is not None and self.ca_file is None and not is_loopback(self.host):
            raise ConfigError(
                f"refusing to send the token to {self.host} without TLS, where others could read it: give ca_file, the "
                "certificate that signs the server's"
            )

    @property
    def host(self) -> str:
        """The address without its port."""
        if self.address.startswith("unix:"):
            return self.address
        return self.address.rpartition(":")[0].strip("[]")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``: 127.0.0.0/8, ::1, ``localhost`` or a Unix socket."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def join_address(host: str, port: int) -> str:
    """Returns ``host:port`` as gRPC writes it, with brackets around an IPv6 address."""
    if host.startswith("unix:"):
        return host
    bare = host.strip("[]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def read_file(path: Path, what: str) -> bytes:
    """Returns the bytes of ``path``; raises ConfigError naming ``what`` it should hold."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror or error}") from error
