"""The landing log: episodes as they arrive, record behind record, in files that only grow until all in them is sealed.

A record holds the whole of an episode with checksums of its own. A group of episodes costs one write and one flush, and
is durable with that: what the catalogue has not heard of when the power fails is landed again from here. A file that
was open when the process ended is never written again, so that a torn record at its end is simply passed over.
"""

import contextlib
import json
import mmap
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from qtopt.errors import CorruptEpisode, StoreFull
from qtopt.replay.checksum import crc32c
from qtopt.replay.record import EpisodeRow, Record
from qtopt.replay.schema import Rows, rows_from_bytes, rows_to_bytes
from qtopt.replay.segment_files import flush

LANDING: Final = "landing"
"""Directory of the log within a store."""

_MAGIC: Final = b"\xf1qtopt\x01\n"
_HEADER: Final = struct.Struct("<8sIIII")
"""Magic, bytes of the episode's row (JSON), of its steps, of its frames, and the CRC-32C of all that but the frames."""
_CRC_BYTES: Final = 4
_FIELDS: Final = tuple(
    field.name for field in fields(EpisodeRow) if field.name not in ("digest", "segment", "quarantined")
)


class _File:
    """An open file of the log; it stays readable for who holds it, also when it was removed."""

    def __init__(self, path: Path, flags: int) -> None:
        self.path = path
        self.handle = os.open(path, flags, 0o644)
        self.bytes = 0
        self.end = 0  # position behind the last record

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


@dataclass(frozen=True, slots=True)
class LandedEpisode:
    """An episode in the log: its row, its T + 1 steps and where its frames begin."""

    row: EpisodeRow
    rows: Rows
    file: _File
    offset: int


class LandingLog:
    """The landed episodes of a store; one thread appends, one removes, any number read.

    Args:
        directory: of the log; made if it is not there.
        file_bytes: size from which another file is begun.
        read_only: changes nothing on disk.

    Attributes:
        episodes: what was found on opening, by first position; the newest where there are several.
    """

    def __init__(self, directory: Path, file_bytes: float, *, read_only: bool = False) -> None:
        self._directory = directory
        self._file_bytes = file_bytes
        self._lock = threading.Lock()
        self._places: dict[int, tuple[_File, int, int]] = {}
        self._files: list[_File] = []
        self._current: _File | None = None
        self.episodes: dict[int, LandedEpisode] = {}
        if not read_only and not directory.exists():
            directory.mkdir()
            flush(directory.parent)
        for path in sorted(directory.glob("*.log")):
            with contextlib.suppress(FileNotFoundError):  # sealed and removed meanwhile, by who writes the store
                file = _File(path, os.O_RDONLY)
                if not read_only:
                    os.fsync(file.handle)  # what a killed process had not flushed counts as stored from now on
                self._files.append(file)
                self._read(file)

    def _read(self, file: _File) -> None:
        for episode in _scan(file):
            first = episode.row.first_position
            self.episodes[first] = episode
            self._enter(file, first, episode.offset, episode.rows["frame_bytes"].tolist())

    def _enter(self, file: _File, first: int, offset: int, sizes: Sequence[int]) -> None:
        for position, size in enumerate(sizes, first):
            self._places[position] = (file, offset, size)
            offset += size
        file.end = max(file.end, first + len(sizes))

    @contextlib.contextmanager
    def appended(self, records: Sequence[Record]) -> Iterator[None]:
        """Appends records, which have their positions, durably before the block; takes them back if it raises.

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
                offset = file.bytes
                for head, record in zip(heads, records, strict=True):
                    sizes = [len(frame) for frame in record.frames]
                    self._enter(file, record.row.first_position, offset + len(head), sizes)
                    offset += len(head) + sum(sizes)
                yield
                file.bytes = offset
            except BaseException as error:
                with contextlib.suppress(OSError):  # else the next record overwrites them
                    os.ftruncate(file.handle, file.bytes)
                if not isinstance(error, OSError):
                    raise
                raise StoreFull(
                    f"{file.path}: cannot be written ({error}); nothing was stored: free disk space and try again"
                ) from error

    def _writable(self) -> _File:
        file = self._current
        if file is None or file.bytes >= self._file_bytes:
            number = 1 + max((int(old.path.stem) for old in self._files), default=0)
            path = self._directory / f"{number:08d}.log"
            try:
                file = _File(path, os.O_CREAT | os.O_EXCL | os.O_RDWR)
                self._files.append(file)
                flush(self._directory)
            except OSError as error:
                raise StoreFull(f"{path}: cannot be made ({error}); free disk space and try again") from error
            self._current = file
        return file

    def frame(self, position: int) -> bytes | None:
        """Returns a landed frame, unchecked; None when it is not there, or no longer."""
        place = self._places.get(position)
        return None if place is None else _pread(*place)

    def take_found(self) -> list[tuple[int, LandedEpisode]]:
        """Returns ``episodes`` in order of position, and keeps them no longer."""
        found, self.episodes = sorted(self.episodes.items()), {}
        return found

    def record(self, episode: LandedEpisode) -> Record:
        """Reads all of an episode; raises CorruptEpisode when it does not match its checksums."""
        frames, offset = [], episode.offset
        for size, expected in zip(
            *(episode.rows[name].tolist() for name in ("frame_bytes", "frame_crc32c")), strict=True
        ):
            frames.append(_pread(episode.file, offset, size))
            offset += size
            if crc32c(frames[-1]) != expected:
                raise CorruptEpisode(f"landed episode {episode.row.uuid}: a frame does not match its checksum")
        return Record(episode.row, episode.rows, tuple(frames))

    def drop_before(self, position: int) -> None:
        """Forgets what is before ``position`` and removes the files that hold nothing else."""
        with self._lock:
            for file in [file for file in self._files if file.end <= position]:
                self._files.remove(file)
                if file is self._current:
                    self._current = None
                file.path.unlink(missing_ok=True)
            for known in [known for known in self._places if known < position]:
                del self._places[known]


def _head(record: Record) -> bytes:
    row, steps = record.row, rows_to_bytes(record.rows)
    about = json.dumps([row.digest.hex(), *(getattr(row, name) for name in _FIELDS)]).encode()
    sizes = _HEADER.pack(_MAGIC, len(about), len(steps), record.size, 0)[:-_CRC_BYTES]
    body = about + steps
    return b"".join((sizes, crc32c(sizes, body).to_bytes(_CRC_BYTES, "little"), body))


def _scan(file: _File) -> Iterator[LandedEpisode]:
    """Yields the whole records of a file; after a damaged one it goes on with the next that is sound."""
    size = os.fstat(file.handle).st_size
    if not size:
        return
    with mmap.mmap(file.handle, size, access=mmap.ACCESS_READ) as data:
        at = data.find(_MAGIC)
        while 0 <= at <= size - _HEADER.size:
            _, about, steps, frames, crc = _HEADER.unpack_from(data, at)
            body = at + _HEADER.size
            offset = body + about + steps
            sound = offset + frames <= size and crc32c(data[at : body - _CRC_BYTES], data[body:offset]) == crc
            rows = rows_from_bytes(data[body + about : offset]) if sound else None
            if rows is not None:
                digest, *values = json.loads(data[body : body + about])
                row = EpisodeRow(digest=bytes.fromhex(digest), **dict(zip(_FIELDS, values, strict=True)))
                yield LandedEpisode(row, rows, file, offset)
            at = data.find(_MAGIC, offset + frames if sound else at + 1)


def _write(handle: int, data: bytes, offset: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(handle, left, offset)
        left, offset = left[written:], offset + written


def _pread(file: _File, offset: int, size: int) -> bytes:
    """Returns what is there; nothing when it cannot be read, which matches no checksum."""
    try:
        return os.pread(file.handle, size, offset)
    except OSError:
        return b""
