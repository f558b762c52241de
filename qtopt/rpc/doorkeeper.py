"""Connections that ended without a call, for the audit log: gRPC refuses a bad certificate without telling anybody.

gRPC asks for the server's certificates before each handshake; that tells of a connection, not whose. The kernel's table
has the addresses: those that appear there and go again without a call were turned away, gave up or were too slow. Those
that come and go between two looks at it are told as a number, without an address.
"""

import asyncio
import ipaddress
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qtopt.rpc.audit import Audit
from qtopt.rpc.metrics import ServerMetrics

log = logging.getLogger(__name__)

_TABLES: Final = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_GONE: Final = frozenset({"04", "05", "06", "07", "09", "0B"})  # states of a connection that one side has closed
_LISTENING: Final = "0A"
_LOOK_S: Final = 0.5
_PATIENT_LOOK_S: Final = 5.0
_PATIENT_AFTER_S: Final = 15.0


@dataclass(slots=True)
class _Visitor:
    since_s: float
    called: bool = False
    told: bool = False


class Doorkeeper:
    """Watches the connections of one port.

    Args:
        audit: is told of those without a call.
        metrics: counts them.
    """

    def __init__(self, audit: Audit, metrics: ServerMetrics) -> None:
        self._audit, self._metrics = audit, metrics
        self._arrived = self._placed = 0
        self._visitors: dict[str, _Visitor] = {}
        self._task: asyncio.Task[None] | None = None

    def arrived(self) -> None:
        """Takes note of a new connection; called from gRPC's threads."""
        self._arrived += 1

    def called(self, peer: str) -> None:
        """Takes note that ``peer`` has made a call, refused or not; called in the event loop."""
        if self._task is None:
            return
        self._visitor(peer, time.monotonic()).called = True

    def start(self, port: int) -> None:
        """Begins to watch, in the running event loop."""
        self._task = asyncio.create_task(self._watch(port))

    async def close(self) -> None:
        """Ends the watch."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, port: int) -> None:
        seen, looked_s = 0, 0.0
        for peer in await asyncio.to_thread(read_connections, port):  # left over from who had the port before
            self._visitors.setdefault(peer, _Visitor(time.monotonic(), told=True))
        while True:
            await asyncio.sleep(_LOOK_S)
            now_s = time.monotonic()
            silent = [each.since_s for each in self._visitors.values() if not (each.called or each.told)]
            pause_s = _LOOK_S if silent and now_s - max(silent) < _PATIENT_AFTER_S else _PATIENT_LOOK_S
            arrived = self._arrived
            if arrived == seen and not (silent and now_s - looked_s >= pause_s):
                continue
            seen, looked_s = arrived, now_s
            present = await asyncio.to_thread(read_connections, port)
            self._compare(present, now_s)
            if (nameless := arrived - self._placed) > 0:  # came and went between two looks
                self._metrics.turned_away(nameless)
                self._audit.refused(None, "?", "connection", f"{nameless} ended at once, without a call")
            self._placed = min(max(self._placed, arrived), self._arrived)

    def _visitor(self, peer: str, now_s: float) -> _Visitor:
        if peer not in self._visitors:
            self._placed += 1
            self._visitors[peer] = _Visitor(now_s)
        return self._visitors[peer]

    def _compare(self, present: dict[str, bool], now_s: float) -> None:
        for peer in present:
            self._visitor(peer, now_s)
        for peer, visitor in list(self._visitors.items()):
            if present.get(peer, False):
                continue
            if not (visitor.called or visitor.told):
                visitor.told = True
                self._metrics.turned_away(1)
                self._audit.refused(
                    None,
                    peer,
                    "connection",
                    f"ended without a call some {now_s - visitor.since_s:.1f} s after it was seen: no certificate, an "
                    "unknown or expired one, no TLS, or too slow",
                )
            if peer not in present:
                del self._visitors[peer]


def read_connections(port: int) -> dict[str, bool]:
    """Returns the other ends of this machine's connections to ``port``, and whether each is still open."""
    found: dict[str, bool] = {}
    for table in _TABLES:
        try:
            rows = table.read_text().splitlines()[1:]
        except OSError as error:
            log.debug("%s cannot be read: %s", table, error)
            continue
        for row in rows:
            _, local, remote, state, *_ = row.split()
            if int(local.rpartition(":")[2], 16) == port and state != _LISTENING:
                found[_address(remote)] = state not in _GONE
    return found


def _address(text: str) -> str:
    """Returns an address of the kernel's table, words of four bytes in the machine's order, as gRPC writes it."""
    host, _, port = text.partition(":")
    words = [bytes.fromhex(host[start : start + 8])[::-1] for start in range(0, len(host), 8)]
    address = ipaddress.ip_address(b"".join(words))
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return f"[{address}]:{int(port, 16)}"
        address = address.ipv4_mapped
    return f"{address}:{int(port, 16)}"
