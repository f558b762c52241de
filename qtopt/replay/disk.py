"""Episodes on disk: landed ones in the landing log, sealed ones in segments."""

import shutil
import threading
from collections.abc import Collection, Sequence, Set
from pathlib import Path

import numpy as np
import structlog

from qtopt.durable import make_directory
from qtopt.errors import EpisodeConflict, StoreError, UnknownEpisode
from qtopt.replay.catalogue import Catalogue, SegmentRow
from qtopt.replay.checksum import crc32c
from qtopt.replay.condition import DiskWatch, StoreCondition
from qtopt.replay.landed import SEGMENT_ROWS, Landed
from qtopt.replay.landing import GroupCommitter, one_moment
from qtopt.replay.layout import Layout
from qtopt.replay.opening import remove_unknown, require_explained, sealed_entries, sealed_rows
from qtopt.replay.quarantine import Quarantine
from qtopt.replay.record import EpisodeRow, Record
from qtopt.replay.retention import Overdue, RetentionConfig
from qtopt.replay.schema import STEP_DTYPE, Rows, StoreFormat
from qtopt.replay.sealing import write_landed
from qtopt.replay.segment_files import chunk_bytes, segment_name
from qtopt.replay.segments import SegmentFrames
from qtopt.replay.shelf import Damaged, Publish, Retired
from qtopt.replay.step_table import StepTable
from qtopt.types import IntArray

log = structlog.get_logger(__name__)

SEGMENTS = "segments"
QUARANTINE = "quarantine"


class DiskShelf:
    """A ``Shelf`` in a directory. The caller holds the writer's lock unless ``read_only``.

    Args:
        root: of the store.
        fmt: of the store.
        publish: told of stored episodes.
        segment_bytes: landed frames that make a segment.
        max_open_segments: segments whose files are held open.
        max_waiting: records that may wait for the disk.
        quarantine_bytes: room for refused episodes.
        min_free_bytes: room on the disk below which records are refused.
        retention: which segments are given up.
        read_only: changes nothing on disk.

    Attributes:
        unexplained: in words, what segments the catalogue knows nothing of; empty for none.
    """

    def __init__(
        self,
        root: Path,
        fmt: StoreFormat,
        publish: Publish,
        *,
        segment_bytes: int,
        max_open_segments: int,
        max_waiting: int,
        quarantine_bytes: float,
        min_free_bytes: float,
        retention: RetentionConfig,
        read_only: bool = False,
    ) -> None:
        self.root = root
        self.catalogue = Catalogue(root, read_only=read_only)
        self._format = fmt
        self._publish = publish
        self._watch = DiskWatch(root, min_free_bytes, self.catalogue.try_out)
        self._overdue = Overdue(retention, self.catalogue)
        self._retired: list[SegmentRow] = []  # their files are there still
        self._found: list[Damaged] = []
        self._max_open = max_open_segments
        self._read_only = read_only
        self._quarantine = Quarantine(root / QUARANTINE, quarantine_bytes)
        self._open: dict[int, SegmentFrames] = {}  # in the order of opening
        self._open_lock = threading.Lock()
        self._seal_lock = threading.Lock()  # one seal at a time
        self._move_lock = threading.Lock()  # while landed episodes become sealed ones
        if not read_only:
            make_directory(root / SEGMENTS)
        with one_moment(self.catalogue, root) as files:
            self._layout = Layout.of(self.catalogue.segments())
            given_up = self.catalogue.retired().values()
            self._retired_segments, self._retired_episodes = len(given_up), sum(given_up)
            self._steps = StepTable(self._layout.base, self._layout.end - self._layout.base + SEGMENT_ROWS)
            self._load_sealed()
            self._landed = Landed(
                root,
                self.catalogue,
                files,
                publish,
                steps=self._steps,
                segment_bytes=segment_bytes,
                quarantine=self._quarantine,
            )
            bad = self._landed.load()
            self.unexplained = self._look_for_lost(bad, self._landed.waiting())
        if bad:
            self._found.append(Damaged(bad, "landed steps do not match their checksum"))
        self.lost_entries = len(self._landed.lost)
        if not read_only:
            self._landed.recover()
            waiting, is_whole = self._landed.waiting(), self._landed.is_whole
            remove_unknown(root / SEGMENTS, self.catalogue, bad, waiting, self._quarantine, is_whole)
        self._committer = None if read_only else GroupCommitter(self._commit, max_waiting)

    def _look_for_lost(self, missing: Collection[int], logged: Set[str]) -> str:
        """Returns what is to be said of segments that the catalogue has lost; raises it as StoreError for a writer."""
        try:
            require_explained(self.root / SEGMENTS, self.catalogue, missing, logged, self._landed.is_whole)
        except StoreError as error:
            if not self._read_only:
                raise
            log.warning("segments are left out", error=str(error))
            return str(error)
        return ""

    def _load_sealed(self) -> None:
        """Tells the store of every sealed episode and takes its rows into memory."""
        quarantined = self.catalogue.quarantined()
        for segment in self._layout.segments:
            path, start = self.segment_path(segment), segment.first_position
            self._publish(sealed_entries(self.catalogue, path, segment, quarantined))
            self._steps.extend(np.zeros(start - self._steps.end, STEP_DTYPE))  # a rebuilt catalogue may have gaps
            try:
                rows, offsets, bad = sealed_rows(self.catalogue, path, segment)
            except (FileNotFoundError, ValueError) as error:
                self._steps.extend(np.zeros(segment.rows, STEP_DTYPE))
                self._found.append(self._unreadable(segment, error))
            except OSError as error:
                raise StoreError(f"{path}: {error}; the segment cannot be read now") from error
            else:
                self._steps.extend(rows, offsets, segment.frame_bytes)
                if bad:
                    self._found.append(Damaged(bad, "steps do not match their checksum"))

    def close(self) -> None:
        """Stores what is waiting, then closes all files."""
        if self._committer is not None:
            self._committer.close()
        with self._seal_lock:
            self._landed.close()
            self.catalogue.close()
        with self._open_lock:
            self._open.clear()

    def add(self, record: Record) -> bool:
        """Stores a record; see ``Shelf.add``."""
        if self._committer is None:
            raise StoreError(f"{self.root}: the store is open for reading only; append to the process that writes it")
        return self._committer.submit(record)

    def _commit(self, records: Sequence[Record]) -> list[bool | StoreError]:
        with self._watch.commit(max(record.size for record in records)):
            results = self._landed.land(records)
        if any(isinstance(result, EpisodeRow) for result in results):  # others were known, and nothing was written
            self._watch.succeeded()
        return [self._answer(record, result) for record, result in zip(records, results, strict=True)]

    def _answer(self, record: Record, result: EpisodeRow | bytes) -> bool | StoreError:
        if isinstance(result, EpisodeRow):
            return True
        if result == record.row.digest:
            return False
        known = self.catalogue.episode(record.row.uuid)
        if known is not None and known.is_same(record.row):
            return False
        kept = self._quarantine.keep_record(record)
        return EpisodeConflict(
            f"episode {record.row.uuid} is known with other content; this one was kept aside in {kept or 'no place'}: "
            "give every episode its own UUID"
        )

    def rows(self, positions: IntArray) -> Rows:
        """Returns rows of the step table; see ``Shelf.rows``."""
        return self._steps.take(positions)

    def frames(self, positions: IntArray, rows: Rows) -> list[bytes]:
        """Returns checked frames; see ``Shelf.frames``."""
        layout = self._layout
        _require_kept(positions, layout)
        numbers = layout.numbers(positions)
        origins = layout.starts[numbers] if len(layout.starts) else positions
        offsets = self._steps.frame_offsets(positions, origins)
        sizes, expected = rows["frame_bytes"].tolist(), rows["frame_crc32c"].tolist()
        frames = [
            self._landed_frame(position, size)
            if number < 0
            else _read(self._segment(layout.segments[number]), offset, size)
            for position, number, offset, size in zip(
                positions.tolist(), numbers.tolist(), offsets.tolist(), sizes, strict=True
            )
        ]
        bad = [slot for slot, frame in enumerate(frames) if crc32c(frame) != expected[slot]]
        if bad:
            raise Damaged(positions[bad].tolist(), "frame does not match its checksum")
        return frames

    def _landed_frame(self, position: int, size: int) -> bytes:
        try:
            frame = self._landed.frame(position)
        except OSError as error:
            log.warning("landed frame cannot be read", error=str(error))
            return b""
        if frame is not None:
            return frame
        with self._move_lock:  # it has just been sealed, or by another process, or it is gone
            if self._read_only:
                self._layout = Layout.of(self.catalogue.segments())
            layout = self._layout
        _require_kept(np.array([position]), layout)
        if position >= layout.end:
            return b""
        row = layout.segment_at(position)
        offset = self._steps.frame_offsets(np.array([position]), np.array([row.first_position]))
        return _read(self._segment(row), int(offset[0]), size)

    def _segment(self, row: SegmentRow) -> SegmentFrames:
        segment = self._open.get(row.number)  # without the lock: for each frame of a batch
        if segment is not None:
            return segment
        with self._open_lock:
            try:
                segment = SegmentFrames(self.segment_path(row), row)
            except FileNotFoundError as error:
                raise self._unreadable(row, error) from error
            except OSError as error:
                raise StoreError(f"{self.segment_path(row)}: {error}; the segment cannot be opened now") from error
            self._open[row.number] = segment
            while len(self._open) > self._max_open:
                del self._open[next(iter(self._open))]
            return segment

    def _unreadable(self, row: SegmentRow, error: Exception) -> Damaged:
        """Returns what to raise for a segment whose files are not there."""
        kind = Damaged if self.catalogue.has_segment(row.number) else Retired
        return kind(range(row.first_position, row.first_position + row.rows), str(error))

    @property
    def end(self) -> int:
        """Position behind all that can be read: of a store open for reading only, as of when it was opened."""
        return self._steps.end

    def segment_path(self, row: SegmentRow) -> Path:
        """Returns the directory of a segment."""
        return self.root / SEGMENTS / segment_name(row.number)

    def segments(self) -> tuple[SegmentRow, ...]:
        """Returns the sealed segments in order of position."""
        return self._layout.segments

    def episode(self, key: str | int) -> EpisodeRow:
        """Returns an episode's row; see ``Shelf.episode``."""
        row = self.catalogue.episode(key)
        if row is None:
            raise UnknownEpisode(f"{self.root}: no episode {key!r}; `qtopt data info` tells what there is")
        if row.first_position >= self.end:
            raise UnknownEpisode(f"{self.root}: episode {key!r} came after the store was opened; open it again")
        return row

    def quarantine(self, first_positions: Sequence[int], reason: str | None) -> None:
        """Marks episodes as damaged, or as sound without a reason; nothing when open for reading only."""
        if first_positions and not self._read_only:
            self.catalogue.quarantine(first_positions, reason)

    def figures(self) -> dict[str, float]:
        """Returns counts and sizes of what is sealed and landed; writes nothing to see whether the disk takes it."""
        segments, condition = self._layout.segments, self._watch.condition(tries=False)
        return {
            "segments": float(len(segments)),
            "sealed_bytes": float(sum(row.frame_bytes for row in segments)),
            "landed_bytes": float(self._landed.frame_bytes),
            "landed_steps": float(self._landed.rows),
            "retired_segments": float(self._retired_segments),
            "retired_episodes": float(self._retired_episodes),
            "free_bytes": float(condition.free_bytes),
            "writable": float(condition.writable),
        }

    def condition(self) -> StoreCondition:
        """Returns whether the disk takes episodes now."""
        return self._watch.condition()

    def due(self, after_s: float) -> bool:
        """Whether landed episodes should be sealed: enough of them, or any that wait longer than ``after_s``."""
        return self._landed.due(after_s)

    def seal(self) -> bool:
        """Moves the oldest landed episodes into a segment; returns False when none is landed.

        Raises:
            StoreFull: no room beyond what is kept free, or the disk cannot be written; everything is as it was.
            StoreError: a landed frame cannot be read; everything is as it was.
        """
        with self._seal_lock:
            episodes, rows = self._landed.oldest(self._watch.spare_bytes())
            if not episodes:
                return False
            start, size = episodes[0].first_position, int(rows["frame_bytes"].sum())
            segment = SegmentRow(
                self._layout.next_number, start, len(rows), len(episodes), max(1, size), chunk_bytes(self._format)
            )
            path = self.segment_path(segment)
            layout, facts_bytes = Layout.of([*self._layout.segments, segment]), sum(len(row.facts) for row in episodes)
            damaged = write_landed(path, self._format, segment, rows, episodes, self._landed, self.catalogue)
            with self._move_lock:
                self.catalogue.seal(segment, {damage.positions[0]: damage.reason for damage in damaged})
                self._layout = layout  # made before, so that the catalogue never has what this does not
            self._landed.drop_before(start + len(rows), size, facts_bytes)
        self._found += damaged
        return True

    def retire(self, share: float) -> int:
        """Takes the segments that are overdue out of the catalogue; returns the first position that is kept.

        Their files stay until ``remove_retired``, for who is reading them. ``share`` is that of ``Overdue.among``.
        """
        with self._seal_lock:
            segments = self._layout.segments
            leaving = self._overdue.among(segments, [self.segment_path(row) for row in segments], share)
            if leaving:
                layout = Layout.of(segments[len(leaving) :])
                self.catalogue.retire(leaving)
                self._retired += leaving
                self._retired_segments += len(leaving)
                self._retired_episodes += sum(row.episodes for row in leaving)
                with self._move_lock:
                    self._layout = layout
                self._steps.drop_before(self._layout.base)
            return self._layout.base

    def remove_retired(self) -> int:
        """Removes the files of retired segments; returns of how many. Opening does the same after a crash."""
        leaving, self._retired = self._retired, []
        for row in leaving:
            with self._open_lock:
                self._open.pop(row.number, None)
            shutil.rmtree(self.segment_path(row), ignore_errors=True)
        return len(leaving)

    def left_out(self) -> dict[str, Path | None]:
        """Returns in words what of the landing log no episode is made of, and where it is kept; None: nowhere else.

        What the end of a file cuts off was never acknowledged, and does not count.
        """
        told: dict[str, Path | None] = {}
        for piece in self._landed.left_out():
            if piece.cut_off:
                continue
            try:
                if data := piece.data():
                    told[str(piece)] = self._quarantine.kept_bytes(piece.name, data)
            except OSError as error:
                told[f"{piece}, and cannot be read now ({error})"] = self._quarantine.kept_file(piece.file.path)
        return told

    def take_damage(self) -> list[Damaged]:
        """Returns the damage found while opening and sealing, once."""
        found, self._found = self._found, []
        return found


def _require_kept(positions: IntArray, layout: Layout) -> None:
    """Raises Retired for positions before all that is kept."""
    gone = positions < layout.base
    if gone.any():
        raise Retired(positions[gone].tolist(), "retired")


def _read(segment: SegmentFrames, offset: int, size: int) -> bytes:
    try:
        return segment.read(offset, size)
    except OSError as error:
        log.warning("frame cannot be read", error=str(error))
        return b""
