"""Which sealed segments there are and where each position lies; replaced as a whole when it changes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from qtopt.replay.catalogue import SegmentRow
from qtopt.types import BoolArray, IntArray


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

    def by_segment(self, positions: IntArray, sealed: BoolArray) -> Iterator[tuple[SegmentRow, IntArray]]:
        """Yields each segment that holds some of the positions that are sealed, with their indices."""
        indices = np.flatnonzero(sealed)
        numbers = np.searchsorted(self.starts, positions[indices], side="right") - 1
        order = np.argsort(numbers, kind="stable")
        indices, numbers = indices[order], numbers[order]
        changes = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()  # where another segment begins
        for start, stop in pairwise([*changes, len(indices)]):
            yield self.segments[int(numbers[start])], indices[start:stop]
