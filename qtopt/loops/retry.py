"""Going on when the server is away: backoff between attempts, and requests that overlap with work."""

import collections
import concurrent.futures
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from qtopt.loops.metrics import Clock

T = TypeVar("T")
Stop = Callable[[], bool]
"""Asked between pieces of work; True means that the loop shall end."""


def never() -> bool:
    """The ``Stop`` of a loop that ends by itself."""
    return False


class Backoff:
    """Says whether to try again: waits longer after each failure, and not at all after a success."""

    def __init__(self, first_s: float = 0.5, longest_s: float = 10.0, clock: Clock = time.monotonic) -> None:
        self._first_s, self._longest_s, self._clock = first_s, longest_s, clock
        self._wait_s, self._ready_at = first_s, 0.0

    def ready(self) -> bool:
        """Returns whether enough time has passed since the last failure."""
        return self._clock() >= self._ready_at

    def failed(self) -> None:
        """Puts the next attempt off, twice as long as the last time."""
        self._ready_at = self._clock() + self._wait_s
        self._wait_s = min(self._longest_s, 2 * self._wait_s)

    def succeeded(self) -> None:
        """Starts over with the shortest wait."""
        self._wait_s, self._ready_at = self._first_s, 0.0


class Prefetch(Generic[T]):
    """Keeps ``depth`` requests under way on threads of their own, so that waiting for data overlaps with work.

    ``next`` raises what the request raised; the request is then made again. Use as a context manager; leaving it waits
    for requests under way.
    """

    def __init__(self, fetch: Callable[[], T], depth: int = 2) -> None:
        self._fetch = fetch
        self._pool = concurrent.futures.ThreadPoolExecutor(max_workers=depth, thread_name_prefix="prefetch")
        self._pending: collections.deque[concurrent.futures.Future[T]] = collections.deque(
            self._pool.submit(fetch) for _ in range(depth)
        )

    def next(self) -> T:
        """Returns the oldest answer, waiting for it if need be."""
        future = self._pending.popleft()
        self._pending.append(self._pool.submit(self._fetch))
        return future.result()

    def __enter__(self) -> "Prefetch[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
