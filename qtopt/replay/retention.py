"""Which of the oldest segments are given up: by size, by age, by the policies that acted since.

One episode with a wrong policy version, and a clock that is set, must not empty a store. So versions are counted, not
compared; ages go by the clock as it was when the store was opened; and what goes at a time by either may be bounded.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from qtopt.config import STRICT
from qtopt.errors import ConfigError
from qtopt.replay.catalogue import Catalogue, SegmentRow
from qtopt.replay.segment_files import segment_size

_log = structlog.get_logger(__name__)

_CLOCK_SET_S: Final = 60.0
"""A clock that is off by more than this was set, or the machine slept."""


@dataclass(frozen=True)
class RetentionConfig:
    """How much of the past is kept; 0 sets no limit.

    Segments go whole and oldest first, up to the first one that every limit allows. The newest segment and what is not
    sealed always stay. A server gives up no more than a tenth of the segments, or one, at a time by age and version:
    once a minute. What there is no room for by ``max_gb`` goes after each seal too. It warns when there would be more.

    Attributes:
        max_gb: what sealed segments take on the disk, with the catalogue's copy of their metadata [GB].
        max_age_h: a segment goes when it was sealed longer ago than this [h], by the clock as it was when the store was
            opened: one that is set, or a machine that sleeps, is told and makes nothing older.
        max_versions: a segment goes when more policy versions than this acted in what came after it. Each counts once
            whatever its number; offline episodes, in which no network acted or which are marked so, do not count.
    """

    __pydantic_config__ = STRICT

    max_gb: float = 0.0
    max_age_h: float = 0.0
    max_versions: int = 0

    def __post_init__(self) -> None:
        if min(self.max_gb, self.max_age_h, self.max_versions) < 0:
            raise ConfigError(
                f"retention: max_gb {self.max_gb}, max_age_h {self.max_age_h} and max_versions {self.max_versions} "
                "must not be negative"
            )

    @property
    def unlimited(self) -> bool:
        """Whether everything is kept."""
        return not (self.max_gb or self.max_age_h or self.max_versions)


class Overdue:
    """Judges the segments of a store.

    Args:
        config: the limits.
        catalogue: of the store.
    """

    def __init__(self, config: RetentionConfig, catalogue: Catalogue) -> None:
        self._config = config
        self._catalogue = catalogue
        self._clock = _Clock()
        self._policies: dict[int, set[int]] = {}  # of segments, which never change
        self._sizes: dict[int, int] = {}

    def among(self, segments: Sequence[SegmentRow], directories: Sequence[Path], share: float) -> list[SegmentRow]:
        """Returns the segments, oldest first, that have to go now.

        Args:
            segments: all, in order of position.
            directories: theirs.
            share: of all segments that may go, or one, but for those that ``max_gb`` leaves no room; 0: those alone.
        """
        if self._config.unlimited or len(segments) < 2:
            return []
        sizes = list(map(self._size_of, segments, directories)) if self._config.max_gb else [0] * len(segments)
        excess = sum(sizes) - self._config.max_gb * 1e9
        outdated = self._outdated(segments)
        now_s = self._clock.now_s() if self._config.max_age_h else 0.0
        leaving: list[SegmentRow] = []
        by_size = by_age = 0
        for row, directory, size in zip(segments[:-1], directories, sizes, strict=False):
            too_much = self._config.max_gb > 0 and excess > 0
            too_old = self._config.max_age_h > 0 and _age_s(directory, now_s) > self._config.max_age_h * 3600
            if not (too_much or too_old or len(leaving) < outdated):
                break
            leaving.append(row)
            by_size, by_age = by_size + too_much, by_age + too_old
            excess -= size
        allowed = max(by_size, int(share > 0), int(share * len(segments)))
        if share and len(leaving) > allowed:
            _log.warning(
                "more segments are beyond retention's limits than are given up at a time; where nobody changed these, "
                "see the clock and the policy versions of the newest episodes, and stop the server to keep the rest",
                segments=len(segments),
                by_age=by_age,
                by_versions=outdated,
                given_up_now=allowed,
            )
        for row in leaving[:allowed]:
            self._policies.pop(row.number, None)
            self._sizes.pop(row.number, None)
        return leaving[:allowed]

    def _outdated(self, segments: Sequence[SegmentRow]) -> int:
        """Returns how many of the oldest segments have too many policy versions behind them."""
        limit = self._config.max_versions
        if not limit:
            return 0
        behind = self._catalogue.policies(segments[-1].first_position)
        for number in range(len(segments) - 1, 0, -1):
            if len(behind) > limit:
                return number
            behind |= self._policies_of(segments[number - 1])
        return 0

    def _policies_of(self, row: SegmentRow) -> set[int]:
        if row.number not in self._policies:
            self._policies[row.number] = self._catalogue.policies(row.first_position, row.first_position + row.rows)
        return self._policies[row.number]

    def _size_of(self, row: SegmentRow, directory: Path) -> int:
        if row.number not in self._sizes:
            try:
                self._sizes[row.number] = segment_size(directory)
            except OSError:
                return row.frame_bytes  # asked again the next time
        return self._sizes[row.number]


class _Clock:
    """The wall clock, but for its being set after this was made."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()
        self._told_s = 0.0

    def now_s(self) -> float:
        """Returns the time since the epoch [s]; warns once when the clock was set."""
        now_s = time.monotonic() + self._offset_s
        set_by_s = time.time() - now_s
        if abs(set_by_s - self._told_s) > _CLOCK_SET_S:
            self._told_s = set_by_s
            _log.warning(
                "the clock was set since the store was opened, or the machine slept; segments age as if not: open the "
                "store again if the clock is right now",
                set_by_s=round(set_by_s),
            )
        return now_s


def _age_s(directory: Path, now_s: float) -> float:
    """Returns how long ago a segment was sealed [s]; 0 when that cannot be told."""
    try:
        return now_s - (directory / "zarr.json").stat().st_mtime
    except OSError:
        return 0.0
