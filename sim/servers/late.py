"""A link on which everything comes late, by as much as chance wants, and in its order, as over TCP."""

import random
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Late(Generic[T]):
    """Holds back what goes through it.

    Args:
        seed: of the delays.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = random.Random(seed)
        self._waiting: deque[tuple[float, T]] = deque()

    def through(self, thing: T, now_s: float, most_s: float) -> list[T]:
        """Takes a thing in, which is to come out within ``most_s``, and returns what is due."""
        due_s = now_s + self._rng.uniform(0.0, most_s)
        if self._waiting:
            due_s = max(due_s, self._waiting[-1][0])
        self._waiting.append((due_s, thing))
        due = []
        while self._waiting and self._waiting[0][0] <= now_s:
            due.append(self._waiting.popleft()[1])
        return due
