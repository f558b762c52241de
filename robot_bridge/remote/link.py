"""One kept-alive HTTP connection to a remote-arm server: every call has a deadline and an answer that was checked."""

import http.client
import select
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from qtopt.config import STRICT
from qtopt.errors import ConfigError, RobotError
from robot_bridge.remote.messages import Json, dump, parse
from robot_bridge.remote.secrets import is_loopback, read_token

REPLY_LIMIT_BYTES: Final = 65_536


class Refused(RobotError):
    """The server answered, and said no; ``status`` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


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


class Link:
    """A connection for one caller at a time; it is opened anew after a failure, and nothing is ever sent twice."""

    def __init__(self, options: LinkOptions) -> None:
        parts = urlsplit(options.url)
        self._headers = {
            "Authorization": f"Bearer {read_token(options.token_file)}",
            "Content-Type": "application/json",
        }
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = _context(options.ca_file) if parts.scheme == "https" else None
        self._where = f"{self._host}:{self._port}"
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str, timeout_s: float) -> Json:
        """Asks for ``path``; raises Refused with the server's words, RobotError where it does not answer."""
        return self._ask("GET", path, None, timeout_s)

    def post(self, path: str, message: Json, timeout_s: float) -> Json:
        """Sends a command; raises Refused with the server's words, RobotError where it does not answer."""
        return self._ask("POST", path, dump(message), timeout_s)

    def close(self) -> None:
        """Closes the connection; the next call would open it anew."""
        with self._lock:
            self._drop()

    def _ask(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Json:
        end_s = time.monotonic() + timeout_s
        if not self._lock.acquire(timeout=timeout_s):
            raise RobotError(f"{self._where} did not answer an earlier request within {timeout_s:g} s")
        try:
            status, reply = self._exchange(method, path, body, max(0.01, end_s - time.monotonic()))
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            raise RobotError(
                f"{method} {path}: no answer from the arm's server at {self._where} within {timeout_s:g} s "
                f"({type(error).__name__}: {error}); is it running, and is the address right?"
            ) from error
        finally:
            self._lock.release()
        answer = parse(reply)
        if status != 200:
            raise Refused(
                f"{self._where} refused {method} {path} ({status}): {answer.get('error', 'no reason given')}", status
            )
        return answer

    def _exchange(self, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        if self._connection is not None and _ended(self._connection):
            self._drop()
        if self._connection is None:
            self._connection = self._open(timeout_s)
        connection = self._connection
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        connection.request(method, path, body, self._headers)
        response = connection.getresponse()
        reply = response.read(REPLY_LIMIT_BYTES)
        if response.will_close or not response.isclosed():
            self._drop()
        return response.status, reply

    def _open(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._tls is not None:
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout_s, context=self._tls
            )
        else:
            made = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        made.auto_open = 0  # a dead connection is an error here, never a silent second try
        made.connect()
        return made

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _ended(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has hung up, or speaks unasked: before a request is sent it has nothing to say."""
    return connection.sock is None or bool(select.select([connection.sock], [], [], 0)[0])


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ca_file {ca_file} cannot be used: {error}") from error
