"""The sixth servo of an SO-101 as a gripper: it closes until it stands, and does not go on pushing."""

import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from qtopt.config import STRICT
from qtopt.errors import RobotError
from robot_bridge.contracts import Capability, GripperState, ObjectSensed
from robot_bridge.drivers.bounds import require_within
from robot_bridge.drivers.so101_loop import BusLoop, Reading
from robot_bridge.drivers.so101_options import JawCalibration

AT_GOAL_STEPS: Final = 25
STILL_S: Final = 0.2
START_S: Final = 0.3


@dataclass(frozen=True)
class So101GripperOptions:
    """How the jaws behave.

    Attributes:
        squeeze_steps: how far beyond the object's surface the goal stays, which makes the holding force.
    """

    __pydantic_config__ = STRICT

    squeeze_steps: int = 60

    def __post_init__(self) -> None:
        require_within(self, {"squeeze_steps": (0, 300)})


class So101Gripper:
    """Satisfies ``robot_bridge.contracts.Gripper``; the force asked for is not honoured, only the torque limit is."""

    def __init__(self, options: So101GripperOptions, loop: BusLoop, jaw: JawCalibration) -> None:
        self._options, self._loop, self._jaw = options, loop, jaw
        self._sensed = ObjectSensed.UNKNOWN
        self._moving = False

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Width, and whether the jaws stopped short; no force."""
        return frozenset({Capability.GRIPPER_WIDTH, Capability.GRIPPER_OBJECT_FLAG})

    @property
    def width_range_m(self) -> tuple[float, float]:
        """Closed to wide open, as calibrated."""
        return 0.0, self._jaw.open_width_m

    def connect(self, deadline_s: float) -> None:
        """Does nothing but read: the arm has connected the bus."""
        self.state()

    def activate(self, deadline_s: float) -> None:
        """Does nothing: the servo holds since the arm connected."""

    def move(self, width_m: float, speed_m_s: float, force_n: float, deadline_s: float) -> GripperState:
        """Moves the jaws at the servo's speed limit until they are there or stand; raises RobotError."""
        goal, start = self._jaw.steps(width_m), self._reading()
        self._loop.set_gripper(goal)
        self._moving, self._sensed = True, ObjectSensed.UNKNOWN
        try:
            stood = self._wait(goal, time.monotonic() + deadline_s)
        finally:
            self._moving = False
        short = abs(stood.steps[5] - goal) > AT_GOAL_STEPS
        closing = abs(goal - self._jaw.closed_steps) < abs(start.steps[5] - self._jaw.closed_steps)
        if short and closing:
            towards = 1 if self._jaw.closed_steps > self._jaw.open_steps else -1
            self._loop.set_gripper(
                stood.steps[5] + towards * min(self._options.squeeze_steps, abs(goal - stood.steps[5]))
            )
        elif short:
            self._loop.set_gripper(stood.steps[5])
            raise RobotError(
                f"the jaws stand at {self._width(stood):.3f} m, expected {width_m:.3f} m: blocked from opening"
            )
        self._sensed = ObjectSensed.YES if short else ObjectSensed.NO
        return self.state()

    def state(self) -> GripperState:
        """Returns the newest report; raises RobotError if the bus is lost or the servo at fault."""
        reading = self._reading()
        if self._loop.lost:
            raise RobotError(f"the gripper's bus is lost: {self._loop.lost}")
        if reading.faults[5]:
            raise RobotError(f"the gripper's servo reports {reading.faults[5].name}; recover() once it has cooled")
        return GripperState(reading.t_host_ns, self._width(reading), self._moving, self._sensed)

    def close(self) -> None:
        """Does nothing: the bus is the arm's."""

    def _wait(self, goal: int, end_s: float) -> Reading:
        began_s = time.monotonic()
        seen: deque[tuple[int, int]] = deque()
        while True:
            self.state()  # raises on a fault
            reading, now_s = self._reading(), time.monotonic()
            if abs(reading.steps[5] - goal) <= AT_GOAL_STEPS:
                return reading
            if not seen or reading.t_host_ns > seen[-1][0]:
                seen.append((reading.t_host_ns, reading.steps[5]))
            while reading.t_host_ns - seen[0][0] > STILL_S * 1e9:
                seen.popleft()
            steps = [at for _, at in seen]
            if now_s - began_s > START_S and len(steps) > 5 and max(steps) - min(steps) <= 2:
                return reading
            if now_s > end_s:
                self._loop.set_gripper(reading.steps[5])
                raise RobotError("the jaws did not come to rest within the deadline; they stay where they are")
            with self._loop.news:
                self._loop.news.wait(0.05)

    def _width(self, reading: Reading) -> float:
        return self._jaw.width_m(reading.steps[5])

    def _reading(self) -> Reading:
        reading = self._loop.reading
        if reading is None:
            raise RobotError("no report from the servos yet; connect the arm first")
        return reading
