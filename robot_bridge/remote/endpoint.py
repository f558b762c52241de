"""Where an arm's server is, and how it is told from an impostor: its name is looked up once, and never in a hurry."""

import http.client
import queue
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from qtopt.config import STRICT
from qtopt.errors import ConfigError
from robot_bridge.remote.secrets import is_loopback, read_token

LEAST_S: Final = 0.01
"""What is left at least of a timeout: zero would mean something else to a socket."""


@dataclass(frozen=True)
class LinkOptions:
    """Where the server is and how it is told from an impostor.

    Attributes:
        url: ``https://host:port``, or ``http://`` on this machine.
        token_file: holds the bearer token; without it the environment variable ``ROBOT_ARM_TOKEN`` does.
        ca_file: PEM of the authority that signed the server's certificate; without it the system's.
        link_timeout_s: without a report for so long the link counts as lost, for good.
        poll_hz: how often the arm's state is asked for, which is also the heartbeat.
    """

    __pydantic_config__ = STRICT

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None
    link_timeout_s: float = 1.0
    poll_hz: float = 50.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise ConfigError(f"url is {self.url!r}, expected https://host:port")
        if parts.username or parts.password:
            raise ConfigError("url holds a name or password; the token belongs into token_file or the environment")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ConfigError(
                f"refusing to send the token to {parts.hostname} without TLS, where others could read it: use https://"
            )
        if not 0.1 <= self.link_timeout_s <= 10.0:
            raise ConfigError(f"link_timeout_s is {self.link_timeout_s}, expected 0.1 to 10 s")
        if not 5.0 <= self.poll_hz <= 250.0:
            raise ConfigError(f"poll_hz is {self.poll_hz}, expected 5 to 250")


@dataclass(frozen=True)
class _Address:
    family: int
    place: tuple[Any, ...]


class Endpoint:
    """The server, for all connections of one driver to it.

    The address that answers first is kept: all later connections go there without a name being looked up. The name
    stays in the Host header, in SNI, and in what the certificate is checked for.

    Attributes:
        where: name and port, for people.
        headers: that every request carries.
    """

    def __init__(self, options: LinkOptions) -> None:
        parts = urlsplit(options.url)
        self.headers = {
            "Authorization": f"Bearer {read_token(options.token_file)}",
            "Content-Type": "application/json",
        }
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = _context(options.ca_file) if parts.scheme == "https" else None
        self._address: _Address | None = None
        self.where = f"{self._host}:{self._port}"

    def connect(self, timeout_s: float) -> http.client.HTTPConnection:
        """Returns a new connection, TLS and all, within ``timeout_s`` [s]; raises OSError."""
        end_s = time.monotonic() + timeout_s
        made: http.client.HTTPConnection
        if self._tls is not None:
            made = http.client.HTTPSConnection(self._host, self._port, context=self._tls)
        else:
            made = http.client.HTTPConnection(self._host, self._port)
        made.auto_open = 0  # a dead connection is an error here, never a silent second try
        addresses = [self._address] if self._address else _look_up(self._host, self._port, timeout_s)
        made.sock, address = _reach(addresses, end_s)
        try:
            made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                made.sock.settimeout(max(LEAST_S, end_s - time.monotonic()))
                made.sock = self._tls.wrap_socket(made.sock, server_hostname=self._host)
        except BaseException:
            made.close()
            raise
        self._address = address
        return made


def _look_up(host: str, port: int, timeout_s: float) -> list[_Address]:
    """Returns the addresses of a name; in a thread, because ``getaddrinfo`` knows no deadline. Raises OSError."""
    found: queue.SimpleQueue[list[_Address] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.put([_Address(family, place) for family, _, _, _, place in answers])
        except (OSError, UnicodeError) as error:
            found.put(error)

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    try:
        answer = found.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError(f"the address of {host} was not found within {round(timeout_s, 2):g} s") from None
    if isinstance(answer, Exception):
        raise OSError(f"the address of {host} was not found: {answer}") from answer
    return answer


def _reach(addresses: list[_Address], end_s: float) -> tuple[socket.socket, _Address]:
    """Returns a connection to the first address that takes one; each has its share of the time. Raises OSError."""
    trouble = OSError("it has no address")
    for position, address in enumerate(addresses):
        reached = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            reached.settimeout(max(LEAST_S, (end_s - time.monotonic()) / (len(addresses) - position)))
            reached.connect(address.place)
        except OSError as error:
            reached.close()
            trouble = error
        else:
            return reached, address
    raise trouble


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ca_file {ca_file} cannot be used: {error}") from error
