"""Which sealed segments there are and where each position lies; replaced as a whole when it changes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qtopt.replay.catalogue import SegmentRow
from qtopt.types import IntArray


@dataclass(frozen=True, slots=True)
class Layout:
    """The sealed segments, which follow one another without gaps.

    Attributes:
        segments: in order of position.
        starts: first position of each, int64.
        end: position behind the last.
    """

    segments: tuple[SegmentRow, ...]
    starts: IntArray
    end: int

    @classmethod
    def of(cls, segments: Sequence[SegmentRow]) -> "Layout":
        """Returns the layout of segments given in order of position."""
        starts = np.array([row.first_position for row in segments], np.int64)
        end = segments[-1].first_position + segments[-1].rows if segments else 0
        return cls(tuple(segments), starts, end)

    @property
    def base(self) -> int:
        """First position that is kept; those before it were retired."""
        return self.segments[0].first_position if self.segments else 0

    @property
    def next_number(self) -> int:
        """Number of the next segment."""
        return max((row.number for row in self.segments), default=-1) + 1

    def segment_at(self, position: int) -> SegmentRow:
        """Returns the segment of a position from ``base`` up to ``end``."""
        return self.segments[int(np.searchsorted(self.starts, position, side="right")) - 1]

    def numbers(self, positions: IntArray) -> IntArray:
        """Returns where in ``segments`` that of each position is, int64 (B,); -1 for what is not sealed."""
        return np.where(positions < self.end, np.searchsorted(self.starts, positions, side="right") - 1, -1)
