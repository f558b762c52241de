"""Where episodes lie: the small interface behind which memory and disk look the same to the store."""

from collections.abc import Callable, Sequence
from typing import Protocol

from qtopt.replay.condition import StoreCondition
from qtopt.replay.growable import Growable
from qtopt.replay.index import IndexEntries
from qtopt.replay.record import EpisodeRow, Record
from qtopt.replay.schema import STEP_DTYPE, Rows
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


class Tail:
    """The rows of the newest episodes, in memory, by position; one thread at a time writes, any number read."""

    def __init__(self, base: int = 0) -> None:
        self._state = (base, Growable(STEP_DTYPE))

    @property
    def base(self) -> int:
        """Position of the first row held."""
        return self._state[0]

    @property
    def end(self) -> int:
        """Position behind the last row held."""
        base, rows = self._state
        return base + len(rows)

    def extend(self, rows: Rows) -> None:
        """Adds rows at the end."""
        self._state[1].extend(rows)

    def between(self, start: int, stop: int) -> Rows:
        """Returns the rows from ``start`` up to ``stop``, not a copy."""
        base, rows = self._state
        return rows.view[start - base : stop - base]

    def take(self, positions: IntArray) -> Rows | None:
        """Returns a copy of the rows at ``positions``; None when one of them has just moved on."""
        base, rows = self._state
        if len(positions) and positions.min() < base:
            return None
        return rows.view[positions - base]

    def drop_before(self, position: int) -> None:
        """Forgets the rows before ``position``."""
        base, rows = self._state
        kept = Growable(STEP_DTYPE)
        kept.extend(rows.view[position - base :])
        self._state = (position, kept)
