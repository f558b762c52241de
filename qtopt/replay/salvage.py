"""What of a sealed segment is still sound when something that describes it is not.

``zarr.json`` has no checksum, so it is compared with the shapes of the files; each column has one of its own. Much is
there twice: where episodes begin and how long they are, the checksums of their steps, where their facts end. For the
rest the digest of an episode says whether its row is what was stored, except where frames are JPEG: the digest is of
the pixels before.
"""

import itertools
import json
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qtopt import specs
from qtopt.digest import content_digest
from qtopt.errors import CorruptEpisode
from qtopt.replay.catalogue import SegmentRow
from qtopt.replay.checksum import crc32c
from qtopt.replay.frames import FrameCodec
from qtopt.replay.record import UNTOLD, EpisodeRow, Record, decode_episode
from qtopt.replay.schema import STEP_DTYPE, Rows, StoreFormat, is_offline, rows_to_bytes
from qtopt.replay.segment_files import (
    CRC_BYTES,
    EPISODE_COLUMNS,
    SHARD,
    UNREADABLE,
    chunk_bytes,
    episode_rows,
    offsets,
    read_tables,
)
from qtopt.replay.segments import SegmentFrames
from qtopt.replay.verify import is_content
from qtopt.types import EpisodeEnd, IntArray, Outcome

_TELLING: Final = frozenset(("uuid", "end", "outcome", "policy_version", "facts_json"))
"""What of the episode table is written nowhere else in the segment."""
_NO_FACTS: Final = '{"collector":"","metadata":{}}'

Tables = tuple[SegmentRow, list[EpisodeRow]]


def read_sound_tables(directory: Path, fmt: StoreFormat) -> Tables:
    """As ``read_tables``, but raises CorruptEpisode also where ``zarr.json`` does not fit the files beside it."""
    segment, episodes = read_tables(directory)
    steps = _Columns.of_steps(directory)
    expected = replace(segment, number=_number(directory), rows=steps.count, chunk_bytes=chunk_bytes(fmt))
    if "frame_bytes" not in steps.damaged:
        expected = replace(expected, frame_bytes=_frame_bytes(steps))
    if segment != expected or not 0 <= segment.first_position < 2**60:
        raise CorruptEpisode(f"{directory / 'zarr.json'}: does not say what is in the files beside it")
    return segment, episodes


def salvage(directory: Path, fmt: StoreFormat) -> Tables:
    """Returns what can be told of a segment and its episodes, as if its first position were 0.

    Episodes of which something cannot be told are quarantined for good (``UNTOLD``).

    Raises:
        CorruptEpisode: too much is damaged.
        OSError, ValueError: too much is missing.
    """
    steps, table = _Columns.of_steps(directory), _Columns.of_episodes(directory)
    table.values["first_row"], table.values["length"] = _extents(table, steps.count)
    frame_bytes = _frame_bytes(steps)
    if "frame_bytes" in steps.damaged:  # as much as the shard has room for
        stored = chunk_bytes(fmt) + CRC_BYTES
        frame_bytes = ((directory / SHARD).stat().st_size - CRC_BYTES) // (stored + 16) * chunk_bytes(fmt)
    segment = SegmentRow(_number(directory), 0, steps.count, table.count, frame_bytes, chunk_bytes(fmt))
    episodes = episode_rows(segment, table.values, _facts(directory, table))
    whole = _Whole(directory, fmt, segment, steps, table.damaged)
    return segment, [whole.checked(row) for row in episodes]


def _number(directory: Path) -> int:
    return int(directory.stem)


@dataclass
class _Columns:
    """Columns of one table: how many rows, their values (zeros where they are missing), which are damaged."""

    count: int
    values: dict[str, npt.NDArray[Any]]
    damaged: set[str]

    @classmethod
    def of_episodes(cls, directory: Path) -> "_Columns":
        return cls._read(directory, "episode_", {n.removeprefix("episode_"): s for n, s in EPISODE_COLUMNS.items()})

    @classmethod
    def of_steps(cls, directory: Path) -> "_Columns":
        kinds = {name: (STEP_DTYPE[name].base.str, STEP_DTYPE[name].shape) for name in STEP_DTYPE.names or ()}
        if not (directory / specs.IS_INTERVENTION).exists():
            del kinds[specs.IS_INTERVENTION]  # there was none yet
        return cls._read(directory, "", kinds | {"frame_offset": ("<i8", ())})

    @classmethod
    def _read(cls, directory: Path, prefix: str, kinds: dict[str, tuple[str, tuple[int, ...]]]) -> "_Columns":
        found = {name: _read_checked(directory, prefix + name) for name in kinds}
        items = {name: np.dtype((kind, shape)) for name, (kind, shape) in kinds.items()}
        counts = {len(data) // items[name].itemsize for name, (data, sound) in found.items() if sound}
        if len(counts) != 1:
            raise CorruptEpisode(f"{directory}: found tables of {sorted(counts)} rows, expected one that is sound")
        count = counts.pop()
        values, damaged = {}, set()
        for name, (data, sound) in found.items():
            size = count * items[name].itemsize
            values[name] = np.frombuffer(data[:size].ljust(size, b"\0"), items[name])
            if not sound:
                damaged.add(name)
        return cls(count, values, damaged)


def _read_checked(directory: Path, name: str) -> tuple[bytes, bool]:
    """Returns the bytes of a column, none when it is missing, and whether they match their checksum."""
    files = [path for path in (directory / name / "c").rglob("*") if path.is_file()]
    data = files[0].read_bytes() if len(files) == 1 else b""
    return data[:-CRC_BYTES], crc32c(data[:-CRC_BYTES]).to_bytes(CRC_BYTES, "little") == data[-CRC_BYTES:]


def _frame_bytes(steps: _Columns) -> int:
    return max(1, int(steps.values["frame_bytes"].sum(dtype=np.int64)))


def _extents(table: _Columns, rows: int) -> tuple[IntArray, IntArray]:
    """Returns first row and length of each episode, int64, of whichever of the two is sound."""
    if "length" not in table.damaged:
        length = table.values["length"].astype(np.int64)
        first = np.cumsum(length + 1) - length - 1
    else:
        first = table.values["first_row"]
        length = np.diff(np.append(first, rows)) - 1
    if {"length", "first_row"} <= table.damaged or length.min() < 1 or first[0] or first[-1] + length[-1] + 1 != rows:
        raise CorruptEpisode("where the episodes begin is not told by what is left of the segment's table")
    return first, length


def _facts(directory: Path, table: _Columns) -> list[str]:
    """Returns the facts of each episode; "" where they cannot be told."""
    data, sound = _read_checked(directory, "episode_facts_json")
    if not sound:
        table.damaged.add("facts_json")
    if "facts_end" not in table.damaged:
        ends = table.values["facts_end"].tolist()
        return [data[start:stop].decode(errors="replace") for start, stop in itertools.pairwise([0, *ends])]
    facts: list[str] = []
    text, at, decoder = data.decode(errors="replace"), 0, json.JSONDecoder()
    while sound and len(facts) < table.count:
        end = decoder.raw_decode(text, at)[1]
        facts.append(text[at:end])
        at = end
    return facts or [""] * table.count


class _Whole:
    """A segment's steps and frames, which say of an episode whether its row is what was stored."""

    def __init__(
        self, directory: Path, fmt: StoreFormat, segment: SegmentRow, steps: _Columns, damaged: set[str]
    ) -> None:
        self._format = fmt
        self._damaged = damaged
        self._steps_sound = not steps.damaged - {"frame_offset"}
        self._rows: Rows = np.zeros(segment.rows, STEP_DTYPE)
        for name in steps.values.keys() - {"frame_offset"}:
            self._rows[name] = steps.values[name]
        in_order = offsets(self._rows["frame_bytes"])
        self._offsets = in_order if "frame_offset" in steps.damaged else steps.values["frame_offset"]
        self._open = partial(SegmentFrames, directory, segment)

    @cached_property
    def _frames(self) -> SegmentFrames:
        return self._open()

    def checked(self, row: EpisodeRow) -> EpisodeRow:
        """Returns an episode's row, mended where it can be; quarantined where it cannot."""
        span = slice(row.first_position, row.first_position + row.length + 1)
        if "rows_crc32c" in self._damaged and self._steps_sound:
            row = replace(row, rows_crc32c=crc32c(rows_to_bytes(self._rows[span])))
        if self._damaged <= {"first_row", "length", "facts_end"}:
            return row
        try:
            return self._compared(row, span)
        except (*UNREADABLE, CorruptEpisode):
            return row if self._damaged.isdisjoint(_TELLING) else _untold(row)

    def _compared(self, row: EpisodeRow, span: slice) -> EpisodeRow:
        rows = self._rows[span]
        sizes = rows["frame_bytes"].tolist()
        frames = tuple(itertools.starmap(self._frames.read, zip(self._offsets[span].tolist(), sizes, strict=True)))
        episode = decode_episode(Record(row, rows, frames), self._format)
        row = replace(row, offline=is_offline(episode)) if "offline" in self._damaged else row
        if self._damaged.isdisjoint(_TELLING):
            exact = "digest" in self._damaged and self._format.codec is not FrameCodec.JPEG
            return replace(row, digest=content_digest(episode)) if exact else row
        if self._format.codec is FrameCodec.JPEG or not is_content(row, episode):
            return _untold(row)
        return row


def _untold(row: EpisodeRow) -> EpisodeRow:
    outcome, end = int(Outcome.UNKNOWN), int(EpisodeEnd.TERMINATED)
    return replace(row, outcome=outcome, end=end, facts=_NO_FACTS, quarantined=UNTOLD)
