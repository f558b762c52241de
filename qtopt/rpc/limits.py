"""How much of the server one client, and all strangers, may take: calls at once and a second, and time to ask."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from qtopt.config import STRICT
from qtopt.errors import ConfigError, ServerUnavailable
from qtopt.rpc.callers import Caller

_FORGET_S: Final = 60.0
_SMALL_ANSWER: Final = 64 << 10
_GENERAL_SHARE: Final = 4
"""Calls to health and reflection are at most this part of all calls."""


@dataclass(frozen=True)
class Limits:
    """Limits against clients that take too much, whether they mean to or not.

    A client is who its certificate or token says; where neither is asked for, a connection. Calls to health and
    reflection count for the host there, as those of strangers do everywhere, who ask for health without saying who they
    are.

    Attributes:
        calls_at_once: of one client; more are refused.
        calls_per_s: of one client, on average; twice as many may come in one second.
        general_calls: to health and reflection, of one client at once; they count among ``calls_at_once`` too.
        strangers_calls: of all strangers at once; beside ``max_calls`` of the others, who so always have their share.
        stream_s: after which a stream of answers ends, as to those who watch health; they ask again [s].
        request_s: how long a request may be on its way once it is read [s]; one whose call says how large it is, as an
            episode's does, also has the time that a link of ``settings.SLOWEST_LINK`` needs for it.
        unsent_mb: answers that one client has not read yet; further ones are dropped [MB].
        unsent_all_mb: of all clients; those who leave some unread already have half of it [MB].
        failures_per_s: calls of one host, on average, that cannot say who they are, which are refused at once; further
            ones, after ten times as many, are refused after a pause.
        handshake_s: how long a new connection may take over TLS and HTTP/2 [s].
        connections: at a time; more are closed at once.
        connection_age_s: after which a connection has to be made again, with the certificates of then [s].
        idle_s: after which a connection without calls is closed [s].
    """

    __pydantic_config__ = STRICT

    calls_at_once: int = 64
    calls_per_s: float = 500.0
    general_calls: int = 8
    strangers_calls: int = 32
    stream_s: float = 60.0
    request_s: float = 60.0
    unsent_mb: float = 128.0
    unsent_all_mb: float = 256.0
    failures_per_s: float = 10.0
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


class Overdrawn(ServerUnavailable):
    """A client, or all of them together, take more of the server than there is for them."""


class Crowded(Overdrawn):
    """All clients together make as many calls, or leave as much unread, as there may be: no fault of who is refused."""


@dataclass(slots=True)
class _Bound:
    what: str
    most: int
    refusal: type[Overdrawn] = Overdrawn
    inside: int = 0

    def check(self) -> None:
        if self.inside >= self.most:
            raise self.refusal(
                f"{self.inside} {self.what} are under way, expected at most {self.most}: make fewer at a time"
            )


@dataclass(slots=True)
class _Client:
    bucket: Bucket
    calls: _Bound
    general: _Bound
    unsent_bytes: int = 0


class Unsent:
    """Bytes of answers that have not been taken yet, of one client after another and of all.

    Args:
        each: what one client may leave unread, beside its first answer.
        most: what all may, small answers aside, which calls bound; a client that leaves some unread already is refused
            from half of it on, so that the other half is for those who read.
    """

    def __init__(self, each: float, most: float) -> None:
        self._each, self._most = each, most
        self._bytes = 0

    def add(self, client: _Client, size: int) -> None:
        """Counts an answer of ``size`` bytes; raises Overdrawn, or Crowded, where it is one too many."""
        unsent = client.unsent_bytes
        if unsent and unsent + size > self._each:
            raise Overdrawn(
                f"{unsent} bytes of answers that this client has not read are kept for it, expected at most "
                f"{self._each:.0f} with this one of {size}: read them, or ask for less at a time"
            )
        most = self._most / 2 if unsent else self._most
        if size > _SMALL_ANSWER and self._bytes and self._bytes + size > most:
            raise Crowded(
                f"{self._bytes} bytes of answers are on their way to all clients, expected at most {most:.0f} with "
                f"this one of {size}: try again in a moment"
            )
        client.unsent_bytes += size
        self._bytes += size

    def remove(self, client: _Client, size: int) -> None:
        """Says that answers of so many bytes have been taken, or dropped."""
        client.unsent_bytes -= size
        self._bytes -= size


class Share:
    """What one call takes of the limits, until it is over; made by ``CallLimiter.enter``."""

    def __init__(self, client: _Client, bounds: list[_Bound], unsent: Unsent) -> None:
        self._client, self._bounds, self._unsent = client, bounds, unsent
        self._bytes, self._is_over = 0, False
        for bound in bounds:
            bound.inside += 1

    def answers(self, size: int) -> None:
        """Counts an answer of ``size`` bytes; raises as ``Unsent.add`` does."""
        if self._is_over:  # who asked has gone meanwhile
            return
        self._unsent.add(self._client, size)
        self._bytes += size

    def leave(self) -> None:
        """Gives it all back."""
        self._is_over = True
        self._unsent.remove(self._client, self._bytes)
        for bound in self._bounds:
            bound.inside -= 1


class CallLimiter:
    """Counts the calls under way, of each client and of all; for one event loop.

    Args:
        limits: of one client, and of strangers.
        max_calls: of all clients who have said who they are, or need not since nobody is asked.
        clock: monotonic seconds.
    """

    def __init__(self, limits: Limits, max_calls: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._all = _Bound("calls of all clients", max_calls, Crowded)
        general = max(max_calls // _GENERAL_SHARE, 1)
        self._general = _Bound("calls of all clients to health and reflection", general, Crowded)
        self._strangers = _Bound("calls of strangers", limits.strangers_calls, Crowded)
        self._unsent = Unsent(1e6 * limits.unsent_mb, 1e6 * limits.unsent_all_mb)
        self._clients: dict[str, _Client] = {}
        self._swept_at = clock()

    @property
    def inside(self) -> int:
        """Calls under way, of clients and of strangers."""
        return self._all.inside + self._strangers.inside

    def enter(self, caller: Caller, *, general: bool) -> Share:
        """Counts a call of ``caller`` until it leaves; raises Overdrawn when it is one too many.

        Args:
            caller: who calls.
            general: whether it is a call that is not this project's own; see ``roles.is_general``.
        """
        self._sweep()
        client = self._client(caller.account)
        bounds = [client.calls, *([client.general] if general else [])]
        bounds += [self._strangers] if caller.identity is None else [self._all, *([self._general] if general else [])]
        for bound in bounds:
            bound.check()
        if not client.bucket.take():
            raise Overdrawn(
                f"more than {self._limits.calls_per_s:g} calls a second of this client: make fewer, or try again later"
            )
        return Share(client, bounds, self._unsent)

    def _client(self, account: str) -> _Client:
        limits = self._limits
        if account not in self._clients:
            self._clients[account] = _Client(
                Bucket(limits.calls_per_s, 2 * limits.calls_per_s, self._clock),
                _Bound("calls of this client", limits.calls_at_once),
                _Bound("calls of this client or host to health and reflection", limits.general_calls),
            )
        return self._clients[account]

    def _sweep(self) -> None:
        """Forgets clients that have been silent, so that many names do not fill the memory."""
        now = self._clock()
        if now - self._swept_at < _FORGET_S:
            return
        self._swept_at = now
        for name, each in list(self._clients.items()):
            if not each.calls.inside and now - each.bucket.at > _FORGET_S:
                del self._clients[name]
