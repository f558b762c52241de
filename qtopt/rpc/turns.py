"""A few places, and in front of them a bounded line for each client: whoever asks often waits behind their own."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from qtopt.errors import ServerUnavailable


class Turns:
    """Gives places to the clients in turn; used from one event loop.

    Args:
        name: for messages.
        places: given at a time.
        waiting: in line at most, of all clients.
        waiting_each: in line at most, of one client.
    """

    def __init__(self, name: str, places: int, *, waiting: int = 512, waiting_each: int = 64) -> None:
        self._name = name
        self._limits = (waiting, waiting_each)
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # the next client first
        self._waiting = 0
        self._free = self._places = places

    @property
    def inside(self) -> int:
        """Those that have a place or wait in line."""
        return self._waiting + self._places - self._free

    @asynccontextmanager
    async def place(self, client: str) -> AsyncIterator[None]:
        """Holds a place during the block; raises as ``take`` does."""
        await self.take(client)
        try:
            yield
        finally:
            self.give_back()

    async def take(self, client: str) -> None:
        """Returns when ``client`` has a place, which is to be given back.

        Raises:
            ServerUnavailable: too many wait already.
        """
        if self._free:
            self._free -= 1
            return
        line = self._lines.get(client, ())
        found = (self._waiting + 1, len(line) + 1)
        if any(value > limit for value, limit in zip(found, self._limits, strict=True)):
            raise ServerUnavailable(
                f"{self._name}: {self._waiting} calls wait already, {len(line)} of them this client's; at most "
                f"{' and '.join(map(str, self._limits))} may: try again later"
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(client, deque()).append(turn)
        self._waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()  # it was given a place in the same moment
            else:
                self._leave(client, turn)
            raise
        finally:
            self._waiting -= 1

    def give_back(self) -> None:
        """Gives a place that has become free to the next client in turn."""
        while self._lines:
            client, line = self._lines.popitem(last=False)
            turn = line.popleft()
            if line:
                self._lines[client] = line
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def close(self) -> None:
        """Drops those who wait."""
        for line in self._lines.values():
            for turn in line:
                turn.cancel()

    def _leave(self, client: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(client)
        if line is not None and turn in line:
            line.remove(turn)
            if not line:
                del self._lines[client]
