"""What can be sampled, in memory: 13 bytes an episode, 4 a row and 4 a transition that may be drawn.

Transitions are grouped by success and by offline or online. Drawing one and saying what it is are a look-up each, not a
search: in a large store each step of a search reads memory that no cache holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qtopt.replay.growable import Growable
from qtopt.replay.record import EpisodeRow
from qtopt.types import BoolArray, EpisodeEnd, IntArray, Outcome, UInt8Array

SUCCESS, OFFLINE, TRAINABLE, DEAD, TRUNCATED = 1, 2, 4, 8, 16
GROUPS = 4
"""Group number: ``SUCCESS`` bit plus ``OFFLINE`` bit."""
_FLAG_BITS = 8
_NO_TRANSITION = -1 << _FLAG_BITS
"""A row of no episode: no flags, and no action follows."""

_OF_OUTCOME = np.full(256, TRAINABLE, np.uint8)
_OF_OUTCOME[[Outcome.ABORTED, Outcome.UNKNOWN]] = 0
_OF_OUTCOME[Outcome.SUCCESS] |= SUCCESS


@dataclass(frozen=True, slots=True)
class IndexEntries:
    """What the index has to know of N episodes, in order of position; each (N,).

    Attributes:
        first_position: int64.
        length: actions, integers.
        end: ``EpisodeEnd``, uint8.
        outcome: ``Outcome``, uint8.
        offline: bool.
        quarantined: bool.
    """

    first_position: IntArray
    length: npt.NDArray[np.integer[Any]]
    end: UInt8Array
    outcome: UInt8Array
    offline: BoolArray
    quarantined: BoolArray

    @classmethod
    def of(cls, rows: Sequence[EpisodeRow]) -> "IndexEntries":
        """Returns the entries of rows of the episode table."""
        return cls(
            np.array([row.first_position for row in rows], np.int64),
            np.array([row.length for row in rows], np.int32),
            np.array([row.end for row in rows], np.uint8),
            np.array([row.outcome for row in rows], np.uint8),
            np.array([row.offline for row in rows], np.bool_),
            np.array([row.quarantined is not None for row in rows], np.bool_),
        )

    def __len__(self) -> int:
        return len(self.first_position)

    def flags(self) -> UInt8Array:
        """Returns the flags of each episode, uint8."""
        flags = _OF_OUTCOME[self.outcome]
        flags[self.offline] |= OFFLINE
        flags[self.quarantined] |= DEAD
        flags[self.end == EpisodeEnd.TRUNCATED] |= TRUNCATED
        return flags


class EpisodeIndex:
    """The episodes of a store in order of position. Not safe for several threads: its owner holds a lock."""

    def __init__(self) -> None:
        self._start = Growable(np.int64)
        self._length = Growable(np.int32)
        self._flags = Growable(np.uint8)
        self._base = 0  # position of the first row
        self._rows = Growable(np.int32)  # how many actions follow in the episode, and its flags below
        self._groups = [Growable(np.int32) for _ in range(GROUPS)]  # rows that may be drawn, ascending

    def __len__(self) -> int:
        return len(self._start)

    def extend(self, entries: IndexEntries) -> None:
        """Adds episodes, in ascending order of position and behind all that are there."""
        first = len(self)
        self._start.extend(entries.first_position)
        self._length.extend(entries.length)
        self._flags.extend(entries.flags())
        self._enter(first)

    def drop_before(self, position: int) -> None:
        """Forgets the episodes that begin before ``position``."""
        count = int(np.searchsorted(self._start.view, position))
        if not count:
            return
        for column in (self._start, self._length, self._flags):
            column.drop_first(count)
        gone = int(self._start.view[0]) - self._base if len(self) else len(self._rows)
        self._base += gone
        self._rows.drop_first(gone)
        self._groups = [_numbers(group.view[group.view >= gone] - gone) for group in self._groups]

    def _enter(self, first: int) -> None:
        """Takes the rows of the episodes from the number ``first`` on."""
        start, length = self._start.view[first:], self._length.view[first:]
        if not len(start):
            return
        if not len(self._rows):
            self._base = int(start[0])
        begin = len(self._rows)
        rows = length + 1
        step = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
        facts = (np.repeat(length, rows) - 1 - step << _FLAG_BITS) + np.repeat(self._flags.view[first:], rows)
        added = np.full(start[-1] + rows[-1] - self._base - begin, _NO_TRANSITION, np.int32)
        added[np.repeat(start - self._base - begin, rows) + step] = facts  # a rebuilt catalogue may have gaps
        self._rows.extend(added)
        live = _live(added)
        for number, group in enumerate(self._groups):
            group.extend(begin + np.flatnonzero(live & (added & (SUCCESS | OFFLINE) == number)))

    def kill(self, positions: IntArray) -> list[int]:
        """Takes the episodes that hold ``positions`` out; returns the first positions of those that were alive."""
        episodes = np.unique(self.episode_of(positions))
        episodes = episodes[episodes >= 0]
        episodes = episodes[self._flags.view[episodes] & DEAD == 0]
        self._flags.view[episodes] |= DEAD
        starts: list[int] = self._start.view[episodes].tolist()
        for start, length in zip(starts, self._length.view[episodes].tolist(), strict=True):
            self._rows.view[start - self._base :][: length + 1] |= DEAD
        for number in set((self._flags.view[episodes] & (SUCCESS | OFFLINE)).tolist()):
            group = self._groups[number].view
            self._groups[number] = _numbers(group[_live(self._rows.view[group])])
        return starts

    def episode_of(self, positions: IntArray) -> IntArray:
        """Returns which episode holds each row, int64 (B,); -1 where there is none."""
        episodes = np.searchsorted(self._start.view, positions, side="right") - 1
        if not len(self):
            return np.full(len(positions), -1)
        inside = (episodes >= 0) & (positions <= self._start.view[episodes] + self._length.view[episodes])
        return np.where(inside, episodes, -1)

    def usable(self, positions: IntArray) -> BoolArray:
        """Whether each position is a transition of a live trainable episode, bool (B,)."""
        rows = positions - self._base
        inside = (rows >= 0) & (rows < len(self._rows))
        usable = np.zeros(len(positions), np.bool_)
        usable[inside] = _live(self._rows.view[rows[inside]])
        return usable

    def describe(self, positions: IntArray) -> tuple[BoolArray, IntArray, BoolArray]:
        """Returns success (bool), steps_left (int64) and truncated (bool) of transitions, each (B,).

        ``steps_left`` counts the actions that follow in the episode, 0 for its last; ``truncated`` is True where the
        step limit ended the episode.
        """
        facts = self._rows.view[positions - self._base]
        return facts & SUCCESS > 0, (facts >> _FLAG_BITS).astype(np.int64), facts & TRUNCATED > 0

    def group_transitions(self) -> IntArray:
        """Returns how many transitions may be sampled from each group, int64 (GROUPS,)."""
        return np.array([len(group) for group in self._groups], np.int64)

    def locate(self, group: int, ordinals: IntArray) -> IntArray:
        """Returns the positions of a group's transitions by their number within it, oldest first; int64 (B,)."""
        return np.asarray(self._base + self._groups[group].view[ordinals].astype(np.int64))

    def starts(self) -> IntArray:
        """Returns the first position of every episode, int64, a copy."""
        return self._start.view.copy()

    def figures(self) -> dict[str, float]:
        """Returns counts by kind: of episodes, quarantined ones included, and of transitions that may be drawn."""
        flags = self._flags.view
        groups = self.group_transitions()
        return {
            "episodes": float(len(self)),
            "steps": float(self._length.view.sum()),
            "successes": float(np.count_nonzero(flags & SUCCESS)),
            "quarantined": float(np.count_nonzero(flags & DEAD)),
            "transitions": float(groups.sum()),
            "transitions_success": float(groups[SUCCESS] + groups[SUCCESS | OFFLINE]),
            "transitions_offline": float(groups[OFFLINE] + groups[SUCCESS | OFFLINE]),
        }


def _live(facts: npt.NDArray[np.int32]) -> BoolArray:
    """Whether each row is a transition of a live trainable episode, bool (B,)."""
    return np.asarray((facts >= 0) & (facts & (TRAINABLE | DEAD) == TRAINABLE))


def _numbers(values: npt.NDArray[np.int32]) -> Growable:
    numbers = Growable(np.int32, max(1, len(values)))
    numbers.extend(values)
    return numbers
