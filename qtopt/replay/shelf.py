"""Where episodes lie: the small interface behind which memory and disk look the same to the store."""

from collections.abc import Callable, Sequence
from typing import Protocol

from qtopt.replay.condition import StoreCondition
from qtopt.replay.index import IndexEntries
from qtopt.replay.record import EpisodeRow, Record
from qtopt.replay.schema import Rows
from qtopt.types import IntArray

Publish = Callable[[IndexEntries], None]
"""Told of episodes that are stored, in order of position, before their ``append`` returns."""


class Damaged(Exception):
    """Raised on reading: what lies at ``positions`` does not match its checksums or cannot be read."""

    def __init__(self, positions: Sequence[int], reason: str) -> None:
        super().__init__(reason)
        self.positions = list(positions)
        self.reason = reason


class Retired(Damaged):
    """Raised on reading: what lay at ``positions`` was given up on purpose in the meantime."""


class Shelf(Protocol):
    """Keeps episodes by position. Every method may be called by several threads at a time."""

    def add(self, record: Record) -> bool:
        """Stores a record; returns False when it is there already. Raises EpisodeConflict, StoreFull, StoreError."""
        ...

    def rows(self, positions: IntArray) -> Rows:
        """Returns rows of the step table, (B,); raises Damaged."""
        ...

    def frames(self, positions: IntArray, rows: Rows) -> list[bytes]:
        """Returns the encoded frames of ``rows``, which lie at ``positions``, checked; raises Damaged."""
        ...

    def episode(self, key: str | int) -> EpisodeRow:
        """Returns the episode with a UUID or a first position; raises UnknownEpisode when there is none."""
        ...

    def quarantine(self, first_positions: Sequence[int], reason: str) -> None:
        """Marks episodes as damaged for good."""
        ...

    def figures(self) -> dict[str, float]:
        """Returns what this shelf has to say about itself."""
        ...

    def condition(self) -> StoreCondition:
        """Returns whether a record added now would be stored."""
        ...

    def close(self) -> None:
        """Finishes what was begun and frees files and threads."""
        ...
