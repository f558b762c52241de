"""Values fetched ahead of their use by one thread, so that the network's time is spent while the consumer computes."""

import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from qtopt.errors import ConfigError, ServerUnavailable

Value = TypeVar("Value")

_LOOK_S: Final = 0.1


class Prefetcher(Generic[Value]):
    """Calls ``fetch`` in a thread and keeps up to ``depth`` results ready.

    Example::

        with Prefetcher(lambda: connection.replay.sample_labelled(128, 30.0)) as batches:
            batch = batches.get()

    What ``fetch`` raises is raised by the ``get`` that would have had its value; the thread goes on after that.
    """

    def __init__(self, fetch: Callable[[], Value], depth: int = 2) -> None:
        if depth < 1:
            raise ConfigError(f"prefetch depth is {depth}, expected at least 1")
        self._fetch = fetch
        self._ready: queue.Queue[tuple[Value | None, Exception | None]] = queue.Queue(depth)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()
        self.waited_s = 0.0
        """Seconds that ``get`` has waited so far: the consumer's lost time."""

    def get(self, timeout_s: float = 60.0) -> Value:
        """Returns the next value; raises ServerUnavailable when none comes within ``timeout_s`` or after ``close``."""
        start = time.monotonic()
        try:
            value, error = self._next(start + timeout_s)
        finally:
            self.waited_s += time.monotonic() - start
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # only an error comes without a value

    def close(self, timeout_s: float = 5.0) -> None:
        """Ends the thread after the fetch under way, for which it waits up to ``timeout_s``; may be called again."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self, deadline_s: float) -> tuple[Value | None, Exception | None]:
        while not self._stopping.is_set():
            left_s = deadline_s - time.monotonic()
            try:
                return self._ready.get(timeout=max(min(left_s, _LOOK_S), 0.001))
            except queue.Empty:
                if left_s <= 0:
                    raise ServerUnavailable("prefetch: no value arrived in time; try again") from None
        raise ServerUnavailable("prefetch: closed while waiting for a value")

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                item: tuple[Value | None, Exception | None] = (self._fetch(), None)
            except Exception as error:  # whatever it is belongs to the consumer
                item = (None, error)
            while not self._stopping.is_set():
                try:
                    self._ready.put(item, timeout=_LOOK_S)
                    break
                except queue.Full:
                    continue
