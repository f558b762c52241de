"""Group commit: what many threads bring is stored by one of them, as many episodes at a time as are waiting."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from qtopt.errors import StoreError
from qtopt.replay.catalogue import Catalogue, Known
from qtopt.replay.landing_file import LogFile
from qtopt.replay.landing_log import LANDING, LandingLog, open_files
from qtopt.replay.record import EpisodeRow, Record

GROUP_EPISODES = 64
GROUP_BYTES = 8 << 20
"""Of frames and facts."""

Commit = Callable[[Sequence[Record]], list[bool | StoreError]]
"""Stores records durably; says for each whether it was new or what is wrong with it. Raises when all failed."""


def land(catalogue: Catalogue, log: LandingLog, records: Sequence[Record], end: int) -> list[EpisodeRow | bytes]:
    """Stores new episodes from position ``end`` on, durably and all together.

    One that is there already, but damaged, is new: it takes the place of the damaged one.

    Returns:
        for each record its row as stored, or the digest under which its UUID is known already.
    """
    known = catalogue.known([record.row.uuid for record in records])
    results: list[EpisodeRow | bytes] = []
    fresh: list[Record] = []
    damaged: list[EpisodeRow] = []
    for record in records:
        there = known.get(record.row.uuid)
        if there is not None:
            row = catalogue.episode(record.row.uuid) if there.quarantined else None
            if row is None or not row.is_same(record.row):
                results.append(there.digest)
                continue
            damaged.append(row)
        row = replace(record.row, first_position=end, quarantined=None)
        known[row.uuid] = Known(row.digest, quarantined=False)
        results.append(row)
        fresh.append(replace(record, row=row))
        end += len(record.rows)
    if fresh:
        with log.appended(fresh):
            catalogue.enter([record.row for record in fresh], damaged)
    return results


def groups(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yields records, some at a time: as many as are landed together."""
    group: list[Record] = []
    size = 0
    for record in records:
        group.append(record)
        size += record.size
        if len(group) == GROUP_EPISODES or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


@contextmanager
def one_moment(catalogue: Catalogue, root: Path) -> Iterator[list[LogFile]]:
    """Lets this thread read one state of the catalogue in the block; yields the open files of its log.

    All that is landed in that state is in them, also when another process seals it and removes them meanwhile.
    """
    while True:
        with catalogue.snapshot():
            segments = catalogue.segments()
            files = open_files(root / LANDING)
            with closing(Catalogue(root, read_only=True)) as now:
                sealed_meanwhile = now.segments() != segments
            if not sealed_meanwhile:
                yield files
                return


class GroupCommitter:
    """Hands records to ``commit`` in groups; ``submit`` returns when the record's group is on disk.

    Whoever finds nobody committing commits for all that wait: no thread of its own has to be woken.

    Args:
        commit: called by one thread at a time.
        max_waiting: records that may wait; ``submit`` blocks beyond.
    """

    def __init__(self, commit: Commit, max_waiting: int) -> None:
        self._commit = commit
        self._room = threading.BoundedSemaphore(max_waiting)
        self._waiting: deque[tuple[Record, Future[bool]]] = deque()
        self._turn = threading.Condition()
        self._committing = False
        self._closed = False

    def submit(self, record: Record) -> bool:
        """Stores a record; returns whether it was new. Raises what ``commit`` found wrong."""
        done: Future[bool] = Future()
        with self._room:
            self._waiting.append((record, done))
            while self._takes_turn(done):
                try:
                    self._commit_group()
                finally:
                    self._end_turn()
        return done.result()

    def close(self) -> None:
        """Returns when what was waiting is stored; what comes later is refused."""
        self._takes_turn(Future())
        try:
            while self._waiting:
                self._commit_group()
            self._closed = True
        finally:
            self._end_turn()

    def _takes_turn(self, done: "Future[bool]") -> bool:
        """Waits until nobody commits, or until ``done``; returns whether it is the caller's turn to commit."""
        with self._turn:
            self._turn.wait_for(lambda: done.done() or not self._committing)
            if done.done():
                return False
            self._committing = True
            return True

    def _end_turn(self) -> None:
        with self._turn:
            self._committing = False
            self._turn.notify_all()

    def _commit_group(self) -> None:
        group = self._next_group()
        try:
            if self._closed:
                raise StoreError("the store is closed; episodes must be appended before")
            results = self._commit([record for record, _ in group])
        except Exception as error:  # whatever it was, those who wait must hear of it
            _refuse(group, error)
            return
        except BaseException:  # Ctrl-C in a thread that commits for all
            self._closed = True  # how far it came is known when the store is opened again
            _refuse(group, StoreError("the store was interrupted while it stored this; open it again"))
            raise
        for (_, done), result in zip(group, results, strict=True):
            if isinstance(result, StoreError):
                done.set_exception(result)
            else:
                done.set_result(result)

    def _next_group(self) -> list[tuple[Record, Future[bool]]]:
        group: list[tuple[Record, Future[bool]]] = []
        size = 0
        while self._waiting and len(group) < GROUP_EPISODES and size < GROUP_BYTES:
            item = self._waiting.popleft()
            size += item[0].size
            group.append(item)
        return group


def _refuse(group: Sequence[tuple[Record, Future[bool]]], error: Exception) -> None:
    for _, done in group:
        done.set_exception(error)
