"""Figures that every role reports: success with an interval, rates over a sliding window, shares of time."""

import collections
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share of successes with its 95 % Wilson interval.

    Attributes:
        successes: trials that succeeded.
        trials: trials in all.
        low: lower end of the interval, in [0, 1].
        high: upper end of the interval, in [0, 1].
    """

    successes: int
    trials: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """Successes over trials; NaN without trials."""
        return self.successes / self.trials if self.trials else math.nan

    def __str__(self) -> str:
        if not self.trials:
            return "-"
        return f"{100 * self.rate:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] of {self.trials}"


def wilson(successes: int, trials: int, z: float = 1.959964) -> Proportion:
    """Returns ``successes`` of ``trials`` with the Wilson score interval (95 % by default; [0, 1] without trials)."""
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials: expected 0 <= successes <= trials")
    if trials == 0:
        return Proportion(0, 0, 0.0, 1.0)
    rate = successes / trials
    scale = 1.0 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else centre - half  # exact at the ends, where rounding would leave them
    high = 1.0 if successes == trials else centre + half
    return Proportion(successes, trials, low, high)


class Rate:
    """Events per second over the last ``window_s`` seconds.

    Usage::

        rate.add(64)
        rate.per_s()
    """

    def __init__(self, window_s: float = 30.0, clock: Clock = time.monotonic) -> None:
        self._window_s, self._clock = window_s, clock
        self._started = clock()
        self._events: collections.deque[tuple[float, float]] = collections.deque()
        self._sum = 0.0
        self.total = 0.0

    def add(self, count: float = 1.0) -> None:
        """Counts ``count`` events that happened now."""
        self._events.append((self._clock(), count))
        self._sum += count
        self.total += count

    def per_s(self) -> float:
        """Returns the events per second [1/s] of the window, or since the start while that is shorter."""
        now = self._clock()
        while self._events and self._events[0][0] < now - self._window_s:
            self._sum -= self._events.popleft()[1]
        return self._sum / max(1e-3, min(self._window_s, now - self._started))


class Recent:
    """The mean of the last ``size`` values; NaN before the first."""

    def __init__(self, size: int = 200) -> None:
        self._values: collections.deque[float] = collections.deque(maxlen=size)

    def add(self, value: float) -> None:
        """Takes a value, forgetting the oldest when full."""
        self._values.append(value)

    def mean(self) -> float:
        """Returns the mean."""
        return sum(self._values) / len(self._values) if self._values else math.nan

    def __len__(self) -> int:
        return len(self._values)


class Every:
    """Says when a period has passed; the first time after one period, or at once with ``at_once``."""

    def __init__(self, period_s: float, *, at_once: bool = False, clock: Clock = time.monotonic) -> None:
        self._period_s, self._clock = period_s, clock
        self._due = clock() + (0.0 if at_once else period_s)

    def due(self) -> bool:
        """Returns True at most once per period."""
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + self._period_s
        return True
