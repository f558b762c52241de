"""Which of the oldest segments are given up: by size, by age, by the policy that acted."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qtopt.config import STRICT
from qtopt.errors import ConfigError
from qtopt.replay.catalogue import Catalogue, SegmentRow


@dataclass(frozen=True)
class RetentionConfig:
    """How much of the past is kept; 0 sets no limit.

    Segments go whole and oldest first, up to the first one that every limit allows. The newest segment and what is not
    sealed always stay.

    Attributes:
        max_gb: sealed frames kept [GB].
        max_age_h: a segment goes when it was sealed longer ago than this [h].
        max_versions: a segment goes when the newest policy that acted in it is more than this many versions older than
            the newest in the store.
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
        self._newest_policy: dict[int, int] = {}  # of segments, which never change

    def among(self, segments: Sequence[SegmentRow], directories: Sequence[Path]) -> list[SegmentRow]:
        """Returns the segments, oldest first, that have to go; ``directories`` are theirs."""
        if self._config.unlimited or len(segments) < 2:
            return []
        excess = sum(row.frame_bytes for row in segments) - self._config.max_gb * 1e9
        oldest_policy = self._catalogue.newest_policy(segments[-1].first_position) - self._config.max_versions
        leaving: list[SegmentRow] = []
        for row, directory in zip(segments[:-1], directories, strict=False):
            too_much = self._config.max_gb > 0 and excess > 0
            too_old = self._config.max_age_h > 0 and _age_s(directory) > self._config.max_age_h * 3600
            outdated = self._config.max_versions > 0 and self._policy(row) < oldest_policy
            if not (too_much or too_old or outdated):
                break
            leaving.append(row)
            excess -= row.frame_bytes
        return leaving

    def _policy(self, row: SegmentRow) -> int:
        if row.number not in self._newest_policy:
            newest = self._catalogue.newest_policy(row.first_position, row.first_position + row.rows)
            self._newest_policy[row.number] = newest
        return self._newest_policy[row.number]


def _age_s(directory: Path) -> float:
    """Returns how long ago a segment was sealed [s]; 0 when that cannot be told."""
    try:
        return time.time() - (directory / "zarr.json").stat().st_mtime
    except OSError:
        return 0.0
