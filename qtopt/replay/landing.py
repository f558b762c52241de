"""Group commit: one thread stores what many threads bring, as many episodes at a time as are waiting."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from qtopt.errors import StoreError
from qtopt.replay.record import Record

GROUP_EPISODES = 64
GROUP_BYTES = 8 << 20

Commit = Callable[[Sequence[Record]], list[bool | StoreError]]
"""Stores records durably; says for each whether it was new or what is wrong with it. Raises when all failed."""


class GroupCommitter:
    """Hands records to ``commit`` in groups; ``submit`` returns when the record's group is on disk.

    Args:
        commit: called from one thread only.
        max_waiting: records that may wait; ``submit`` blocks beyond.
    """

    def __init__(self, commit: Commit, max_waiting: int) -> None:
        self._commit = commit
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[Record, Future[bool]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, record: Record) -> bool:
        """Stores a record; returns whether it was new. Raises what ``commit`` found wrong."""
        done: Future[bool] = Future()
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._waiting) < self._max_waiting)
            if self._closed:
                raise StoreError("the store is closed; episodes must be appended before")
            self._waiting.append((record, done))
            self._changed.notify_all()
        return done.result()

    def close(self) -> None:
        """Stores what is waiting and ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            try:
                results = self._commit([record for record, _ in group])
            except Exception as error:  # whatever it was, those who wait must hear of it
                for _, done in group:
                    done.set_exception(error)
                continue
            for (_, done), result in zip(group, results, strict=True):
                if isinstance(result, StoreError):
                    done.set_exception(result)
                else:
                    done.set_result(result)

    def _next_group(self) -> list[tuple[Record, Future[bool]]]:
        """Waits for records; returns none when the store is closed and nothing waits."""
        group: list[tuple[Record, Future[bool]]] = []
        size = 0
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting)
            while self._waiting and len(group) < GROUP_EPISODES and size < GROUP_BYTES:
                item = self._waiting.popleft()
                size += item[0].size
                group.append(item)
            self._changed.notify_all()
        return group
