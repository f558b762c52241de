"""The reference server of the remote-arm protocol: any ``Arm`` and ``Gripper`` behind an authenticated HTTP port."""

import contextlib
import hmac
import json
import logging
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

from qtopt.config import STRICT
from qtopt.errors import ConfigError, RobotError
from robot_bridge.contracts import Arm, Gripper
from robot_bridge.remote.api import ArmApi
from robot_bridge.remote.messages import MAX_DECEL_M_S2, MIN_DECEL_M_S2, BadMessage, Json, dump, parse
from robot_bridge.remote.secrets import is_loopback, read_token
from robot_bridge.remote.session import SessionRefused
from robot_bridge.remote.worker import Busy

_log = logging.getLogger(__name__)

BODY_LIMIT_BYTES: Final = 16_384
IDLE_S: Final = 10.0
STRANGER_S: Final = 3.0
"""How long a connection may take over its first request with the token."""
CONNECTION_LIMIT: Final = 32


@dataclass(frozen=True)
class ServerOptions:
    """Where the server listens and how soon it stops the arm.

    Attributes:
        host: an address of this machine; anything but loopback needs TLS.
        port: 0 for any free one.
        token_file: holds the bearer token; without it the environment variable ``ROBOT_ARM_TOKEN`` does.
        cert_file: TLS certificate, PEM.
        key_file: its key, PEM.
        watchdog_s: the arm is stopped when its client was silent for so long.
        stop_decel_m_s2: how hard it is stopped then, and by a stop that does not say; 0.01 to 10 m/s2.
        max_speed_m_s: commands that ask for more are refused.
    """

    __pydantic_config__ = STRICT

    host: str = "127.0.0.1"
    port: int = 8470
    token_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    watchdog_s: float = 0.5
    stop_decel_m_s2: float = 2.0
    max_speed_m_s: float = 0.5

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("found only one of cert_file and key_file, expected both or none")
        if self.cert_file is None and not is_loopback(self.host):
            raise ConfigError(
                f"refusing to listen on {self.host} without TLS, where others could read the token and command the "
                "arm: give cert_file and key_file, or listen on 127.0.0.1"
            )
        if not 0.1 <= self.watchdog_s <= 5.0:
            raise ConfigError(f"watchdog_s is {self.watchdog_s}, expected 0.1 to 5 s")
        if not 0 < self.max_speed_m_s <= 1.0:
            raise ConfigError(f"max_speed_m_s is {self.max_speed_m_s}, expected more than 0, at most 1 m/s")
        if not MIN_DECEL_M_S2 <= self.stop_decel_m_s2 <= MAX_DECEL_M_S2:
            raise ConfigError(
                f"stop_decel_m_s2 is {self.stop_decel_m_s2}, expected {MIN_DECEL_M_S2:g} to {MAX_DECEL_M_S2:g} m/s2"
            )


class ArmServer:
    """Serves a connected arm; ``close`` stops the arm, closes it and the gripper, and frees the port.

    Example::

        arm.connect(deadline_s=5.0)
        with ArmServer(arm, gripper, ServerOptions(token_file=Path("token"))) as server:
            server.run()  # until SIGTERM or SIGINT
    """

    def __init__(self, arm: Arm, gripper: Gripper | None = None, options: ServerOptions | None = None) -> None:
        options = options or ServerOptions()
        token = read_token(options.token_file)
        self._arm, self._gripper = arm, gripper
        self._http = _Http((options.host, options.port), token, _tls(options))
        self._api = ArmApi(arm, gripper, options.watchdog_s, options.stop_decel_m_s2, options.max_speed_m_s)
        self._http.api = self._api
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), name="http", daemon=True)
        self._thread.start()
        self._ended = threading.Event()
        self._closed = False

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._http.server_address[1])

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT; called in the main thread."""

        def end(_number: int, _frame: FrameType | None) -> None:
            self._ended.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        while not self._ended.wait(0.2):
            pass

    def close(self) -> None:
        """Stops the arm and frees everything; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        with contextlib.ExitStack() as last:  # whatever the arm's or gripper's own code raises, the rest is done
            last.callback(self._arm.close)
            if self._gripper is not None:
                last.callback(self._gripper.close)
            self._api.close()
            self._http.shutdown()
            self._http.server_close()
            self._thread.join(2.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _tls(options: ServerOptions) -> ssl.SSLContext | None:
    if options.cert_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.cert_file, options.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"certificate {options.cert_file} with key {options.key_file}: {error}") from error
    return context


@dataclass
class _Guest:
    since_s: float  # its begin, or its last good request
    known: bool = False  # has shown the token
    ended: bool = False  # by us; its thread is about to notice


class _Http(ThreadingHTTPServer):
    """Threads for a few connections; TLS is spoken in the connection's own thread, so nobody can block the port.

    Who has not shown the token has little time, and makes room for who comes: a stop may need a new connection.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTION_LIMIT
    api: ArmApi

    def __init__(self, address: tuple[str, int], token: str, tls: ssl.SSLContext | None) -> None:
        self.token, self._tls = token, tls
        self._guests: dict[socket.socket, _Guest] = {}
        super().__init__(address, _Handler)

    def heard(self, connection: socket.socket) -> None:
        """Takes note of a good request."""
        guest = self._guests[connection]
        guest.known, guest.since_s = True, time.monotonic()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        try:
            connection.settimeout(IDLE_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        except OSError:  # it has left already
            connection.close()
            raise
        return connection, address

    def service_actions(self) -> None:
        """Ends connections without a good request for too long, so that slow ones cannot take all the room."""
        now_s = time.monotonic()
        for connection, guest in list(self._guests.items()):
            if now_s - guest.since_s > (IDLE_S if guest.known else STRANGER_S):
                _end(connection, guest)

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._guests) < CONNECTION_LIMIT or self._make_room():
            self._guests[request] = _Guest(time.monotonic())
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def _make_room(self) -> bool:
        strangers = [(at, guest) for at, guest in list(self._guests.items()) if not guest.known and not guest.ended]
        if strangers:
            _end(*min(strangers, key=lambda one: one[1].since_s))
        return bool(strangers)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            if isinstance(request, ssl.SSLSocket):
                request.do_handshake()
        except (OSError, ValueError):  # ended meanwhile, or no TLS at all
            self.shutdown_request(request)
        else:
            super().process_request_thread(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._guests.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("connection from %s ended", client_address, exc_info=True)


def _end(connection: socket.socket, guest: _Guest) -> None:
    guest.ended = True
    with contextlib.suppress(OSError):  # TLS's own shutdown is for the connection's thread alone
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


_STATUS: Final[tuple[tuple[type[Exception], int], ...]] = (
    (BadMessage, 400),
    (SessionRefused, 409),
    (Busy, 409),
    (RobotError, 503),
)


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    protocol_version = "HTTP/1.1"
    server_version = "robot-bridge"
    sys_version = ""
    wbufsize = -1  # one segment for head and body

    def do_GET(self) -> None:
        self._answer(lambda: self._route(self.server.api.reads)())

    def do_POST(self) -> None:
        self._answer(lambda: self._route(self.server.api.commands)(parse(self._body())))

    def _route(self, routes: dict[str, Callable[..., Json]]) -> Callable[..., Json]:
        try:
            return routes[self.path]
        except KeyError:
            raise _NotFound(f"there is no {self.command} {self.path}; see docs/drivers-http.md") from None

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > BODY_LIMIT_BYTES:
            self.close_connection = True
            raise BadMessage(f"Content-Length is {length}, expected at most {BODY_LIMIT_BYTES} bytes")
        return self.rfile.read(int(length))

    def _answer(self, work: Callable[[], Json]) -> None:
        expected = f"Bearer {self.server.token}".encode()
        if not hmac.compare_digest(self.headers.get("Authorization", "").encode("utf-8", "replace"), expected):
            self.close_connection = True  # the body was not read
            self._send(401, {"error": "no valid bearer token came with the request, expected the server's"})
            return
        self.server.heard(self.connection)
        try:
            status, reply = 200, work()
            body = dump(reply)
        except _NotFound as error:
            self.close_connection = True
            status, body = 404, dump({"error": str(error)})
        except RobotError as error:
            status = next(code for kind, code in _STATUS if isinstance(error, kind))
            body = dump({"error": str(error)})
        except Exception:
            _log.exception("%s %s failed", self.command, self.path)
            status, body = 500, dump({"error": "internal error: see the server's log"})
        self._send_bytes(status, body)

    def _send(self, status: int, reply: Json) -> None:
        self._send_bytes(status, json.dumps(reply).encode())

    def _send_bytes(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)


class _NotFound(RobotError):
    pass
