"""A client's channel and the one way calls are made through it: with a deadline, retried only where that is safe.

Retries are made by hand, since gRPC's own stop silently for messages of some 300 KB and more. Keepalive finds a silent
partition in about 12 s, which would otherwise hang a call without end.
"""

import random
import time
from typing import Final, TypeVar, cast

import grpc

from qtopt.rpc.allocator import keep_freed_memory
from qtopt.rpc.line import Line
from qtopt.rpc.settings import MESSAGE_LIMIT_BYTES, SIZE_KEY, SLOWEST_LINK, ClientConfig
from qtopt.rpc.status import translate_errors, unanswered
from qtopt.rpc.tls import client_credentials
from qtopt.rpc.tokens import read_token
from qtopt.rpc.watched import Watched

Request = TypeVar("Request")
Response = TypeVar("Response")

_KEEPALIVE: Final = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
_SIZES: Final = [
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
]
UNREAD_BYTES: Final = 512 << 10
"""What a server takes of a request before it is read. Less makes far links slower: 7 MB at a round trip of 0.2 s take
1.7 s with 64 KiB, 1.3 s with this."""
SERVER_OPTIONS: Final[list[tuple[str, int]]] = [
    *_KEEPALIVE,
    *_SIZES,
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.lookahead_bytes", UNREAD_BYTES),
    ("grpc.http2.bdp_probe", 0),  # it would raise that to megabytes
    ("grpc.so_reuseport", 0),  # otherwise two servers share a port, and each gets half of the calls
]
_CLIENT_OPTIONS: Final[list[tuple[str, int]]] = [
    *_KEEPALIVE,
    *_SIZES,
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 8_000),  # the time a connection may take to be made: far links need seconds
    ("grpc.max_reconnect_backoff_ms", 3_000),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own: what another channel's peer does is not its fault
]
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0


class Channel:
    """A connection to one server; used by any number of threads.

    Files named in ``config`` may be replaced meanwhile: each call begins with those of then.

    Attributes:
        grpc: what stubs are made with; for unary methods alone.

    Raises:
        ConfigError: a file named in ``config`` cannot be read, or a certificate has expired.
    """

    def __init__(self, config: ClientConfig) -> None:
        path = config.token_file
        self._token = None if path is None else Watched([path], lambda: read_token(path))
        keep_freed_memory()
        self.config = config
        files = [each for each in (config.ca_file, config.cert_file, config.key_file) if each is not None]
        self._line = Line(files, lambda: _open(config))
        self.grpc = cast("grpc.Channel", self._line)

    def call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        what: str,
        *,
        timeout_s: float | None = None,
        attempts: int | None = None,
        size: int = 0,
        idempotent: bool = True,
    ) -> Response:
        """Calls ``method`` and returns its answer.

        Args:
            method: the stub's method.
            request: its message.
            what: name of the call for error messages.
            timeout_s: deadline over all attempts; by default the configuration's ``call_timeout_s``.
            attempts: how often to try; by default the configuration's.
            size: bytes of a request that may be long on its way: the deadline grows by what a slow link needs for it,
                and the server is told, which then waits for it as long.
            idempotent: whether the call may be made again when no answer came.

        Raises:
            ServerUnavailable: nobody answered in time.
            QtOptError: what the server answered with.
        """
        within_s = (self.config.call_timeout_s if timeout_s is None else timeout_s) + size / SLOWEST_LINK
        deadline = time.monotonic() + within_s
        said = ((SIZE_KEY, str(size)),) if size else ()
        tries = (attempts or self.config.attempts) if idempotent else 1
        pause_s = _FIRST_PAUSE_S
        with translate_errors(f"{what} at {self.config.address}"):
            while True:
                tries -= 1
                try:
                    left_s = max(deadline - time.monotonic(), 0.001)
                    return method(request, timeout=left_s, metadata=(*self._metadata(), *said))
                except grpc.RpcError as error:
                    if tries <= 0 or not unanswered(error):
                        raise
                    pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                    pause = pause_s * random.uniform(0.5, 1.0)  # jitter: many clients come back after one restart
                    if time.monotonic() + pause >= deadline:
                        raise
                    time.sleep(pause)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return () if self._token is None else (("authorization", f"Bearer {self._token.get()}"),)

    def close(self) -> None:
        """Ends the connection; calls under way fail with ServerUnavailable, later ones with RemoteError."""
        self._line.close()


def _open(config: ClientConfig) -> grpc.Channel:
    options = list[tuple[str, int | str]](_CLIENT_OPTIONS)
    if config.ca_file is None:
        return grpc.insecure_channel(config.address, options)
    if config.server_name is not None:
        options.append(("grpc.ssl_target_name_override", config.server_name))
    return grpc.secure_channel(config.address, client_credentials(config), options)
