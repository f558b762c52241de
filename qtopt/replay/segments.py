"""Sealed segments: immutable zarr v3 groups that any zarr reader understands, read here by position with ``pread``.

``frames`` is one flat uint8 array, the encoded frames end to end: uncompressed inner chunks with their crc32c inside a
single shard, written once, front to back. Raw frames are one chunk each. All other arrays are plain columns of one
uncompressed chunk with its crc32c: those of the step table, ``frame_offset``, and those of the episode table.

The shard is written by hand, since zarr would hold all of it in memory; ``tests/replay`` reads it with other readers.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qtopt import specs
from qtopt.errors import CorruptEpisode
from qtopt.replay.catalogue import SegmentRow
from qtopt.replay.checksum import crc32c
from qtopt.replay.frames import FrameCodec
from qtopt.replay.record import EpisodeRow
from qtopt.replay.schema import FORMAT_NAME, STEP_DTYPE, Rows, StoreFormat
from qtopt.replay.shelf import Damaged
from qtopt.types import BoolArray, IntArray

CHUNK_BYTES = 65536
_CRC = np.dtype("<u4")
_SHARD = Path("frames", "c", "0")
_WRITE_BYTES = 4 << 20


def segment_name(number: int) -> str:
    """Returns the name of a segment's directory."""
    return f"{number:08d}.zarr"


def chunk_bytes(fmt: StoreFormat) -> int:
    """Returns the size of the inner chunks: a frame where all frames have one size."""
    return fmt.frame_pixels if fmt.codec is FrameCodec.RAW else CHUNK_BYTES


def write_segment(
    directory: Path,
    fmt: StoreFormat,
    segment: SegmentRow,
    rows: Rows,
    frames: Iterable[bytes],
    episodes: Sequence[EpisodeRow],
) -> None:
    """Writes a segment to ``directory``, which must not exist, and flushes it to the disk with all its directories.

    Args:
        directory: where; to be renamed by the caller.
        fmt: of the store.
        segment: what the catalogue will say of it.
        rows: the step table of the segment.
        frames: the encoded frames, one for each row, of the sizes that ``rows`` says.
        episodes: the episode table of the segment.
    """
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import LocalStore

    attributes = {
        "format": FORMAT_NAME,
        "schema_version": specs.SCHEMA_VERSION,
        "number": segment.number,
        "first_position": segment.first_position,
        "image": [fmt.height, fmt.width, 3],
        "frame_codec": str(fmt.codec),
        "action_fields": list(specs.ACTION_FIELDS),
    }
    group = zarr.create_group(LocalStore(directory), zarr_format=3, attributes=attributes)
    chunks = -(-segment.frame_bytes // segment.chunk_bytes)
    group.create_array(
        "frames",
        shape=(segment.frame_bytes,),
        dtype="uint8",
        chunks=(segment.chunk_bytes,),
        shards=(segment.chunk_bytes * chunks,),
        compressors=[Crc32cCodec()],
    )
    _write_shard(directory / _SHARD, segment, frames)
    for name, values in _columns(segment, rows, episodes).items():
        # A chunk of no length is not allowed; an array without elements has no chunk.
        chunk = tuple(max(1, size) for size in values.shape)
        group.create_array(name, data=values, chunks=chunk, compressors=[Crc32cCodec()], filters=None)
    _flush_tree(directory)


def _columns(segment: SegmentRow, rows: Rows, episodes: Sequence[EpisodeRow]) -> dict[str, npt.NDArray[Any]]:
    """Returns the plain arrays of a segment by name."""
    columns: dict[str, npt.NDArray[Any]] = {name: np.ascontiguousarray(rows[name]) for name in STEP_DTYPE.names or ()}
    sizes = rows["frame_bytes"].astype(np.int64)
    columns["frame_offset"] = np.cumsum(sizes) - sizes
    facts = [row.facts.encode() for row in episodes]
    columns["episode_first_row"] = np.array([row.first_position - segment.first_position for row in episodes], np.int64)
    columns["episode_length"] = np.array([row.length for row in episodes], np.int32)
    columns["episode_end"] = np.array([row.end for row in episodes], np.uint8)
    columns["episode_outcome"] = np.array([row.outcome for row in episodes], np.uint8)
    columns["episode_policy_version"] = np.array([row.policy_version for row in episodes], np.int64)
    columns["episode_offline"] = np.array([row.offline for row in episodes], np.bool_)
    columns["episode_crc32c"] = np.array([row.crc32c for row in episodes], np.uint32)
    columns["episode_uuid"] = _bytes_rows([bytes.fromhex(row.uuid) for row in episodes])
    columns["episode_digest"] = _bytes_rows([row.digest for row in episodes])
    columns["episode_facts_json"] = np.frombuffer(b"".join(facts), np.uint8)
    columns["episode_facts_end"] = np.cumsum([len(text) for text in facts], dtype=np.int64)
    return columns


def _bytes_rows(values: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)


def _write_shard(path: Path, segment: SegmentRow, frames: Iterable[bytes]) -> None:
    """Writes the one shard of ``frames``: chunks in order, each with its checksum, then the index and its checksum."""
    path.parent.mkdir(parents=True)
    size = segment.chunk_bytes
    stored = size + _CRC.itemsize
    chunks = -(-segment.frame_bytes // size)
    waiting = bytearray()
    with path.open("wb", buffering=_WRITE_BYTES) as file:

        def write_chunk(chunk: bytes) -> None:
            file.write(chunk)
            file.write(crc32c(chunk).to_bytes(_CRC.itemsize, "little"))

        for frame in frames:
            waiting += frame
            while len(waiting) >= size:
                write_chunk(bytes(waiting[:size]))
                del waiting[:size]
        if file.tell() < chunks * stored:
            write_chunk(bytes(waiting.ljust(size, b"\0")))
        index = np.empty((chunks, 2), "<u8")
        index[:, 0] = np.arange(chunks) * stored
        index[:, 1] = stored
        file.write(index.tobytes())
        file.write(crc32c(index.tobytes()).to_bytes(_CRC.itemsize, "little"))


def _flush_tree(directory: Path) -> None:
    for folder, _, names in os.walk(directory):
        for path in (*(os.path.join(folder, name) for name in names), folder):
            flush(Path(path))


def flush(path: Path) -> None:
    """Makes what is in a file or a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class ColumnFile:
    """A column as it lies in its file: raw values, then four bytes of checksum."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def read(self) -> tuple[npt.NDArray[Any], bool]:
        """Maps the values into memory; returns them and whether they match their checksum.

        Raises:
            OSError, ValueError: the file is missing or too short.
        """
        values = np.memmap(self.path, self.dtype, "r", 0, self.shape)
        with self.path.open("rb") as file:
            file.seek(values.nbytes)
            expected = int.from_bytes(file.read(_CRC.itemsize), "little")
        return values, crc32c(values) == expected


class Segment:
    """An open segment. Its files stay open until nobody holds it any more.

    Args:
        directory: of the segment.
        row: what the catalogue says of it.

    Attributes:
        sound: whether every column matches its checksum.
        damaged: bool (rows,), the rows of episodes that are not what was stored; set by the owner when not ``sound``.
    """

    def __init__(self, directory: Path, row: SegmentRow) -> None:
        self._row = row
        self._columns: dict[str, npt.NDArray[Any]] = {}
        self.damaged: BoolArray | None = None
        self.sound = True
        for name, (dtype, _) in (STEP_DTYPE.fields or {}).items():  # type: ignore[misc]
            self.sound &= self._open_column(directory, name, dtype)
        if not self._open_column(directory, "frame_offset", np.dtype("<i8")):
            sizes = self._columns["frame_bytes"].astype(np.int64)
            self._columns["frame_offset"] = np.cumsum(sizes) - sizes
        self._file = os.open(directory / _SHARD, os.O_RDONLY)

    def _open_column(self, directory: Path, name: str, dtype: np.dtype[Any]) -> bool:
        shape = (self._row.rows, *dtype.shape)
        path = Path(directory, name, "c", *("0" for _ in shape))
        self._columns[name], sound = ColumnFile(path, dtype.base, shape).read()
        return sound

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def rows(self, positions: IntArray) -> Rows:
        """Returns a copy of the rows at ``positions``; raises Damaged."""
        own = positions - self._row.first_position
        if self.damaged is not None and self.damaged[own].any():
            raise Damaged(positions[self.damaged[own]].tolist(), "steps do not match their checksum")
        rows = np.empty(len(own), STEP_DTYPE)
        for name in STEP_DTYPE.names or ():
            rows[name] = self._columns[name][own]
        return rows

    def frame_offsets(self, positions: IntArray) -> list[int]:
        """Returns where the frames at ``positions`` begin in the flat array."""
        offsets: list[int] = self._columns["frame_offset"][positions - self._row.first_position].tolist()
        return offsets

    def read_frame(self, offset: int, size: int) -> bytes:
        """Returns the bytes of the flat array from ``offset`` on; none when they reach beyond it. Raises OSError."""
        if size == 0 or offset < 0 or offset + size > self._row.frame_bytes:
            return b""
        chunk = self._row.chunk_bytes
        first, last = offset // chunk, (offset + size - 1) // chunk
        gap = _CRC.itemsize
        found = os.pread(self._file, size + (last - first) * gap, offset + first * gap)
        if first == last:
            return found
        head = chunk - offset % chunk
        starts = range(head + gap, len(found), chunk + gap)
        return b"".join([found[:head], *(found[start : start + chunk] for start in starts)])


def check_shard(directory: Path, row: SegmentRow) -> list[tuple[int, int]]:
    """Checks every chunk and the index of a segment's shard; returns the damaged ranges of the flat array.

    Raises:
        CorruptEpisode: the index does not match its checksum or does not say what was written.
        OSError: the file cannot be read.
    """
    stored = row.chunk_bytes + _CRC.itemsize
    chunks = -(-row.frame_bytes // row.chunk_bytes)
    damaged = []
    with (directory / _SHARD).open("rb") as file:
        for number in range(chunks):
            data = file.read(stored)
            if crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
                damaged.append((number * row.chunk_bytes, (number + 1) * row.chunk_bytes))
        index = file.read(chunks * 16)
        expected = int.from_bytes(file.read(_CRC.itemsize), "little")
    said = np.frombuffer(index, "<u8").reshape(-1, 2) if len(index) == chunks * 16 else np.empty((0, 2))
    if crc32c(index) != expected or not np.array_equal(said[:, 0], np.arange(chunks) * stored):
        raise CorruptEpisode(f"{directory / _SHARD}: the shard index is damaged; frames are still found without it")
    return damaged
