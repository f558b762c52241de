"""A few places, and in front of them a bounded line for each client: whoever asks often waits behind their own."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from qtopt.rpc.limits import Overdrawn


class Turns:
    """Gives places to the clients in turn; used from one event loop.

    Args:
        name: for messages.
        places: given at a time.
        each: places that one client holds at most, lent ones included.
        waiting: in line at most, of all clients.
        waiting_each: in line at most, of one client.
        lendable: further places at most, given while slow holders keep theirs.
    """

    def __init__(
        self,
        name: str,
        places: int,
        *,
        each: int | None = None,
        waiting: int = 512,
        waiting_each: int = 64,
        lendable: int = 0,
    ) -> None:
        self._name = name
        self._limits = (waiting, waiting_each)
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # the next client first
        self._waiting = 0
        self._free = places
        self._each = places + lendable if each is None else each
        self._held: Counter[str] = Counter()
        self._lendable, self._lent = lendable, 0

    @property
    def held(self) -> int:
        """Those that have a place."""
        return self._held.total()

    @property
    def inside(self) -> int:
        """Those that have a place or wait in line."""
        return self._waiting + self.held

    @asynccontextmanager
    async def place(self, client: str, slow_s: float) -> AsyncIterator["Place"]:
        """Holds a place during the block; raises as ``take`` does.

        Where what it waits for has not ``arrived`` after ``slow_s``, the next in line goes in beside it: who is slow,
        or dead, holds up nobody, until ``lendable`` of them are inside.
        """
        await self.take(client)
        place = Place(self, client, slow_s)
        try:
            yield place
        finally:
            place.leave()

    async def take(self, client: str) -> None:
        """Returns when ``client`` has a place, which is to be given back.

        Raises:
            Overdrawn: too many wait already.
        """
        if self._free and self._held[client] < self._each:
            self._admit(client)
            return
        line = self._lines.get(client, ())
        found = (self._waiting + 1, len(line) + 1)
        if any(value > limit for value, limit in zip(found, self._limits, strict=True)):
            raise Overdrawn(
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
                self.give_back(client)  # it was given a place in the same moment
            else:
                self._leave(client, turn)
            raise
        finally:
            self._waiting -= 1

    def give_back(self, client: str, *, lent: bool = False) -> None:
        """Takes a place of ``client`` back, or one that was ``lent`` meanwhile, and gives away what is free now."""
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]
        if lent:
            self._lent -= 1
        else:
            self._free += 1
        self._give_away()

    def lend(self) -> bool:
        """Lets another one in beside a slow holder; returns whether another place could be made."""
        if self._lent == self._lendable:
            return False
        self._lent += 1
        self._free += 1
        self._give_away()
        return True

    def close(self) -> None:
        """Drops those who wait."""
        for line in self._lines.values():
            for turn in line:
                turn.cancel()

    def _admit(self, client: str) -> None:
        self._free -= 1
        self._held[client] += 1

    def _give_away(self) -> None:
        while self._free:
            client = next((name for name in self._lines if self._held[name] < self._each), None)
            if client is None:
                return
            line = self._lines.pop(client)
            turn = line.popleft()
            if line:
                self._lines[client] = line  # behind the others
            if not turn.done():
                self._admit(client)
                turn.set_result(None)

    def _leave(self, client: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(client)
        if line is not None and turn in line:
            line.remove(turn)
            if not line:
                del self._lines[client]


class Place:
    """A place that is held; made by ``Turns.place``."""

    def __init__(self, turns: Turns, client: str, slow_s: float) -> None:
        self._turns, self._client, self._lent = turns, client, False
        self._timer = asyncio.get_running_loop().call_later(slow_s, self._lend)

    def arrived(self) -> None:
        """Says that what the holder waited for is there: from now on it is not slow."""
        self._timer.cancel()

    def leave(self) -> None:
        """Gives the place back."""
        self._timer.cancel()
        self._turns.give_back(self._client, lent=self._lent)

    def _lend(self) -> None:
        self._lent = self._turns.lend()
