"""Motions as goals from tick to tick: a straight line, a joint motion, a stream of targets. No I/O."""

import math
from collections.abc import Callable
from typing import Protocol

from robot_bridge.drivers.so101_geometry import Geometry, Joints, Tool, inverse

Reach = Callable[[Joints], bool]


class Motion(Protocol):
    """Something that gives the next joints; done when it gives None."""

    def step(self, dt_s: float) -> Joints | None:
        """Returns the goal ``dt_s`` later; None at the end."""
        ...

    def brake(self, decel_m_s2: float) -> None:
        """From now on slows down on its own path until it ends."""
        ...


class Profile:
    """Path parameter 0 to 1 with a trapezoidal speed, and a brake that stays on the path.

    Args:
        speed: of the parameter, per second.
        accel: of the parameter, per second squared.
    """

    def __init__(self, speed: float, accel: float) -> None:
        self._top, self._accel = speed, accel
        self._speed = self.position = 0.0
        self._decel: float | None = None

    def advance(self, dt_s: float) -> bool:
        """Goes on by ``dt_s``; False once it stands, at the end or braked."""
        if self._decel is not None:
            self._speed = max(0.0, self._speed - self._decel * dt_s)
        else:
            # Fast enough that it can still brake before the end, and never so slow that it does not arrive.
            allowed = math.sqrt(2 * self._accel * max(0.0, 1.0 - self.position))
            self._speed = max(min(self._speed + self._accel * dt_s, self._top, allowed), self._accel * dt_s * 0.5)
        self.position = min(1.0, self.position + self._speed * dt_s)
        return self._speed > 0.0 and self.position < 1.0

    def brake(self, decel: float) -> None:
        """Slows down by ``decel`` (of the parameter, per second squared) until it stands."""
        self._decel = max(decel, self._decel or 0.0)


class LineMotion:
    """A straight line of the vertical tool, turning evenly on the way."""

    def __init__(
        self, geometry: Geometry, start: Tool, end: Tool, speed_m_s: float, accel_m_s2: float, yaw_rate: float
    ) -> None:
        self._geometry, self._start = geometry, start
        self._turn = math.remainder(end.yaw_rad - start.yaw_rad, 2 * math.pi)
        self._way = (end.x_m - start.x_m, end.y_m - start.y_m, end.z_m - start.z_m)
        self.length_m = math.hypot(*self._way)
        size = max(self.length_m / speed_m_s, abs(self._turn) / yaw_rate, 1e-3)
        self._per_s = 1.0 / size
        self._profile = Profile(self._per_s, self._per_s * accel_m_s2 / speed_m_s)
        self._speed_m_s, self._roll, self._ended = speed_m_s, 0.0, False

    def check(self, reach: Reach, roll_rad: float, ticks: int = 60) -> str:
        """Returns why the line cannot be gone, in words; empty where it can. Fixes the roll's branch."""
        self._roll = roll_rad
        for tick in range(ticks + 1):
            tool = self._at(tick / ticks)
            joints = inverse(self._geometry, tool, self._roll)
            where = f"({tool.x_m:.3f}, {tool.y_m:.3f}, {tool.z_m:.3f}) m, azimuth {tool.yaw_rad:.2f} rad"
            if joints is None:
                return f"{where} is out of the arm's reach with the tool vertical"
            if not reach(joints):
                return f"{where} needs a joint beyond its limits"
        return ""

    def step(self, dt_s: float) -> Joints | None:
        """Returns the next joints; None at the end."""
        if self._ended:
            return None
        self._ended = not self._profile.advance(dt_s)
        return inverse(self._geometry, self._at(self._profile.position), self._roll)

    def brake(self, decel_m_s2: float) -> None:
        """Slows down on the line."""
        self._profile.brake(self._per_s * decel_m_s2 / self._speed_m_s)

    def _at(self, part: float) -> Tool:
        x, y, z = self._way
        start = self._start
        return Tool(start.x_m + part * x, start.y_m + part * y, start.z_m + part * z, start.yaw_rad + part * self._turn)


class JointMotion:
    """All joints from where they are to a target, arriving together."""

    def __init__(self, start: Joints, end: Joints, speed_rad_s: float) -> None:
        self._start, self._end = start, end
        largest = max(abs(b - a) for a, b in zip(start, end, strict=True))
        self._per_s = speed_rad_s / max(largest, 1e-3)
        self._profile = Profile(self._per_s, 4.0 * self._per_s)
        self._ended = False

    def step(self, dt_s: float) -> Joints | None:
        """Returns the next joints; None at the end."""
        if self._ended:
            return None
        self._ended = not self._profile.advance(dt_s)
        part = self._profile.position
        a, b, c, d, e = (at + part * (to - at) for at, to in zip(self._start, self._end, strict=True))
        return a, b, c, d, e

    def brake(self, decel_m_s2: float) -> None:
        """Slows down within a quarter of a second; harder for more than 1 m/s2."""
        self._profile.brake(4.0 * self._per_s * max(1.0, decel_m_s2))


class StreamMotion:
    """Follows the newest target at a limited speed; ends when none came in time."""

    def __init__(self, geometry: Geometry, start: Tool, roll_rad: float, speed_m_s: float, yaw_rate: float) -> None:
        self._geometry, self._tool, self._roll = geometry, start, roll_rad
        self._speed_m_s, self._yaw_rate = speed_m_s, yaw_rate
        self._target, self._left_s = start, 0.0

    def aim(self, target: Tool, valid_for_s: float) -> None:
        """Takes a new target."""
        self._target, self._left_s = target, valid_for_s

    def step(self, dt_s: float) -> Joints | None:
        """Returns the next joints; None when the target has grown too old."""
        self._left_s -= dt_s
        if self._left_s < 0.0:
            return None
        now, to = self._tool, self._target
        way = (to.x_m - now.x_m, to.y_m - now.y_m, to.z_m - now.z_m)
        part = min(1.0, self._speed_m_s * dt_s / max(math.hypot(*way), 1e-9))
        turn = math.remainder(to.yaw_rad - now.yaw_rad, 2 * math.pi)
        turn = max(-self._yaw_rate * dt_s, min(self._yaw_rate * dt_s, turn))
        moved = Tool(now.x_m + part * way[0], now.y_m + part * way[1], now.z_m + part * way[2], now.yaw_rad + turn)
        joints = inverse(self._geometry, moved, self._roll)
        if joints is not None:
            self._tool = moved
        return joints

    def brake(self, decel_m_s2: float) -> None:
        """Ends at once: its targets are a tick apart."""
        self._left_s = 0.0
