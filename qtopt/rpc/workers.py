"""Blocking work behind an asynchronous server: a few threads with a bounded line in front of them.

Each kind of call has its own threads, so that samplers who wait for data cannot keep out the appends that bring it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from qtopt.errors import ServerUnavailable

Result = TypeVar("Result")


class Workers:
    """Threads that run blocking calls of one kind: ``threads`` at a time and at most ``waiting`` more in line."""

    def __init__(self, name: str, threads: int, waiting: int = 128) -> None:
        self._name = name
        self._limit = threads + waiting
        self._inside = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"rpc-{name}")

    @property
    def inside(self) -> int:
        """Calls that run or wait in line."""
        return self._inside

    async def run(self, work: Callable[[], Result]) -> Result:
        """Runs ``work`` in a thread and returns its result; raises ServerUnavailable when too many wait already."""
        if self._inside >= self._limit:
            raise ServerUnavailable(
                f"{self._name}: {self._inside} calls wait already, the most allowed: try again later"
            )
        self._inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._inside -= 1

    async def close(self) -> None:
        """Drops the calls in line and returns when the running ones have ended."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
