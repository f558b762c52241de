"""A file of the landing log: records of episodes, one behind the other, each with checksums of its own."""

import itertools
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from qtopt.errors import CorruptEpisode
from qtopt.replay.checksum import crc32c
from qtopt.replay.quarantine import Quarantine
from qtopt.replay.record import EpisodeRow, Record, row_of
from qtopt.replay.schema import frame_sizes, rows_from_bytes, rows_to_bytes

OLD_MARK: Final = b"\xf1qtopt\x01\n"
"""What begins each record in files that have no mark of their own: those of stores of format 3 and before."""
MARK_BYTES: Final = 16
_SIZES: Final = struct.Struct("<IIII")
"""Bytes of the episode's row (JSON), of its steps, of its frames, and the CRC-32C of mark and all but the frames."""
_CRC_BYTES: Final = 4
_SEARCHED_BYTES: Final = 1 << 16
_IN_VAIN: Final = 4
_SHORT_BYTES: Final = 1 << 14
"""Once so many times a file's size was read of what is no record, only what says that its head is short is read."""
_BLOCK_BYTES: Final = 1 << 24  # the system reads no more than 2 GiB at a time
_UNTOLD: Final = "an episode that is damaged, or was never acknowledged"


class LogFile:
    """An open file of the log; it stays readable for who holds it, also when it was removed.

    Each record begins with the file's mark. It is drawn by chance and stands in the file's name alone, so that damage
    to the file does not take it away, and no client can put into a frame what would be taken for a record.
    """

    def __init__(self, path: Path, flags: int) -> None:
        self.path = path
        self.mark = bytes.fromhex(path.stem.partition("-")[2]) or OLD_MARK
        self.handle = os.open(path, flags, 0o644)
        self.bytes = self.facts_bytes = 0
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

    The row has no facts, which may be long: ``first_whole`` reads them. ``again`` are the records of the same that came
    later.
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
    head = _head_at(episode.file, episode.start)
    told = head.read(episode.file) if head is not None else None
    if told is None or told[0] != episode.row:
        raise CorruptEpisode(f"landed episode {episode.row.uuid}: its record does not match its checksum any more")
    rows = rows_from_bytes([episode.steps], [episode.row.length + 1])
    frames, offset = [], episode.offset
    for size, expected in zip(rows["frame_bytes"].tolist(), rows["frame_crc32c"].tolist(), strict=True):
        frames.append(episode.file.read(offset, size))
        offset += size
        if crc32c(frames[-1]) != expected:
            raise CorruptEpisode(f"landed episode {episode.row.uuid}: a frame does not match its checksum")
    return Record(replace(episode.row, facts=told[1]), rows, tuple(frames))


def record_head(record: Record, mark: bytes) -> bytes:
    """Returns what stands before the frames in an episode's record in a file with this mark."""
    about = json.dumps(record.row.lasting(), default=bytes.hex).encode()
    return head_of(mark, about, rows_to_bytes(record.rows), record.frame_bytes)


def head_of(mark: bytes, about: bytes, steps: bytes, frame_bytes: int) -> bytes:
    """Returns the head of a record: ``about`` is the episode's row as JSON; steps and frames of that size follow it."""
    sizes = mark + _SIZES.pack(len(about), len(steps), frame_bytes, 0)[:-_CRC_BYTES]
    body = about + steps
    return b"".join((sizes, crc32c(sizes, body).to_bytes(_CRC_BYTES, "little"), body))


class _Head(NamedTuple):
    """What a record, or what looks like one, says of itself; ``sizes`` with the mark, without the checksum."""

    body: int  # where it begins
    sizes: bytes
    about_bytes: int
    step_bytes: int
    frame_bytes: int
    crc: int

    @property
    def offset(self) -> int:
        """Where the frames begin."""
        return self.body + self.about_bytes + self.step_bytes

    @property
    def stop(self) -> int:
        """Where the record ends."""
        return self.offset + self.frame_bytes

    def read(self, file: LogFile) -> tuple[EpisodeRow, str, bytes] | None:
        """Returns an episode's row without its facts, these, and its steps; None where this is no record."""
        body = file.read(self.body, self.about_bytes + self.step_bytes)
        if crc32c(self.sizes, body) != self.crc:
            return None
        try:
            row, facts = row_of(json.loads(body[: self.about_bytes].decode()))
            steps = body[self.about_bytes :]
            return (row, facts, steps) if sum(frame_sizes(steps, row.length + 1)) == self.frame_bytes else None
        except (CorruptEpisode, ValueError, RecursionError):
            return None


def _head_at(file: LogFile, at: int) -> _Head | None:
    """Returns the head of the record at a place; None where the file's mark does not stand there, or the file ends."""
    body = at + len(file.mark) + _SIZES.size
    data = file.read(at, body - at)
    if len(data) < body - at or not data.startswith(file.mark):
        return None
    return _Head(body, data[:-_CRC_BYTES], *_SIZES.unpack_from(data, len(file.mark)))


def scan(file: LogFile) -> Iterator[LandedEpisode | LeftOut]:
    """Yields the whole records of a file and what is none; after a damaged one it goes on with the next sound one.

    In files without a mark of their own, frames may hold what a client made to look like records. Whatever they say,
    reading takes time in proportion to the file.
    """
    size, head_bytes = os.fstat(file.handle).st_size, len(file.mark) + _SIZES.size
    at, lost, cut_off, in_vain = 0, -1, True, 0
    marks: Iterator[int] = iter(())
    while 0 <= at < size:
        head = _head_at(file, at)
        ends = size - at < head_bytes if head is None else head.stop > size
        told = None
        if head is not None and not ends and (in_vain <= _IN_VAIN * size or head.offset - head.body <= _SHORT_BYTES):
            told = head.read(file)
            in_vain += head.offset - head.body if told is None else 0
        if head is None or told is None:
            if lost < 0:
                lost, cut_off, marks = at, ends, _marks(file, at + 1)
            at = next(marks, -1)
            continue
        if lost >= 0:
            yield LeftOut(file, lost, at, _UNTOLD)
            lost = -1
        row, _, steps = told
        yield LandedEpisode(row, steps, file, at, head.offset)
        at = head.stop
    if lost >= 0:
        yield LeftOut(file, lost, size, _UNTOLD, cut_off)


def _marks(file: LogFile, start: int) -> Iterator[int]:
    """Yields the places from ``start`` on where a record may begin."""
    while len(searched := file.read(start, _SEARCHED_BYTES)) >= len(file.mark):
        at = searched.find(file.mark)
        while at >= 0:
            yield start + at
            at = searched.find(file.mark, at + 1)
        start += len(searched) - len(file.mark) + 1


def write_at(handle: int, data: bytes, offset: int) -> None:
    """Writes all of ``data`` at a place of a file."""
    left = memoryview(data)
    while left:
        written = os.pwrite(handle, left, offset)
        left, offset = left[written:], offset + written
