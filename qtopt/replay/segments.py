"""Reads sealed segments by position with ``pread``, many times faster than through a zarr library."""

import os
from pathlib import Path

import numpy as np

from qtopt.replay.catalogue import SegmentRow
from qtopt.replay.schema import STEP_DTYPE, Rows
from qtopt.replay.segment_files import CRC_BYTES, SHARD, never_had, offsets, read_column
from qtopt.replay.shelf import Damaged
from qtopt.types import BoolArray, IntArray


class Segment:
    """An open segment: its steps in memory, its frames in a file that stays open until nobody holds it any more.

    Args:
        directory: of the segment.
        row: what the catalogue says of it.

    Attributes:
        sound: whether every column matches its checksum.
        damaged: bool (rows,), the rows of episodes that are not what was stored; set by the owner when not ``sound``.
    """

    def __init__(self, directory: Path, row: SegmentRow) -> None:
        self._row = row
        self._rows = np.zeros(row.rows, STEP_DTYPE)  # side by side: drawn rows lie anywhere, each in another segment
        self.damaged: BoolArray | None = None
        self.sound = True
        for name, (dtype, _) in (STEP_DTYPE.fields or {}).items():  # type: ignore[misc]
            if not never_had(directory, name):
                self._rows[name], sound = read_column(directory, name, dtype.base, (row.rows, *dtype.shape))
                self.sound &= sound
        found, sound = read_column(directory, "frame_offset", "<i8", (row.rows,))
        self._offsets = np.array(found) if sound else offsets(self._rows["frame_bytes"])
        self._file = os.open(directory / SHARD, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def rows(self, positions: IntArray) -> Rows:
        """Returns a copy of the rows at ``positions``; raises Damaged."""
        own = positions - self._row.first_position
        if self.damaged is not None and self.damaged[own].any():
            raise Damaged(positions[self.damaged[own]].tolist(), "steps do not match their checksum")
        return self._rows[own]

    def frame_offsets(self, positions: IntArray) -> list[int]:
        """Returns where the frames at ``positions`` begin in the flat array."""
        offsets: list[int] = self._offsets[positions - self._row.first_position].tolist()
        return offsets

    def read_frame(self, offset: int, size: int) -> bytes:
        """Returns the bytes of the flat array from ``offset`` on; none when they reach beyond it. Raises OSError."""
        if size == 0 or offset < 0 or offset + size > self._row.frame_bytes:
            return b""
        chunk = self._row.chunk_bytes
        first, last = offset // chunk, (offset + size - 1) // chunk
        gap = CRC_BYTES
        found = os.pread(self._file, size + (last - first) * gap, offset + first * gap)
        if first == last:
            return found
        head = chunk - offset % chunk
        starts = range(head + gap, len(found), chunk + gap)
        return b"".join([found[:head], *(found[start : start + chunk] for start in starts)])
