"""How much of the server one client may take: calls at once, calls a second, and how long it may take to ask."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from qtopt.config import STRICT
from qtopt.errors import ConfigError, ServerUnavailable

_FORGET_S: Final = 60.0


@dataclass(frozen=True)
class Limits:
    """Limits against clients that take too much, whether they mean to or not.

    A client is who its certificate or token says; where neither is asked for, a connection.

    Attributes:
        calls_at_once: of one client; more are refused.
        calls_per_s: of one client, on average; twice as many may come in one second.
        request_s: how long a request may be on its way after its call began [s].
        handshake_s: how long a new connection may take over TLS and HTTP/2 [s].
        connections: at a time; more are closed at once.
        connection_age_s: after which a connection has to be made again, with the certificates of then [s].
        idle_s: after which a connection without calls is closed [s].
    """

    __pydantic_config__ = STRICT

    calls_at_once: int = 64
    calls_per_s: float = 500.0
    request_s: float = 60.0
    handshake_s: float = 10.0
    connections: int = 1024
    connection_age_s: float = 3600.0
    idle_s: float = 900.0

    def __post_init__(self) -> None:
        for name in vars(self):
            if not getattr(self, name) > 0:
                raise ConfigError(f"limits {name} is {getattr(self, name)}, expected more than 0")

    def channel_options(self) -> list[tuple[str, int]]:
        """Returns what gRPC itself enforces of them, on each connection, as options of a server."""
        return [
            ("grpc.max_concurrent_streams", 2 * self.calls_at_once),
            ("grpc.server_handshake_timeout_ms", round(self.handshake_s * 1e3)),
            ("grpc.max_allowed_incoming_connections", self.connections),
            ("grpc.max_connection_age_ms", round(self.connection_age_s * 1e3)),
            ("grpc.max_connection_age_grace_ms", round(self.request_s * 1e3)),
            ("grpc.max_connection_idle_ms", round(self.idle_s * 1e3)),
        ]


class Bucket:
    """Lets ``per_s`` things a second through, and ``burst`` at once after a rest.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._left, self.at = burst, clock()

    def take(self) -> bool:
        """Takes one; returns False, taking nothing, when none is left."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self.at) * self._per_s)
        self.at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


@dataclass(slots=True)
class _Client:
    bucket: Bucket
    inside: int = 0


class ClientLimiter:
    """Counts each client's calls; for one event loop."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._clients: dict[str, _Client] = {}
        self._swept_at = clock()

    @contextmanager
    def call(self, client: str) -> Iterator[None]:
        """Counts a call of ``client`` during the block; raises ServerUnavailable when it is one too many."""
        self._sweep()
        limits = self._limits
        known = self._clients.get(client)
        if known is None:
            bucket = Bucket(limits.calls_per_s, 2 * limits.calls_per_s, self._clock)
            known = self._clients[client] = _Client(bucket)
        if known.inside >= limits.calls_at_once:
            raise ServerUnavailable(
                f"{known.inside} calls of this client are under way, expected at most {limits.calls_at_once}: make "
                "fewer at a time"
            )
        if not known.bucket.take():
            raise ServerUnavailable(
                f"more than {limits.calls_per_s:g} calls a second of this client: make fewer, or try again later"
            )
        known.inside += 1
        try:
            yield
        finally:
            known.inside -= 1

    def _sweep(self) -> None:
        """Forgets clients that have been silent, so that many names do not fill the memory."""
        now = self._clock()
        if now - self._swept_at < _FORGET_S:
            return
        self._swept_at = now
        silent = [name for name, each in self._clients.items() if not each.inside and now - each.bucket.at > _FORGET_S]
        for name in silent:
            del self._clients[name]
