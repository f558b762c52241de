"""When a protective stop may be cleared without a person: rarely, late, gently, and never twice in one place."""

import math
from collections.abc import Sequence

from robot_bridge.contracts import ArmState
from robot_bridge.safety.limits import RecoveryLimits
from robot_bridge.safety.region import Point

_HOUR_NS = 3600 * 10**9


class Recovery:
    """Remembers the protective stops of the last hour.

    Args:
        limits: the conditions.
        stops: those that earlier processes cleared: when, by this process's monotonic clock [ns], and where [m].
    """

    def __init__(self, limits: RecoveryLimits, stops: Sequence[tuple[int, Point]] = ()) -> None:
        self._limits = limits
        self._stops = list(stops)

    def note(self, place_m: Point, now_ns: int) -> str:
        """Notes a new stop; returns why a person has to look at it, or nothing where that is not needed."""
        recent = [stop for stop in self._stops if now_ns - stop[0] < _HOUR_NS]
        self._stops = [*recent, (now_ns, place_m)]
        if not self._limits.auto_recover:
            return "auto_recover is off"
        if len(recent) >= self._limits.per_hour:
            return f"it is number {len(recent) + 1} within an hour"
        if any(math.dist(place_m, where) <= self._limits.same_place_m for _, where in recent):
            return "the arm was stopped in the same place before"
        return ""

    def obstacle(self, state: ArmState, now_ns: int) -> str:
        """Returns what still forbids clearing the last stop; nothing where it may be cleared."""
        waited_s = (now_ns - self._stops[-1][0]) * 1e-9
        if waited_s < self._limits.wait_s:
            return f"{waited_s:.1f} s since the stop, {self._limits.wait_s:.0f} s must pass"
        if not state.force_n < self._limits.force_n:
            return f"{state.force_n:.0f} N press on the tool, expected less than {self._limits.force_n:.0f} N"
        return ""
