"""Episodes in memory, for tests and tiny runs: gone when the process ends."""

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import psutil

from qtopt.errors import EpisodeConflict, UnknownEpisode
from qtopt.replay.checksum import crc32c
from qtopt.replay.condition import StoreCondition
from qtopt.replay.index import IndexEntries
from qtopt.replay.record import EpisodeRow, Record
from qtopt.replay.schema import Rows, StoreFormat
from qtopt.replay.shelf import Damaged, Publish
from qtopt.replay.step_table import StepTable
from qtopt.replay.store import ReplayConfig, ReplayStore
from qtopt.types import IntArray


class _MemoryShelf:
    """A ``Shelf`` of lists."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._lock = threading.Lock()
        self._steps = StepTable()
        self._frames: list[bytes] = []
        self._episodes: dict[str, EpisodeRow] = {}
        self._uuids: dict[int, str] = {}

    def add(self, record: Record) -> bool:
        with self._lock:
            known = self._episodes.get(record.row.uuid)
            if known is not None:
                if known.is_same(record.row):
                    return False
                raise EpisodeConflict(
                    f"episode {known.uuid} is known with other content; give every episode its own UUID"
                )
            row = replace(record.row, first_position=len(self._frames))
            self._steps.extend(record.rows)
            self._frames.extend(record.frames)
            self._episodes[row.uuid] = row
            self._uuids[row.first_position] = row.uuid
            self._publish(IndexEntries.of([row]))
            return True

    def rows(self, positions: IntArray) -> Rows:
        return self._steps.take(positions)

    def frames(self, positions: IntArray, rows: Rows) -> list[bytes]:
        frames = [self._frames[position] for position in positions.tolist()]
        sums = np.array([crc32c(frame) for frame in frames], np.uint32)
        bad = positions[sums != rows["frame_crc32c"]]
        if len(bad):
            raise Damaged(bad.tolist(), "frame does not match its checksum")
        return frames

    def episode(self, key: str | int) -> EpisodeRow:
        uuid = self._uuids.get(key) if isinstance(key, int) else key
        if uuid is None or uuid not in self._episodes:
            raise UnknownEpisode(f"no episode {key!r} in this store; `qtopt data info` tells what there is")
        return self._episodes[uuid]

    def quarantine(self, first_positions: Sequence[int], reason: str) -> None:
        with self._lock:
            for first in first_positions:
                uuid = self._uuids[first]
                self._episodes[uuid] = replace(self._episodes[uuid], quarantined=reason)

    def figures(self) -> dict[str, float]:
        with self._lock:
            return {"landed_bytes": float(sum(map(len, self._frames)))}

    def condition(self) -> StoreCondition:
        return StoreCondition(writable=True, free_bytes=psutil.virtual_memory().available)

    def close(self) -> None:
        pass


class MemoryStore(ReplayStore):
    """The store without a disk: the same interface, the same sampling, nothing durable."""

    def __init__(
        self, fmt: StoreFormat, config: ReplayConfig | None = None, *, rng: np.random.Generator | None = None
    ) -> None:
        super().__init__(fmt, config or ReplayConfig(), rng)
        self._shelf = _MemoryShelf(self._publish)
