"""The landing log: episodes as they arrive, record behind record, in files that only grow until all in them is sealed.

A record holds the whole of an episode with checksums of its own. A group of episodes costs one write and one flush, and
is durable with that: what the catalogue has not heard of when the power fails is landed again from here. What counts is
what the catalogue names by position and UUID; other records (refused, or landed again elsewhere) do no harm. A file
that was there when the store was opened is never written again, so that a torn record at its end is passed over.
"""

import contextlib
import json
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from qtopt.errors import CorruptEpisode, StoreError, StoreFull
from qtopt.replay.checksum import crc32c
from qtopt.replay.record import EpisodeRow, Record
from qtopt.replay.schema import frame_sizes, rows_from_bytes, rows_to_bytes
from qtopt.replay.segment_files import flush

_log = structlog.get_logger(__name__)

LANDING: Final = "landing"
"""Directory of the log within a store."""

_MAGIC: Final = b"\xf1qtopt\x01\n"
_HEADER: Final = struct.Struct("<8sIIII")
"""Magic, bytes of the episode's row (JSON), of its steps, of its frames, and the CRC-32C of all that but the frames."""
_CRC_BYTES: Final = 4
_SEARCHED_BYTES: Final = 1 << 20


class LogFile:
    """An open file of the log; it stays readable for who holds it, also when it was removed."""

    def __init__(self, path: Path, flags: int) -> None:
        self.path = path
        self.handle = os.open(path, flags, 0o644)
        self.bytes = 0
        self.end = 0  # position behind the last record
        self.damaged: list[tuple[int, int]] = []  # where bytes lie that are no whole record

    def read(self, offset: int, size: int) -> bytes:
        """Returns what is there; nothing when it cannot be read, which matches no checksum."""
        try:
            return os.pread(self.handle, size, offset)
        except OSError:
            return b""

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


def open_files(directory: Path) -> list[LogFile]:
    """Opens the files of a log for reading, in the order in which they were begun."""
    files = []
    for path in _paths(directory):
        with contextlib.suppress(FileNotFoundError):  # sealed and removed meanwhile, by who writes the store
            files.append(LogFile(path, os.O_RDONLY))
    return files


def next_path(directory: Path) -> Path:
    """Returns where the next file of a log belongs."""
    return directory / f"{1 + max((int(path.stem) for path in _paths(directory)), default=0):08d}.log"


def _paths(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"{'[0-9]' * 8}.log"))


@dataclass(frozen=True, slots=True)
class LandedEpisode:
    """An episode in the log: its row, its T + 1 steps as bytes, where its record and where its frames begin."""

    row: EpisodeRow
    steps: bytes
    file: LogFile
    start: int
    offset: int


class LandingLog:
    """The landed episodes of a store; one thread appends, one removes, any number read.

    Args:
        directory: of the log; made with its first file.
        files: those that there are.
        file_bytes: size from which another file is begun.

    Raises:
        StoreError: a file cannot be read.
    """

    def __init__(self, directory: Path, files: Sequence[LogFile], file_bytes: float) -> None:
        self._directory = directory
        self._file_bytes = file_bytes
        self._lock = threading.Lock()
        self._places: dict[int, tuple[LogFile, int, int]] = {}
        self._files = list(files)
        self._current: LogFile | None = None
        self._found: dict[tuple[int, str], LandedEpisode] = {}
        for file in files:
            self._read(file)

    def _read(self, file: LogFile) -> None:
        try:
            for episode in _scan(file):
                row = episode.row
                self._found[row.first_position, row.uuid] = episode
                file.end = max(file.end, row.first_position + row.length + 1)
        except OSError as error:
            raise StoreError(
                f"{file.path}: cannot be read ({error}); see to the disk and open the store again"
            ) from error

    def _enter(self, file: LogFile, first: int, offset: int, sizes: Sequence[int]) -> None:
        for position, size in enumerate(sizes, first):
            self._places[position] = (file, offset, size)
            offset += size
        file.end = max(file.end, first + len(sizes))

    def adopt(self, row: EpisodeRow) -> bytes:
        """Serves the frames of an episode found on opening; returns its steps as bytes, none when it is not there."""
        episode = self._found.pop((row.first_position, row.uuid), None)
        if episode is None:
            return b""
        sizes = frame_sizes(episode.steps, episode.row.length + 1)
        self._enter(episode.file, row.first_position, episode.offset, sizes)
        return episode.steps

    def take_rest(self, start: int) -> list[LandedEpisode]:
        """Returns what nobody adopted from position ``start`` on, in order of position, and keeps it no longer."""
        found, self._found = sorted(self._found.items()), {}
        return [episode for (first, _), episode in found if first >= start]

    def damaged(self) -> list[tuple[LogFile, int, int]]:
        """Returns where bytes lie that are no whole record: damaged, or torn before they were acknowledged."""
        return [(file, *place) for file in self._files for place in file.damaged]

    @contextlib.contextmanager
    def appended(self, records: Sequence[Record]) -> Iterator[None]:
        """Appends records, which have their positions, durably before the block; takes them back if it fails.

        Raises:
            StoreFull: they cannot be written.
        """
        heads = [_head(record) for record in records]
        parts = [part for head, record in zip(heads, records, strict=True) for part in (head, *record.frames)]
        with self._lock:
            file = self._writable()
            try:
                _write(file.handle, b"".join(parts), file.bytes)
                os.fdatasync(file.handle)
                yield
            except OSError as error:
                self._take_back(file)
                raise StoreFull(
                    f"{file.path}: cannot be written ({error}); nothing was stored: free disk space, see whether the "
                    "disk is mounted read-only, and try again"
                ) from error
            except Exception:
                self._take_back(file)
                raise
            for head, record in zip(heads, records, strict=True):
                sizes = [len(frame) for frame in record.frames]
                self._enter(file, record.row.first_position, file.bytes + len(head), sizes)
                file.bytes += len(head) + sum(sizes)

    def _take_back(self, file: LogFile) -> None:
        try:
            os.ftruncate(file.handle, file.bytes)
        except OSError:  # as if the process had ended here
            self._current = None

    def _writable(self) -> LogFile:
        if self._current is None or self._current.bytes >= self._file_bytes:
            self._current = self._begin()
            self._files.append(self._current)
        return self._current

    def _begin(self) -> LogFile:
        try:
            if not self._directory.exists():
                self._directory.mkdir()
                flush(self._directory.parent)
            file = LogFile(next_path(self._directory), os.O_CREAT | os.O_EXCL | os.O_RDWR)
            try:
                flush(self._directory)
            except OSError:
                file.path.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StoreFull(
                f"{self._directory}: takes no file ({error}); nothing was stored: free disk space, see whether the "
                "disk is mounted read-only, and try again"
            ) from error
        return file

    def close(self) -> None:
        """Lets go of all files; whoever reads one just now still can."""
        with self._lock:
            self._files, self._current, self._places, self._found = [], None, {}, {}

    def frame(self, position: int) -> bytes | None:
        """Returns a landed frame, unchecked; None when it is not there, or no longer."""
        place = self._places.get(position)
        return None if place is None else place[0].read(*place[1:])

    def record(self, episode: LandedEpisode) -> Record:
        """Reads all of an episode; raises CorruptEpisode when it does not match its checksums."""
        rows = rows_from_bytes([episode.steps], [episode.row.length + 1])
        frames, offset = [], episode.offset
        for size, expected in zip(rows["frame_bytes"].tolist(), rows["frame_crc32c"].tolist(), strict=True):
            frames.append(episode.file.read(offset, size))
            offset += size
            if crc32c(frames[-1]) != expected:
                raise CorruptEpisode(f"landed episode {episode.row.uuid}: a frame does not match its checksum")
        return Record(episode.row, rows, tuple(frames))

    def settle(self, end: int) -> None:
        """Says that all records in the files count as lying before ``end``, wherever else some were landed before."""
        with self._lock:
            for file in self._files:
                file.end = min(file.end, end)

    def drop_before(self, position: int) -> None:
        """Forgets what is before ``position`` and removes the files that hold nothing else."""
        with self._lock:
            for file in [file for file in self._files if file.end <= position]:
                try:
                    file.path.unlink(missing_ok=True)
                except OSError as error:
                    _log.warning("a sealed file of the landing log stays for now", error=str(error))
                    continue
                self._files.remove(file)
                if file is self._current:
                    self._current = None
            for known in [known for known in self._places if known < position]:
                del self._places[known]


def _head(record: Record) -> bytes:
    row, steps = record.row, rows_to_bytes(record.rows)
    about = json.dumps(row.lasting(), default=bytes.hex).encode()
    sizes = _HEADER.pack(_MAGIC, len(about), len(steps), record.size, 0)[:-_CRC_BYTES]
    body = about + steps
    return b"".join((sizes, crc32c(sizes, body).to_bytes(_CRC_BYTES, "little"), body))


def _scan(file: LogFile) -> Iterator[LandedEpisode]:
    """Yields the whole records of a file; after a damaged one it goes on with the next that is sound."""
    size = os.fstat(file.handle).st_size
    at, lost = 0, -1
    while at >= 0 and len(head := os.pread(file.handle, _HEADER.size, at)) == _HEADER.size:
        magic, about_bytes, step_bytes, frame_bytes, crc = _HEADER.unpack(head)
        offset = at + _HEADER.size + about_bytes + step_bytes
        body = b""
        if magic == _MAGIC and offset + frame_bytes <= size:
            body = os.pread(file.handle, about_bytes + step_bytes, at + _HEADER.size)
        if not body or crc32c(head[:-_CRC_BYTES], body) != crc:
            lost = at if lost < 0 else lost
            at = _find_magic(file, at + 1)
            continue
        if lost >= 0:
            file.damaged.append((lost, at))
            lost = -1
        first_position, uuid, digest, *others = json.loads(body[:about_bytes])
        row = EpisodeRow(first_position, uuid, bytes.fromhex(digest), *others)
        yield LandedEpisode(row, body[about_bytes:], file, at, offset)
        at = offset + frame_bytes
    if lost >= 0 or at < size:
        file.damaged.append((lost if lost >= 0 else at, size))


def _find_magic(file: LogFile, start: int) -> int:
    """Returns where a record may begin from ``start`` on; -1 when none does."""
    while len(searched := os.pread(file.handle, _SEARCHED_BYTES, start)) >= len(_MAGIC):
        at = searched.find(_MAGIC)
        if at >= 0:
            return start + at
        start += len(searched) - len(_MAGIC) + 1
    return -1


def _write(handle: int, data: bytes, offset: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(handle, left, offset)
        left, offset = left[written:], offset + written
