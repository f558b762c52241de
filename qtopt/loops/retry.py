"""Going on when the server is away: backoff between attempts, and requests that overlap with work."""

import collections
import concurrent.futures
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

from qtopt.errors import AccessDenied, RemoteError, ServerUnavailable, StoreError
from qtopt.loops.metrics import Clock, Every

log = structlog.get_logger(__name__)

T = TypeVar("T")
Stop = Callable[[], bool]
"""Asked between pieces of work; True means that the loop shall end."""
_LOOK_S = 0.05
_LASTS_S = 60.0


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


class Setback:
    """Bears that a server, or a disk, cannot do something now: tries later and later, and says so once.

    That a server is away is told when it has lasted for a minute: until then it may be being started again.

    Args:
        what: cannot be done meanwhile, in words for the log.
        clock: paces the attempts [s].
    """

    def __init__(self, what: str, clock: Clock = time.monotonic) -> None:
        self._what = what
        self._clock, self._backoff = clock, Backoff(clock=clock)
        self._succeeded = False
        self._since_s: float | None = None
        self._told: type[Exception] | None = None

    def ready(self) -> bool:
        """Returns whether it is time to try again."""
        return self._backoff.ready()

    def bear(self, error: Exception) -> None:
        """Puts the next attempt off; raises an AccessDenied of a role that never could."""
        self._backoff.failed()
        if isinstance(error, AccessDenied) and not self._succeeded:
            raise error
        if self._since_s is None:
            self._since_s = self._clock()
        if isinstance(error, ServerUnavailable):
            is_news = self._told is None and self._clock() - self._since_s >= _LASTS_S
        else:
            is_news = type(error) is not self._told
        if is_news:
            log.warning(f"{self._what}; trying again", kind=type(error).__name__, error=str(error))
            self._told = type(error)

    def over(self) -> None:
        """Notes a success."""
        self._backoff.succeeded()
        self._succeeded, self._since_s = True, None
        if self._told is not None:
            log.info(f"no longer: {self._what}")
            self._told = None

    def wait(self, stop: Stop) -> None:
        """Returns when it is time to try again, or to end."""
        while not self.ready() and not stop():
            time.sleep(_LOOK_S)


class Duty(Generic[T]):
    """Something to do every so often for a server or on a disk; what these refuse is owed, and tried again.

    Args:
        what: as in ``Setback``.
        do: raises StoreError, RemoteError or OSError when it cannot be done now.
        every: when it is due.
    """

    def __init__(self, what: str, do: Callable[[], T], every: Every) -> None:
        self._do, self._every = do, every
        self._setback = Setback(what)
        self._owed = False

    def now(self) -> T | None:
        """Does it; returns None where it is owed."""
        try:
            done = self._do()
        except (RemoteError, StoreError, OSError) as error:
            self._owed = True
            self._setback.bear(error)
            return None
        self._owed = False
        self._setback.over()
        return done

    def if_due(self) -> T | None:
        """Does it when its time has come, or when it is owed and it is time to try again."""
        return self.now() if self._every.due() else self.if_owed()

    def if_owed(self) -> T | None:
        """Does it when it is owed and it is time to try again."""
        return self.now() if self._owed and self._setback.ready() else None


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

    def comes(self, stop: Stop) -> bool:
        """Waits for the oldest answer; returns True when it is there, False where told to stop before."""
        while not concurrent.futures.wait([self._pending[0]], _LOOK_S).done:
            if stop():
                return False
        return True

    def next(self) -> T:
        """Returns the oldest answer, waiting for it if need be."""
        future = self._pending.popleft()
        self._pending.append(self._pool.submit(self._fetch))
        return future.result()

    def __enter__(self) -> "Prefetch[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
