"""Blocking work behind an asynchronous server: a few threads, which clients take in turn.

Each kind of call has its own threads, so that samplers who wait for data cannot keep out the appends that bring it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from qtopt.rpc.turns import Turns

Result = TypeVar("Result")


class Workers:
    """Threads that run blocking calls of one kind; used from one event loop.

    Args:
        name: for messages.
        threads: calls that run at a time.
        each: of them one client's at most.
        waiting: calls in line at most, of all clients.
        waiting_each: calls in line at most, of one client.
    """

    def __init__(
        self, name: str, threads: int, *, each: int | None = None, waiting: int = 512, waiting_each: int = 64
    ) -> None:
        self._turns = Turns(name, threads, each=each, waiting=waiting, waiting_each=waiting_each)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"rpc-{name}")

    @property
    def inside(self) -> int:
        """Calls that run or wait in line."""
        return self._turns.inside

    async def run(self, work: Callable[[], Result], client: str = "") -> Result:
        """Runs ``work`` in a thread and returns its result.

        A call given up meanwhile leaves the line at once; its thread is free for the next only when it has ended, so
        that calls which come again and again cannot pile up behind a slow disk.

        Args:
            work: what blocks.
            client: whose turn it takes.

        Raises:
            Overdrawn: too many wait already.
        """
        await self._turns.take(client)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result] = loop.create_future()

        def ended(done: Future[Result]) -> None:
            loop.call_soon_threadsafe(self._ended, client, done, answer)  # once a call: it wakes the loop

        try:
            self._pool.submit(work).add_done_callback(ended)
        except BaseException:
            self._turns.give_back(client)
            raise
        return await answer

    async def close(self) -> None:
        """Drops the calls in line and returns when the running ones have ended."""
        self._turns.close()
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    def _ended(self, client: str, done: Future[Result], answer: asyncio.Future[Result]) -> None:
        """Hands over what came of a call, if somebody still waits for it, and its thread."""
        self._turns.give_back(client)
        if answer.done():
            return
        if done.cancelled():
            answer.cancel()
        elif (error := done.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(done.result())
