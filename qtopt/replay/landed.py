"""The newest episodes of a store on disk, from the log to the segment: durable in the log, their rows in memory."""

import itertools
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import structlog

from qtopt.errors import CorruptEpisode, StoreFull
from qtopt.replay.catalogue import Catalogue
from qtopt.replay.checksum import crc32c
from qtopt.replay.index import IndexEntries
from qtopt.replay.landing import GROUP_BYTES, GROUP_EPISODES, land
from qtopt.replay.landing_file import LandedEpisode, LeftOut, LogFile, first_whole, is_whole, pieces
from qtopt.replay.landing_log import FILE_FACTS, LANDING, LandingLog
from qtopt.replay.opening import landed_rows
from qtopt.replay.quarantine import Quarantine
from qtopt.replay.record import EpisodeRow, Record
from qtopt.replay.schema import STEP_DTYPE, Rows
from qtopt.replay.shelf import Publish
from qtopt.replay.step_table import StepTable

_log = structlog.get_logger(__name__)

SEGMENT_ROWS = 1 << 17
"""Rows that fill a segment whatever their frames' size: those of the log are what takes longest to read at opening."""
_FILES: Final = 4
"""Files of the log in a segment's worth of frames: what can be sealed where there is no room for a whole segment."""
SEGMENT_FACTS = _FILES * FILE_FACTS
"""Bytes of facts that fill a segment whatever their frames' size: they are in memory, thrice, while it is made."""
_SEGMENT_BYTES: Final = 1 << 20
_EPISODE_BYTES: Final = 256
_ROW_BYTES: Final = STEP_DTYPE.itemsize + 8
"""What a segment, each of its episodes and each of its rows take beside frames and facts, at most."""


class Landed:
    """The landed episodes of a store; one thread at a time lands, one seals, any number read.

    Args:
        root: of the store.
        catalogue: of the store.
        files: of its landing log.
        publish: told of episodes.
        steps: all rows of the store; those of the landed episodes are added to them.
        segment_bytes: frames that make a segment.
        quarantine: where goes what no episode is made of.

    Attributes:
        start: position behind what is sealed.
        frame_bytes: size of their frames.
        facts_bytes: size of their facts.
        lost: found in the log and lost to the catalogue; not served before they are landed again.
    """

    def __init__(
        self,
        root: Path,
        catalogue: Catalogue,
        files: Sequence[LogFile],
        publish: Publish,
        *,
        steps: StepTable,
        segment_bytes: int,
        quarantine: Quarantine,
    ) -> None:
        self._catalogue = catalogue
        self._publish = publish
        self._segment_bytes = segment_bytes
        self._quarantine = quarantine
        self._log = LandingLog(root / LANDING, files, segment_bytes / _FILES)
        self._since = time.monotonic()
        self._steps = steps
        self.start = steps.end
        self.frame_bytes = self.facts_bytes = 0
        self.lost: deque[LandedEpisode] = deque()
        self._changing = threading.Lock()  # the rows in memory: by who lands, and by who has sealed

    def load(self) -> list[int]:
        """Publishes what the catalogue names and takes its rows into memory; returns where damaged ones begin."""
        bad: list[int] = []
        old = self._catalogue.landed_rows()
        for batch in self._catalogue.batches(self.start):
            rows, damaged = landed_rows(batch, [old.get(row.first_position) or self._log.adopt(row) for row in batch])
            bad += damaged
            self._publish(IndexEntries.of(batch))
            self._steps.extend(rows)
            self.frame_bytes += int(rows["frame_bytes"].sum())
            self.facts_bytes += sum(len(row.facts) for row in batch)
        rest = self._log.take_rest(self.start)
        known = self._catalogue.known([episode.row.uuid for episode in rest])
        served = {uuid for uuid, there in known.items() if not there.quarantined}
        self.lost.extend(episode for episode in rest if episode.row.uuid not in served)
        return bad

    def recover(self) -> None:
        """Lands what the catalogue lost; where there is no room, the first commit that succeeds does it."""
        try:
            self._land_lost()
            self._log.set_aside(self._quarantine)
        except StoreFull as error:
            _log.warning("episodes wait in the landing log until there is room", error=str(error))
        except OSError as error:
            _log.warning("what is left out of the landing log is not kept aside yet", error=str(error))

    def land(self, records: Sequence[Record]) -> list[EpisodeRow | bytes]:
        """Stores records and publishes them; see ``landing.land``."""
        if self.lost:
            self._land_lost()
        return self._land(records)

    def _land(self, records: Sequence[Record]) -> list[EpisodeRow | bytes]:
        results = land(self._catalogue, self._log, records, self._steps.end)
        stored: list[EpisodeRow] = []
        with self._changing:
            for record, result in zip(records, results, strict=True):
                if isinstance(result, EpisodeRow):
                    if not self.frame_bytes:
                        self._since = time.monotonic()
                    self._steps.extend(record.rows)
                    self.frame_bytes += record.frame_bytes
                    self.facts_bytes += len(record.row.facts)
                    stored.append(result)
        self._publish(IndexEntries.of(stored))
        return results

    def _land_lost(self) -> None:
        """Lands again what was lost, before anything new takes its place."""
        while self.lost:
            group: list[Record] = []
            read = size = 0
            while read < min(len(self.lost), GROUP_EPISODES) and size < GROUP_BYTES:
                record = self._whole(self.lost[read])
                read += 1
                if record is not None:
                    group.append(record)
                    size += record.size
            self._land(group)
            for _ in range(read):
                self.lost.popleft()
        self._log.settle(self._steps.end)
        self._log.drop_before(self.start, self._quarantine)

    def _whole(self, episode: LandedEpisode) -> Record | None:
        try:
            return first_whole(episode)[1]
        except (CorruptEpisode, OSError) as error:
            _log.warning("an episode that was never acknowledged, or is damaged, is left out", error=str(error))
            self._log.leave_out(episode)
            return None

    def waiting(self) -> set[str]:
        """Returns the UUIDs of the episodes that are to be landed again."""
        return {episode.row.uuid for episode in self.lost.copy()}

    def left_out(self) -> list[LeftOut]:
        """Returns what of the log no episode is made of."""
        waiting = [piece for episode in self.lost.copy() if not is_whole(episode) for piece in pieces(episode)]
        return [*self._log.left_out(), *waiting]

    def frame(self, position: int) -> bytes | None:
        """Returns a landed frame, unchecked; None when it is not there, or no longer. Raises OSError."""
        frame = self._log.frame(position)
        return self._catalogue.landed_frame(position) if frame is None else frame

    def is_whole(self, row: EpisodeRow) -> bool:
        """Whether all frames of an episode, found elsewhere, are landed as well, can be read, and match."""
        known = self._catalogue.episode(row.uuid)
        if known is None or known.segment is not None or known.digest != row.digest:
            return any(episode.row.digest == row.digest and is_whole(episode) for episode in self.lost.copy())
        stop = known.first_position + known.length + 1
        expected = self._steps.between(known.first_position, stop)["frame_crc32c"].tolist()
        try:
            return len(expected) == known.length + 1 and all(
                crc32c(self.frame(position) or b"") == checksum
                for position, checksum in enumerate(expected, known.first_position)
            )
        except OSError:
            return False

    def keep_records(self, episodes: Collection[EpisodeRow]) -> dict[bytes, set[Path]]:
        """Keeps what the log has of some episodes in the quarantine; see ``LandingLog.keep_records``."""
        return self._log.keep_records(episodes, self._quarantine)

    @property
    def rows(self) -> int:
        """How many rows they have."""
        return self._steps.end - self.start

    def due(self, after_s: float) -> bool:
        """Whether they should be sealed: enough of them, or any that wait longer than ``after_s``."""
        if self._fill_a_segment(self.frame_bytes, self.facts_bytes, self.rows):
            return True
        return bool(0 < after_s < time.monotonic() - self._since and self.frame_bytes)

    def _fill_a_segment(self, frame_bytes: int, facts_bytes: int, rows: int) -> bool:
        return frame_bytes >= self._segment_bytes or facts_bytes >= SEGMENT_FACTS or rows >= SEGMENT_ROWS

    def oldest(self, room: float) -> tuple[list[EpisodeRow], Rows]:
        """Returns the oldest ones that fill a segment, and their rows.

        Where there is too little room for these, it is what is in as many files of the log as there is room for: when
        they are removed the room is back.

        Args:
            room: bytes that the segment may take.

        Raises:
            StoreFull: there is room for not even one file, or what comes before has not been landed again for want of
                it.
        """
        if self.lost:
            raise StoreFull("nothing is sealed before there is room for what waits in the landing log: free disk space")
        start, ends = self.start, self._log.ends()
        chosen: list[EpisodeRow] = []
        stop, size, facts_bytes, needed, fitting = start, 0, 0, _SEGMENT_BYTES, 0
        for row in itertools.chain.from_iterable(self._catalogue.batches(start, self._steps.end)):
            if self._fill_a_segment(size, facts_bytes, stop - start):
                break
            chosen.append(row)
            stop = row.first_position + row.length + 1
            frame_bytes = int(self._steps.between(row.first_position, stop)["frame_bytes"].sum())
            size += frame_bytes
            facts_bytes += len(row.facts)
            needed += frame_bytes + _EPISODE_BYTES + len(row.facts) + (row.length + 1) * _ROW_BYTES
            if needed <= room and stop in ends:
                fitting = len(chosen)
        if chosen and needed > room:
            if not fitting:
                raise StoreFull(
                    f"a segment of {needed / 1e6:.1f} MB has {max(0.0, room) / 1e6:.1f} MB beyond what is kept free "
                    "(--replay.min-free-mb); the episodes stay in the landing log: free disk space"
                )
            del chosen[fitting:]
            stop = chosen[-1].first_position + chosen[-1].length + 1
        return chosen, self._steps.between(start, stop)

    def close(self) -> None:
        """Lets go of all files."""
        self.lost.clear()
        self._log.close()

    def drop_before(self, position: int, frame_bytes: int, facts_bytes: int) -> None:
        """Forgets what was sealed, with frames and facts of so many bytes."""
        with self._changing:
            self.start = position
            self.frame_bytes -= frame_bytes
            self.facts_bytes -= facts_bytes
            self._since = time.monotonic()
        self._log.drop_before(position, self._quarantine)
