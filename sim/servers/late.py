"""A link on which everything comes late, by as much as chance wants, and in its order, as over TCP."""

import random
from collections import deque
from typing import Final, Generic, TypeVar

T = TypeVar("T")
MOST_S: Final = 0.2


class Late(Generic[T]):
    """Holds back what goes through it.

    Args:
        seed: of the delays.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = random.Random(seed)
        self._waiting: deque[tuple[float, T]] = deque()

    def through(self, thing: T, now_s: float, *, late: bool) -> list[T]:
        """Takes a thing in and returns what is due: at once, or up to ``MOST_S`` later where that is asked for."""
        due_s = now_s + (self._rng.uniform(0.0, MOST_S) if late else 0.0)
        if self._waiting:
            due_s = max(due_s, self._waiting[-1][0])
        self._waiting.append((due_s, thing))
        due = []
        while self._waiting and self._waiting[0][0] <= now_s:
            due.append(self._waiting.popleft()[1])
        return due
