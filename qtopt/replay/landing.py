"""Group commit: what many threads bring is stored by one of them, as many episodes at a time as are waiting."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import structlog

from qtopt.errors import CorruptEpisode, StoreError
from qtopt.replay.catalogue import Catalogue
from qtopt.replay.landing_log import LandingLog
from qtopt.replay.record import EpisodeRow, Record
from qtopt.replay.schema import STEP_DTYPE, Rows

_log = structlog.get_logger(__name__)

GROUP_EPISODES = 64
GROUP_BYTES = 8 << 20

Commit = Callable[[Sequence[Record]], list[bool | StoreError]]
"""Stores records durably; says for each whether it was new or what is wrong with it. Raises when all failed."""


def land(catalogue: Catalogue, log: LandingLog, records: Sequence[Record], end: int) -> list[EpisodeRow | bytes]:
    """Stores new episodes from position ``end`` on, durably and all together.

    Returns:
        for each record its row as stored, or the digest under which its UUID is known already.
    """
    known = catalogue.digests([record.row.uuid for record in records])
    results: list[EpisodeRow | bytes] = []
    fresh: list[Record] = []
    for record in records:
        digest = known.get(record.row.uuid)
        if digest is not None:
            results.append(digest)
            continue
        row = replace(record.row, first_position=end)
        known[row.uuid] = row.digest
        results.append(row)
        fresh.append(replace(record, row=row))
        end += len(record.rows)
    if fresh:
        with log.appended(fresh):
            catalogue.enter([record.row for record in fresh])
    return results


def lost_groups(catalogue: Catalogue, log: LandingLog, start: int) -> Iterator[list[Record]]:
    """Yields, in groups to land again, what is in the log from position ``start`` on and was lost to the catalogue."""
    known = {row.uuid for row in catalogue.episodes(start)}
    group: list[Record] = []
    for first, episode in log.take_found():
        if first < start or episode.row.uuid in known:
            continue
        try:
            group.append(log.record(episode))
        except CorruptEpisode as error:
            _log.warning("an episode that was never acknowledged, or is damaged, is left out", error=str(error))
        if len(group) == GROUP_EPISODES:
            yield group
            group = []
    if group:
        yield group


def sealed_meanwhile(catalogue: Catalogue, landed: Mapping[int, Rows], start: int, root: Path) -> bool:
    """Whether episodes from ``start`` on lack their landed rows because another process sealed them by now."""
    if all(row.first_position in landed for row in catalogue.episodes(start)):
        return False
    with closing(Catalogue(root, read_only=True)) as now:
        return now.segments() != catalogue.segments()


def unreadable(row: EpisodeRow) -> Rows:
    """Returns rows that hold the place of an episode whose steps are lost; no frame matches their checksum."""
    rows = np.zeros(row.length + 1, STEP_DTYPE)
    rows["frame_crc32c"] = np.uint32(0xFFFFFFFF)
    return rows


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
        self._committing = threading.Lock()
        self._closed = False

    def submit(self, record: Record) -> bool:
        """Stores a record; returns whether it was new. Raises what ``commit`` found wrong."""
        done: Future[bool] = Future()
        with self._room:
            self._waiting.append((record, done))
            with self._committing:
                while not done.done():
                    self._commit_group()
        return done.result()

    def close(self) -> None:
        """Returns when what was waiting is stored; what comes later is refused."""
        with self._committing:
            while self._waiting:
                self._commit_group()
            self._closed = True

    def _commit_group(self) -> None:
        group = self._next_group()
        try:
            if self._closed:
                raise StoreError("the store is closed; episodes must be appended before")
            results = self._commit([record for record, _ in group])
        except Exception as error:  # whatever it was, those who wait must hear of it
            for _, done in group:
                done.set_exception(error)
            return
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
