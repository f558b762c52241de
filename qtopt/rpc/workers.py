"""Blocking work behind an asynchronous server: a few threads, and in front of them a bounded line for each client.

Each kind of call has its own threads, so that samplers who wait for data cannot keep out the appends that bring it.
Whoever sends many calls at a time waits behind their own: threads go to the clients in turn.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from qtopt.errors import ServerUnavailable

Result = TypeVar("Result")


class Workers:
    """Threads that run blocking calls of one kind; used from one event loop.

    Args:
        name: for messages.
        threads: calls that run at a time.
        waiting: calls in line at most, of all clients.
        waiting_each: calls in line at most, of one client.
        waiting_bytes: what the requests in line may hold in memory [bytes].
    """

    def __init__(
        self, name: str, threads: int, *, waiting: int = 512, waiting_each: int = 64, waiting_bytes: int = 2 << 30
    ) -> None:
        self._name = name
        self._limits = (waiting, waiting_each, waiting_bytes)
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # the next client first
        self._waiting = self._waiting_bytes = 0
        self._free = self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"rpc-{name}")

    @property
    def inside(self) -> int:
        """Calls that run or wait in line."""
        return self._waiting + self._threads - self._free

    async def run(self, work: Callable[[], Result], client: str = "", size_bytes: int = 0) -> Result:
        """Runs ``work`` in a thread and returns its result.

        A call given up meanwhile leaves the line at once; its thread is free for the next only when it has ended, so
        that calls which come again and again cannot pile up behind a slow disk.

        Args:
            work: what blocks.
            client: whose turn it takes.
            size_bytes: of the request [bytes].

        Raises:
            ServerUnavailable: too many wait already.
        """
        await self._turn(client, size_bytes)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result] = loop.create_future()

        def ended(done: Future[Result]) -> None:
            loop.call_soon_threadsafe(self._ended, done, answer)  # once a call: it wakes the loop

        try:
            self._pool.submit(work).add_done_callback(ended)
        except BaseException:
            self._next()
            raise
        return await answer

    async def close(self) -> None:
        """Drops the calls in line and returns when the running ones have ended."""
        for line in self._lines.values():
            for turn in line:
                turn.cancel()
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    async def _turn(self, client: str, size_bytes: int) -> None:
        """Returns when a thread is this call's."""
        if self._free:
            self._free -= 1
            return
        line = self._lines.get(client, ())
        found = (self._waiting + 1, len(line) + 1, self._waiting_bytes + size_bytes)
        if any(value > limit for value, limit in zip(found, self._limits, strict=True)):
            raise ServerUnavailable(
                f"{self._name}: {self._waiting} calls wait already, {len(line)} of them this client's, with "
                f"{self._waiting_bytes} bytes; at most {', '.join(map(str, self._limits))} may: try again later"
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(client, deque()).append(turn)
        self._waiting += 1
        self._waiting_bytes += size_bytes
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._next()  # it was given a thread in the same moment
            else:
                self._leave(client, turn)
            raise
        finally:
            self._waiting -= 1
            self._waiting_bytes -= size_bytes

    def _ended(self, done: Future[Result], answer: asyncio.Future[Result]) -> None:
        """Hands over what came of a call, if somebody still waits for it, and its thread."""
        self._next()
        if answer.done():
            return
        if done.cancelled():
            answer.cancel()
        elif (error := done.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(done.result())

    def _next(self) -> None:
        """Gives a thread that has become free to the next client in turn."""
        while self._lines:
            client, line = self._lines.popitem(last=False)
            turn = line.popleft()
            if line:
                self._lines[client] = line
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _leave(self, client: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(client)
        if line is not None and turn in line:
            line.remove(turn)
            if not line:
                del self._lines[client]
