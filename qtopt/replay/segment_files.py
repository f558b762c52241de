"""Sealed segments on disk: immutable zarr v3 groups that any zarr reader understands.

``frames`` is one flat uint8 array, the encoded frames end to end: uncompressed inner chunks with their crc32c inside a
single shard, written once, front to back. Raw frames are one chunk each. All other arrays are plain columns of one
uncompressed chunk with its crc32c: those of the step table, ``frame_offset``, and those of the episode table.

zarr writes what describes the arrays; the bytes are written here, since zarr would hold a whole shard in memory and
leaves out chunks of zeros. ``tests/replay`` reads the result with other readers.
"""

import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qtopt import specs
from qtopt.durable import flush
from qtopt.errors import CorruptEpisode
from qtopt.replay.catalogue import SegmentRow
from qtopt.replay.checksum import crc32c
from qtopt.replay.frames import FrameCodec
from qtopt.replay.record import EpisodeRow
from qtopt.replay.schema import FORMAT_NAME, STEP_DTYPE, Rows, StoreFormat
from qtopt.types import JsonValue

CHUNK_BYTES: Final = 65536
CRC_BYTES: Final = 4
SHARD: Final = Path("frames", "c", "0")
_INDEX_ENTRY_BYTES: Final = 16
_WRITE_BYTES: Final = 4 << 20

EPISODE_COLUMNS: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    "episode_first_row": ("<i8", ()),
    "episode_length": ("<i4", ()),
    "episode_end": ("|u1", ()),
    "episode_outcome": ("|u1", ()),
    "episode_policy_version": ("<i8", ()),
    "episode_offline": ("|b1", ()),
    "episode_rows_crc32c": ("<u4", ()),
    "episode_uuid": ("|u1", (16,)),
    "episode_digest": ("|u1", (32,)),
    "episode_facts_end": ("<i8", ()),
}
"""The episode table: dtype and shape of a row of each column. ``episode_facts_json`` holds the facts end to end."""


UNREADABLE: Final = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading a segment's damaged tables raises, beside CorruptEpisode."""

FACTS: Final = "episode_facts_json"
"""The column of the facts, end to end; the catalogue has them too."""

COLUMN_NAMES: Final = (*(STEP_DTYPE.names or ()), "frame_offset", *EPISODE_COLUMNS, FACTS)
"""The arrays of a segment other than ``frames``."""


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

    Raises:
        OSError: it cannot be written.
    """
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import LocalStore

    attributes = {
        "format": FORMAT_NAME,
        "schema_version": specs.SCHEMA_VERSION,
        "segment": asdict(segment),
        "image": [fmt.height, fmt.width, 3],
        "frame_codec": str(fmt.codec),
        "action_fields": list(specs.ACTION_FIELDS),
        "step_columns": list(STEP_DTYPE.names or ()),
    }
    group = zarr.create_group(LocalStore(directory), zarr_format=3, attributes=attributes)
    group.create_array(
        "frames",
        shape=(segment.frame_bytes,),
        dtype="uint8",
        chunks=(segment.chunk_bytes,),
        shards=(segment.chunk_bytes * _chunks(segment),),
        compressors=[Crc32cCodec()],
    )
    _write_shard(directory / SHARD, segment, frames)
    for name, values in _columns(segment, rows, episodes).items():
        group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=values.shape, compressors=[Crc32cCodec()]
        )
        path = _column_path(directory, name, values.ndim)
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.write(values.data)
            file.write(_crc_bytes(values))
    flush_tree(directory)


def _chunks(segment: SegmentRow) -> int:
    return -(-segment.frame_bytes // segment.chunk_bytes)


def _crc_bytes(data: bytes | npt.NDArray[Any]) -> bytes:
    return crc32c(data).to_bytes(CRC_BYTES, "little")


def _column_path(directory: Path, name: str, dimensions: int) -> Path:
    return Path(directory, name, "c", *("0" for _ in range(dimensions)))


def _columns(segment: SegmentRow, rows: Rows, episodes: Sequence[EpisodeRow]) -> dict[str, npt.NDArray[Any]]:
    """Returns the plain arrays of a segment by name."""
    columns: dict[str, npt.NDArray[Any]] = {name: np.ascontiguousarray(rows[name]) for name in STEP_DTYPE.names or ()}
    columns["frame_offset"] = offsets(rows["frame_bytes"])
    facts = [row.facts.encode() for row in episodes]
    table: dict[str, list[Any]] = {
        "episode_first_row": [row.first_position - segment.first_position for row in episodes],
        "episode_uuid": [list(bytes.fromhex(row.uuid)) for row in episodes],
        "episode_digest": [list(row.digest) for row in episodes],
        "episode_facts_end": np.cumsum([len(text) for text in facts]).tolist(),
    }
    for name, (dtype, _) in EPISODE_COLUMNS.items():
        values = table.get(name) or [getattr(row, name.removeprefix("episode_")) for row in episodes]
        columns[name] = np.array(values, dtype)
    columns[FACTS] = np.frombuffer(b"".join(facts), np.uint8)
    return columns


def offsets(sizes: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Returns where each of a row of things of these sizes begins, int64."""
    wide = sizes.astype(np.int64)
    return np.asarray(np.cumsum(wide) - wide)


def _write_shard(path: Path, segment: SegmentRow, frames: Iterable[bytes]) -> None:
    """Writes the one shard of ``frames``: chunks in order, each with its checksum, then the index and its checksum."""
    path.parent.mkdir(parents=True)
    size = segment.chunk_bytes
    stored = size + CRC_BYTES
    chunks = _chunks(segment)
    waiting = bytearray()
    with path.open("wb", buffering=_WRITE_BYTES) as file:

        def write_chunk(chunk: bytes) -> None:
            file.write(chunk)
            file.write(_crc_bytes(chunk))

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
        file.write(_crc_bytes(index))


def segment_size(directory: Path) -> int:
    """Returns the bytes of a segment's files, and those of its facts once more: the catalogue has them too.

    Raises:
        OSError: they are not there, or cannot be read now.
    """
    files = [Path(folder, name) for folder, _, names in os.walk(directory) for name in names]
    return sum(file.stat().st_size for file in (*files, _column_path(directory, FACTS, 1)))


def flush_tree(directory: Path) -> None:
    """Makes a directory durable with all that is in it."""
    for folder, _, names in os.walk(directory):
        for path in (*(Path(folder, name) for name in names), Path(folder)):
            flush(path)


def read_column(
    directory: Path, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]
) -> tuple[npt.NDArray[Any], bool]:
    """Reads a column; returns it, and whether it matches its checksum.

    It is not mapped: where a disk cannot read a mapped file, the process dies.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is too short.
    """
    path = _column_path(directory, name, len(shape))
    data, count = path.read_bytes(), math.prod(shape)
    expected = np.dtype(dtype).itemsize * count
    if not 0 < expected <= len(data):
        raise ValueError(f"{path}: found {len(data)} bytes, expected {expected} and a checksum")
    values = np.frombuffer(data, dtype, count).reshape(shape)
    return values, data[expected:] == _crc_bytes(values)


def never_had(directory: Path, name: str) -> bool:
    """Whether a segment was written before there was a column ``is_intervention``, and that is the column ``name``."""
    if name != specs.IS_INTERVENTION or (directory / name).exists():
        return False
    described = described_columns(directory)
    return described is None or name not in described


def described_columns(directory: Path) -> list[JsonValue] | None:
    """Returns the step columns that a segment's description names; None when it cannot be read."""
    try:
        columns = json.loads((directory / "zarr.json").read_text())["attributes"].get("step_columns", [])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return columns if isinstance(columns, list) else None


def column_is_sound(directory: Path, name: str) -> bool:
    """Whether a column, of whatever type, matches its checksum. Raises OSError."""
    files = [path for path in (directory / name / "c").rglob("*") if path.is_file()]
    data = files[0].read_bytes() if len(files) == 1 else b""
    return _crc_bytes(data[:-CRC_BYTES]) == data[-CRC_BYTES:]


def read_tables(directory: Path) -> tuple[SegmentRow, list[EpisodeRow]]:
    """Returns what a catalogue has to know of a segment and its episodes.

    Raises:
        CorruptEpisode: a column does not match its checksum.
        OSError, ValueError, KeyError, TypeError: a file is missing or is not what it should be.
    """
    attributes = json.loads((directory / "zarr.json").read_text())["attributes"]
    segment = SegmentRow(**attributes["segment"])
    columns = {name.removeprefix("episode_"): read_episode_column(directory, name, segment) for name in EPISODE_COLUMNS}
    ends = columns["facts_end"].tolist()
    facts = _read_sound(directory, FACTS, "|u1", (ends[-1],)).tobytes()
    return segment, episode_rows(
        segment, columns, [facts[start:stop].decode() for start, stop in itertools.pairwise([0, *ends])]
    )


def described_format(directory: Path) -> StoreFormat | None:
    """Returns the format of the store that a segment was written by; None where the segment does not tell."""
    try:
        attributes = json.loads((directory / "zarr.json").read_text())["attributes"]
        height, width, channels = attributes["image"]
        fmt = StoreFormat(height, width, FrameCodec(attributes["frame_codec"]))
        told = [attributes["format"], attributes["schema_version"], channels]
    except UNREADABLE:
        return None
    known = told == [FORMAT_NAME, specs.SCHEMA_VERSION, 3] and all(type(size) is int for size in (height, width))
    return fmt if known else None


def episode_rows(
    segment: SegmentRow, columns: Mapping[str, npt.NDArray[Any]], facts: Sequence[str]
) -> list[EpisodeRow]:
    """Returns the rows of a segment's episodes.

    Args:
        segment: which one.
        columns: those of ``EPISODE_COLUMNS``, by their names without ``episode_``.
        facts: of each episode.
    """
    return [
        EpisodeRow(
            first_position=segment.first_position + int(columns["first_row"][number]),
            uuid=columns["uuid"][number].tobytes().hex(),
            digest=columns["digest"][number].tobytes(),
            length=int(columns["length"][number]),
            end=int(columns["end"][number]),
            outcome=int(columns["outcome"][number]),
            policy_version=int(columns["policy_version"][number]),
            offline=bool(columns["offline"][number]),
            facts=text,
            rows_crc32c=int(columns["rows_crc32c"][number]),
            segment=segment.number,
        )
        for number, text in enumerate(facts)
    ]


def read_episode_column(directory: Path, name: str, segment: SegmentRow) -> npt.NDArray[Any]:
    """Returns a column of a segment's episode table, one of ``EPISODE_COLUMNS``.

    Raises:
        CorruptEpisode: it does not match its checksum.
        OSError, ValueError: it is missing or too short.
    """
    dtype, shape = EPISODE_COLUMNS[name]
    return _read_sound(directory, name, dtype, (segment.episodes, *shape))


def _read_sound(directory: Path, name: str, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    values, sound = read_column(directory, name, dtype, shape)
    if not sound:
        raise CorruptEpisode(f"{directory / name}: does not match its checksum")
    return values


def check_shard(directory: Path, row: SegmentRow) -> list[tuple[int, int]]:
    """Checks every chunk and the index of a segment's shard; returns the damaged ranges of the flat array.

    Raises:
        CorruptEpisode: the index does not match its checksum or does not say what was written.
        OSError: the file cannot be read.
    """
    stored = row.chunk_bytes + CRC_BYTES
    chunks = _chunks(row)
    damaged = []
    with (directory / SHARD).open("rb") as file:
        for number in range(chunks):
            data = file.read(stored)
            if crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
                damaged.append((number * row.chunk_bytes, (number + 1) * row.chunk_bytes))
        index = file.read(chunks * _INDEX_ENTRY_BYTES)
        expected = int.from_bytes(file.read(CRC_BYTES), "little")
    said = np.frombuffer(index, "<u8").reshape(-1, 2) if len(index) == chunks * _INDEX_ENTRY_BYTES else np.empty((0, 2))
    if crc32c(index) != expected or not np.array_equal(said[:, 0], np.arange(chunks) * stored):
        raise CorruptEpisode(f"{directory / SHARD}: the shard index is damaged; frames are still found without it")
    return damaged
