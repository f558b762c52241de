"""A file of the landing log: records of episodes, one behind the other, each with checksums of its own."""

import itertools
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from qtopt.errors import CorruptEpisode
from qtopt.replay.checksum import crc32c
from qtopt.replay.quarantine import Quarantine
from qtopt.replay.record import EpisodeRow, Record
from qtopt.replay.schema import frame_sizes, rows_from_bytes, rows_to_bytes

_MAGIC: Final = b"\xf1qtopt\x01\n"
_HEADER: Final = struct.Struct("<8sIIII")
"""Magic, bytes of the episode's row (JSON), of its steps, of its frames, and the CRC-32C of all that but the frames."""
_CRC_BYTES: Final = 4
_SEARCHED_BYTES: Final = 1 << 20
_BLOCK_BYTES: Final = 1 << 24  # the system reads no more than 2 GiB at a time
_UNTOLD: Final = "an episode that is damaged, or was never acknowledged"


class LogFile:
    """An open file of the log; it stays readable for who holds it, also when it was removed."""

    def __init__(self, path: Path, flags: int) -> None:
        self.path = path
        self.handle = os.open(path, flags, 0o644)
        self.bytes = 0
        self.end = 0  # position behind the last record

    def read(self, offset: int, size: int) -> bytes:
        """Returns what is there. Raises OSError when it cannot be read, which says nothing of what it is."""
        return os.pread(self.handle, size, offset)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


@dataclass(frozen=True, slots=True)
class LandedEpisode:
    """An episode in the log: its row, its T + 1 steps as bytes, where its record and where its frames begin.

    ``again`` are the records of the same that came later.
    """

    row: EpisodeRow
    steps: bytes
    file: LogFile
    start: int
    offset: int
    again: "list[LandedEpisode]" = field(default_factory=list)

    @property
    def records(self) -> "tuple[LandedEpisode, ...]":
        """All records of it, the oldest first."""
        return (self, *self.again)

    @property
    def position(self) -> int:
        """Where it was landed last."""
        return self.records[-1].row.first_position

    def sizes(self) -> list[int]:
        """Returns the sizes of its frames."""
        return frame_sizes(self.steps, self.row.length + 1)


class LeftOut(NamedTuple):
    """Bytes of the log that no episode is made of, and what they are; ``cut_off`` by the end of the file, or not."""

    file: LogFile
    start: int
    stop: int
    what: str
    cut_off: bool = False

    def __str__(self) -> str:
        return f"{self.file.path}: bytes {self.start} to {self.stop} are {self.what}"

    @property
    def name(self) -> str:
        """What they are kept under."""
        return f"landing-{self.file.path.stem}-{self.start}"

    def data(self) -> bytes:
        """Returns them; none where there was never more than zeros. Raises OSError when they cannot be read."""
        blocks = ((at, min(_BLOCK_BYTES, self.stop - at)) for at in range(self.start, self.stop, _BLOCK_BYTES))
        found = b"".join(itertools.starmap(self.file.read, blocks))
        return found if found.strip(b"\0") else b""

    def keep(self, quarantine: Quarantine) -> Path | None:
        """Keeps them in the quarantine, where they cannot be read by keeping their file; returns where.

        Returns None where there was never more than zeros. Raises OSError where nothing can be kept.
        """
        try:
            data = self.data()
        except OSError:
            return quarantine.keep_file(self.file.path)
        return quarantine.keep_bytes(self.name, data) if data else None


def pieces(episode: LandedEpisode) -> list[LeftOut]:
    """Returns the bytes of all records of an episode."""
    what = f"landed episode {episode.row.uuid}, a frame of which does not match its checksum"
    return [LeftOut(each.file, each.start, each.offset + sum(each.sizes()), what) for each in episode.records]


def first_whole(episode: LandedEpisode) -> tuple[LandedEpisode, Record]:
    """Returns the first record of an episode that matches its checksums, and all of it.

    Raises:
        OSError: none does, but one cannot be read, and may.
        CorruptEpisode: none does.
    """
    unreadable: OSError | None = None
    for each in episode.records:
        try:
            return each, _read_record(each)
        except CorruptEpisode:
            continue
        except OSError as error:
            unreadable = error
    if unreadable is not None:
        raise unreadable
    raise CorruptEpisode(f"landed episode {episode.row.uuid}: a frame does not match its checksum")


def is_whole(episode: LandedEpisode) -> bool:
    """Whether any record of an episode can be read and matches its checksums."""
    try:
        return bool(first_whole(episode))
    except (CorruptEpisode, OSError):
        return False


def _read_record(episode: LandedEpisode) -> Record:
    rows = rows_from_bytes([episode.steps], [episode.row.length + 1])
    frames, offset = [], episode.offset
    for size, expected in zip(rows["frame_bytes"].tolist(), rows["frame_crc32c"].tolist(), strict=True):
        frames.append(episode.file.read(offset, size))
        offset += size
        if crc32c(frames[-1]) != expected:
            raise CorruptEpisode(f"landed episode {episode.row.uuid}: a frame does not match its checksum")
    return Record(episode.row, rows, tuple(frames))


def record_head(record: Record) -> bytes:
    """Returns what stands before the frames in an episode's record."""
    row, steps = record.row, rows_to_bytes(record.rows)
    about = json.dumps(row.lasting(), default=bytes.hex).encode()
    sizes = _HEADER.pack(_MAGIC, len(about), len(steps), record.size, 0)[:-_CRC_BYTES]
    body = about + steps
    return b"".join((sizes, crc32c(sizes, body).to_bytes(_CRC_BYTES, "little"), body))


def scan(file: LogFile) -> Iterator[LandedEpisode | LeftOut]:
    """Yields the whole records of a file and what is none; after a damaged one it goes on with the next sound one."""
    size = os.fstat(file.handle).st_size
    at, lost = 0, -1
    cut_off = True
    while at >= 0 and len(head := os.pread(file.handle, _HEADER.size, at)) == _HEADER.size:
        magic, about_bytes, step_bytes, frame_bytes, crc = _HEADER.unpack(head)
        offset = at + _HEADER.size + about_bytes + step_bytes
        body = b""
        if magic == _MAGIC and offset + frame_bytes <= size:
            body = os.pread(file.handle, about_bytes + step_bytes, at + _HEADER.size)
        if not body or crc32c(head[:-_CRC_BYTES], body) != crc:
            if lost < 0:
                lost, cut_off = at, magic == _MAGIC and offset + frame_bytes > size
            at = _find_magic(file, at + 1)
            continue
        if lost >= 0:
            yield LeftOut(file, lost, at, _UNTOLD)
            lost, cut_off = -1, True
        first_position, uuid, digest, *others = json.loads(body[:about_bytes])
        row = EpisodeRow(first_position, uuid, bytes.fromhex(digest), *others)
        yield LandedEpisode(row, body[about_bytes:], file, at, offset)
        at = offset + frame_bytes
    if lost >= 0 or at < size:
        yield LeftOut(file, lost if lost >= 0 else at, size, _UNTOLD, cut_off)


def _find_magic(file: LogFile, start: int) -> int:
    """Returns where a record may begin from ``start`` on; -1 when none does."""
    while len(searched := os.pread(file.handle, _SEARCHED_BYTES, start)) >= len(_MAGIC):
        at = searched.find(_MAGIC)
        if at >= 0:
            return start + at
        start += len(searched) - len(_MAGIC) + 1
    return -1


def write_at(handle: int, data: bytes, offset: int) -> None:
    """Writes all of ``data`` at a place of a file."""
    left = memoryview(data)
    while left:
        written = os.pwrite(handle, left, offset)
        left, offset = left[written:], offset + written
