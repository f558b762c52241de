"""Which reports a controller owes: one for each period of the arm's own time, however irregularly it is looked at."""

import math
from collections.abc import Sequence
from dataclasses import replace

from sim.servers.xarm_frames import Snapshot

_MOST_OWED = 25
_YAW = 5


class Samples:
    """Makes snapshots at even times out of snapshots at uneven ones.

    Args:
        period_s: between reports.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._before: Snapshot | None = None

    def take(self, now: Snapshot) -> list[Snapshot]:
        """Returns what is to be reported, the oldest first.

        Where no time has passed since the last look it is the newest state all the same: a controller whose arm is
        held up goes on reporting.
        """
        before, self._before = self._before, now
        if before is None or now.time_s <= before.time_s:
            return [now]
        first, last = (math.floor(each.time_s / self._period_s) for each in (before, now))
        owed = range(max(first, last - _MOST_OWED) + 1, last + 1)
        passed_s = now.time_s - before.time_s
        return [_between(before, now, (count * self._period_s - before.time_s) / passed_s) for count in owed]


def _between(before: Snapshot, now: Snapshot, share: float) -> Snapshot:
    yaw = before.pose[_YAW] + share * math.remainder(now.pose[_YAW] - before.pose[_YAW], 2 * math.pi)
    return replace(
        now,
        pose=(*_mixed(before.pose, now.pose, share)[:_YAW], yaw),
        joints_rad=_mixed(before.joints_rad, now.joints_rad, share),
        torques_nm=_mixed(before.torques_nm, now.torques_nm, share),
    )


def _mixed(before: Sequence[float], now: Sequence[float], share: float) -> tuple[float, ...]:
    return tuple(a + share * (b - a) for a, b in zip(before, now, strict=True))
