"""The catalogue: the list of all episodes and segments, one SQLite file in write-ahead mode.

Sealing, quarantine and whatever else only the catalogue knows are flushed to the disk with their transaction. Landed
episodes are entered without a flush: the landing log has them (``qtopt/replay/landing_log.py``). Why SQLite, and why
the log beside it: docs/decisions/0001-landing-database.md.
"""

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qtopt.errors import CorruptEpisode, StoreError, StoreFull
from qtopt.replay.checksum import crc32c
from qtopt.replay.record import LASTING, REPLACED, EpisodeRow
from qtopt.types import IntArray

CATALOGUE_FILE = "catalogue.db"

_TABLES = """
CREATE TABLE IF NOT EXISTS episode (
    first_position INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, length INTEGER NOT NULL,
    end INTEGER NOT NULL, outcome INTEGER NOT NULL, policy_version INTEGER NOT NULL, offline INTEGER NOT NULL,
    facts TEXT NOT NULL, rows_crc32c INTEGER NOT NULL, segment INTEGER, quarantined TEXT,
    row_crc32c INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS segment (
    number INTEGER PRIMARY KEY, first_position INTEGER NOT NULL, rows INTEGER NOT NULL, episodes INTEGER NOT NULL,
    frame_bytes INTEGER NOT NULL, chunk_bytes INTEGER NOT NULL,
    row_crc32c INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS quarantined_episode ON episode (first_position) WHERE quarantined IS NOT NULL;
CREATE TABLE IF NOT EXISTS retired (
    number INTEGER PRIMARY KEY, first_position INTEGER NOT NULL, rows INTEGER NOT NULL, episodes INTEGER NOT NULL,
    frame_bytes INTEGER NOT NULL) STRICT;
-- Where stores of format 1 have their landed episodes; read and sealed, never added to.
CREATE TABLE IF NOT EXISTS landed_rows (first_position INTEGER PRIMARY KEY, rows BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS landed_frame (position INTEGER PRIMARY KEY, frame BLOB NOT NULL) STRICT;
"""
EPISODE_COLUMNS = ", ".join([*LASTING, "segment", "quarantined", "row_crc32c"])
_BATCH_BYTES = 4 << 20
_OFFLINE = LASTING.index("offline")
_UNWRITABLE = (  # a full disk, a quota, a disk that became read-only or fails
    "SQLITE_FULL",
    "SQLITE_READONLY",
    "SQLITE_IOERR_WRITE",
    "SQLITE_IOERR_FSYNC",
    "SQLITE_IOERR_TRUNCATE",
    "SQLITE_IOERR_SHMSIZE",
)


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A sealed segment: where its rows stand, how many rows and episodes, and how its frames are cut into chunks."""

    number: int
    first_position: int
    rows: int
    episodes: int
    frame_bytes: int
    chunk_bytes: int


class Known(NamedTuple):
    """What there is of a UUID: the digest of its episode, and whether that is quarantined."""

    digest: bytes
    quarantined: bool


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turns what SQLite raises into StoreFull or StoreError."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter where damaged text is in the message
        name = getattr(error, "sqlite_errorname", "")
        if name in _UNWRITABLE:
            raise StoreFull(
                f"{path}: cannot be written ({error}); nothing was stored: free disk space, see whether the disk is "
                "mounted read-only, and try again"
            ) from error
        raise StoreError(
            f"{path}: {error}; if the file is damaged, stop the server and run `qtopt data verify --repair`"
        ) from error


class _Reader:
    """A connection that is closed when the thread ends that alone holds this."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.close = weakref.finalize(self, connection.close)


class Catalogue:
    """The database of a store: one connection that writes, under a lock, and one that reads for each thread."""

    def __init__(self, root: Path, *, read_only: bool = False) -> None:
        self._path = root / CATALOGUE_FILE
        self._read_only = read_only
        self._write_lock = threading.RLock()
        self._local = threading.local()
        self._readers: weakref.WeakSet[_Reader] = weakref.WeakSet()
        self._writer = self._connect()
        if not read_only:
            with _translated(self._path):
                self._writer.executescript(_TABLES)

    def _connect(self) -> sqlite3.Connection:
        mode = "mode=ro" if self._read_only else "mode=rwc"
        log = self._path.with_name(f"{CATALOGUE_FILE}-wal")
        if self._read_only and not log.exists() and not os.access(self._path.parent, os.W_OK):
            mode += "&immutable=1"  # nobody is writing, not even another user, and SQLite could not make its log
        with _translated(self._path):
            connection = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?{mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=60.0,
            )
            if not self._read_only:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _reader(self) -> sqlite3.Connection:
        reader: _Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = _Reader(self._connect())
            with self._write_lock:
                self._readers.add(reader)
        return reader.connection

    def close(self) -> None:
        """Closes all connections; the last one folds the write-ahead log into the file."""
        with self._write_lock:
            for reader in list(self._readers):
                reader.close()
            self._writer.close()

    @contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Commits at the end of the block, or leaves everything as it was.

        A durable commit is on the disk, with all before it; others are later, in their order.
        """
        with self._write_lock, _translated(self._path):
            self._writer.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def try_out(self) -> None:
        """Writes what is there already, durably; raises StoreFull or StoreError where no commit succeeds."""
        with self._transaction() as writer:
            (version,) = writer.execute("PRAGMA user_version").fetchone()
            writer.execute(f"PRAGMA user_version = {version}")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Lets this thread read one state of the database throughout the block."""
        reader = self._reader()
        with _translated(self._path):
            reader.execute("BEGIN")
        try:
            yield
        finally:
            reader.execute("ROLLBACK")

    def known(self, uuids: Sequence[str]) -> dict[str, Known]:
        """Returns what is known of those of the UUIDs that are in the catalogue."""
        query = "SELECT digest, quarantined IS NOT NULL FROM episode WHERE uuid = ?"
        with self._write_lock, _translated(self._path):
            found = ((uuid, self._writer.execute(query, (uuid,)).fetchone()) for uuid in uuids)
            return {uuid: Known(bytes(values[0]), bool(values[1])) for uuid, values in found if values is not None}

    def enter(self, rows: Sequence[EpisodeRow], damaged: Sequence[EpisodeRow] = ()) -> None:
        """Enters landed episodes, all or none; they are flushed to the disk later, as the landing log has them.

        Args:
            rows: of the new ones.
            damaged: of those that take the place of damaged ones, what is in the catalogue so far.
        """
        with self._transaction(durable=False) as writer:
            for row in map(EpisodeRow.replaced, damaged):
                values = (row.uuid, row.quarantined, _episode_checksum(row), row.first_position)
                writer.execute(
                    "UPDATE episode SET uuid = ?, quarantined = ?, row_crc32c = ? WHERE first_position = ?", values
                )
            for row in rows:
                _insert_episode(writer, row)

    def seal(self, segment: SegmentRow, damaged: Mapping[int, str]) -> None:
        """Enters a segment with its episodes, which are landed no longer, in one transaction.

        Args:
            segment: the new one.
            damaged: why episodes of it are not served, by their first positions.
        """
        span = (segment.first_position, segment.first_position + segment.rows - 1)
        with self._transaction() as writer:
            _insert_segment(writer, segment)
            writer.execute(
                "UPDATE episode SET segment = ? WHERE first_position BETWEEN ? AND ?", (segment.number, *span)
            )
            writer.execute("DELETE FROM landed_rows WHERE first_position BETWEEN ? AND ?", span)
            writer.execute("DELETE FROM landed_frame WHERE position BETWEEN ? AND ?", span)
            _mark(writer, damaged)

    def retire(self, segments: Sequence[SegmentRow]) -> None:
        """Takes segments and their episodes out, in one transaction, and notes that it was done on purpose."""
        with self._transaction() as writer:
            for row in segments:
                last = row.first_position + row.rows - 1
                writer.execute("DELETE FROM episode WHERE first_position BETWEEN ? AND ?", (row.first_position, last))
                writer.execute("DELETE FROM segment WHERE number = ?", (row.number,))
                noted = (row.number, row.first_position, row.rows, row.episodes, row.frame_bytes)
                writer.execute("INSERT INTO retired VALUES (?, ?, ?, ?, ?)", noted)

    def retired(self) -> dict[int, int]:
        """Returns the number of episodes in each segment that was ever retired, by the segment's number."""
        if not self._has_retired():
            return {}
        return dict(self._read("SELECT number, episodes FROM retired"))

    def retired_segments(self) -> list[SegmentRow]:
        """Returns the segments that were ever retired in order of position; how they were cut is not known: 0 bytes."""
        if not self._has_retired():
            return []
        query = "SELECT number, first_position, rows, episodes, frame_bytes, 0 FROM retired ORDER BY first_position"
        return [SegmentRow(*values) for values in self._read(query)]

    def _has_retired(self) -> bool:
        """Whether there is that table: not in an older store, read only."""
        return bool(self._read("SELECT 1 FROM sqlite_master WHERE name = 'retired'"))

    def enter_segment(self, segment: SegmentRow, episodes: Sequence[EpisodeRow]) -> None:
        """Enters a segment together with its episodes, for rebuilding."""
        with self._transaction() as writer:
            _insert_segment(writer, segment)
            for row in episodes:
                _insert_episode(writer, row)

    def quarantine(self, first_positions: Sequence[int], reason: str | None) -> None:
        """Marks episodes as damaged, or as sound without a reason; not those that were stored again since."""
        with self._transaction() as writer:
            _mark(writer, dict.fromkeys(first_positions, reason))

    def segments(self) -> list[SegmentRow]:
        """Returns the sealed segments in order of position."""
        return [_segment(values) for values in self._read("SELECT * FROM segment ORDER BY first_position")]

    def has_segment(self, number: int) -> bool:
        """Whether a sealed segment is in the catalogue now."""
        return bool(self._read("SELECT 1 FROM segment WHERE number = ?", (number,)))

    def is_empty(self) -> bool:
        """Whether no episode is in the catalogue."""
        return not self._read("SELECT 1 FROM episode LIMIT 1")

    def landed_count(self) -> int:
        """Returns how many episodes are in no segment."""
        sealed = "coalesce((SELECT max(first_position + rows) FROM segment), 0)"
        return int(self._read(f"SELECT count(*) FROM episode WHERE first_position >= {sealed}")[0][0])

    def quarantined(self) -> IntArray:
        """Returns the first positions of the episodes marked as damaged, int64."""
        found = self._read("SELECT first_position FROM episode WHERE quarantined IS NOT NULL")
        return np.array([first for (first,) in found], np.int64)

    def policies(self, start: int, stop: int = 2**62) -> set[int]:
        """Returns the policy versions of the episodes from ``start`` up to ``stop``, but for offline ones."""
        query = (
            "SELECT DISTINCT policy_version FROM episode WHERE first_position >= ? AND first_position < ? "
            "AND NOT offline"
        )
        return {int(version) for (version,) in self._read(query, (start, stop))}

    def collectors(self, newest: int) -> list[str]:
        """Returns the names of the collectors of the ``newest`` episodes, without looking at any other."""
        query = (
            "SELECT DISTINCT json_extract(facts, '$.collector') FROM "
            "(SELECT facts FROM episode ORDER BY first_position DESC LIMIT ?) WHERE json_valid(facts)"
        )
        return [str(name) for (name,) in self._read(query, (newest,)) if name is not None]

    def backup(self, path: Path) -> None:
        """Writes one state of the database to a new file, however busily others write meanwhile."""
        with _translated(path), closing(sqlite3.connect(path)) as copy:
            self._reader().backup(copy)

    def episodes(self, start: int = 0, stop: int = 2**62) -> list[EpisodeRow]:
        """Returns the episodes that begin from ``start`` up to ``stop``, in order of position."""
        query = f"SELECT {EPISODE_COLUMNS} FROM episode WHERE first_position >= ? AND first_position < ? ORDER BY 1"
        return [episode_from(row) for row in self._read(query, (start, stop))]

    def batches(self, start: int = 0, stop: int = 2**62, *, size: int = 4096) -> Iterator[list[EpisodeRow]]:
        """Yields the episodes that begin from ``start`` up to ``stop`` in order of position, ``size`` at a time.

        They are fewer at a time where their facts are long.
        """
        while batch := self._batch(start, stop, size):
            yield batch
            start = batch[-1].first_position + 1

    def _batch(self, start: int, stop: int, size: int) -> list[EpisodeRow]:
        query = f"SELECT {EPISODE_COLUMNS} FROM episode WHERE first_position >= ? AND first_position < ? ORDER BY 1"
        batch: list[EpisodeRow] = []
        facts_bytes = 0
        with _translated(self._path), closing(self._reader().execute(query, (start, stop))) as found:
            for values in found:
                batch.append(episode_from(values))
                facts_bytes += len(batch[-1].facts)
                if len(batch) == size or facts_bytes >= _BATCH_BYTES:
                    break
        return batch

    def episode(self, key: str | int) -> EpisodeRow | None:
        """Returns the episode with a UUID or a first position."""
        column = "first_position" if isinstance(key, int) else "uuid"
        found = self._read(f"SELECT {EPISODE_COLUMNS} FROM episode WHERE {column} = ?", (key,))
        return episode_from(found[0]) if found else None

    def landed_rows(self) -> dict[int, bytes]:
        """Returns the rows of episodes landed by format 1, as ``rows_to_bytes`` made them, by first position."""
        return dict(self._read("SELECT first_position, rows FROM landed_rows ORDER BY 1"))

    def landed_frame(self, position: int) -> bytes | None:
        """Returns a frame landed by format 1; None when it is not there, or no longer."""
        reader = self._reader()
        with _translated(self._path):
            found = reader.execute("SELECT frame FROM landed_frame WHERE position = ?", (position,)).fetchone()
        return None if found is None else found[0]

    def _read(self, query: str, values: Sequence[str | int] = ()) -> list[tuple[Any, ...]]:
        with _translated(self._path):
            return self._reader().execute(query, values).fetchall()


def _mark(writer: sqlite3.Connection, reasons: Mapping[int, str | None]) -> None:
    marks = ((reason, first, REPLACED) for first, reason in reasons.items())
    writer.executemany("UPDATE episode SET quarantined = ? WHERE first_position = ? AND quarantined IS NOT ?", marks)


def _insert_episode(writer: sqlite3.Connection, row: EpisodeRow) -> None:
    _insert(writer, "episode", EPISODE_COLUMNS, (*row.lasting(), row.segment, row.quarantined, _episode_checksum(row)))


def _insert_segment(writer: sqlite3.Connection, row: SegmentRow) -> None:
    columns = ", ".join([*(column.name for column in fields(SegmentRow)), "row_crc32c"])
    _insert(writer, "segment", columns, (*astuple(row), crc32c(repr(astuple(row)).encode())))


def _insert(writer: sqlite3.Connection, table: str, columns: str, values: Sequence[Any]) -> None:
    writer.execute(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(values))})", values)


def _episode_checksum(row: EpisodeRow) -> int:
    return crc32c(repr([*row.lasting()]).encode())


def episode_from(values: Sequence[Any]) -> EpisodeRow:
    """Returns the row with the values of ``EPISODE_COLUMNS``; raises CorruptEpisode when it is not what was stored."""
    row = EpisodeRow(*[*values[:_OFFLINE], bool(values[_OFFLINE]), *values[_OFFLINE + 1 : -1]])
    if _episode_checksum(row) != values[-1]:
        raise CorruptEpisode(
            f"the catalogue's row of episode {row.uuid} does not match its checksum; stop the server and run "
            "`qtopt data verify --repair`"
        )
    return row


def _segment(values: Sequence[Any]) -> SegmentRow:
    row = SegmentRow(*values[:-1])
    if crc32c(repr(astuple(row)).encode()) != values[-1]:
        raise CorruptEpisode(
            f"the catalogue's row of segment {row.number} does not match its checksum; stop the server and run "
            "`qtopt data verify --repair`"
        )
    return row
