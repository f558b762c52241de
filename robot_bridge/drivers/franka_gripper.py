"""The Franka Hand: its own connection to the same address. ``grasp`` says True of nothing; the width decides."""

import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from qtopt.config import STRICT
from qtopt.errors import RobotError
from robot_bridge.contracts import Capability, GripperState, ObjectSensed
from robot_bridge.drivers.bounds import require_within

EPSILON_M: Final = 0.08
"""Any width counts for ``grasp``, so that it holds whatever it meets; what it means is judged here."""

MIN_FORCE_N: Final = 3.0
MAX_FORCE_N: Final = 70.0
MAX_SPEED_M_S: Final = 0.1
_HOMED_M: Final = (0.01, 0.2)
"""A hand that was homed tells a greatest width within; one that was not tells 0."""


@dataclass(frozen=True)
class FrankaGripperOptions:
    """How the hand's reports are read.

    Attributes:
        object_m: fingers that stand so far short of the width asked for hold something; empty ones read 1.6 mm.
    """

    __pydantic_config__ = STRICT

    object_m: float = 0.003

    def __post_init__(self) -> None:
        require_within(self, {"object_m": (0.0005, 0.02)})


class FrankaGripper:
    """Satisfies ``robot_bridge.contracts.Gripper``."""

    def __init__(self, options: FrankaGripperOptions, host: str) -> None:
        import franky  # part of an extra

        self._franky: Any = franky
        self._options, self._host = options, host
        self._hand: Any = None
        self._range_m: tuple[float, float] | None = None
        self._moving = False
        self._sensed = ObjectSensed.UNKNOWN

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Width, force, and whether something is held."""
        return frozenset({Capability.GRIPPER_WIDTH, Capability.GRIPPER_FORCE, Capability.GRIPPER_OBJECT_FLAG})

    @property
    def width_range_m(self) -> tuple[float, float]:
        """As found by homing; before it no range at all, which two zeros say."""
        return self._range_m or (0.0, 0.0)

    def connect(self, deadline_s: float) -> None:
        """Connects; raises RobotError."""
        made: list[Any] = []

        def construct() -> None:
            try:
                made.append(self._franky.Gripper(self._host))
            except self._franky.Exception as error:
                made.append(error)

        thread = threading.Thread(target=construct, name="hand-connect", daemon=True)
        thread.start()
        thread.join(deadline_s)
        if not made or isinstance(made[0], Exception):
            raise RobotError(f"no Franka Hand at {self._host}: {made[0] if made else f'silent for {deadline_s:g} s'}")
        self._hand = made[0]
        self._range_m = self._read_range()

    def activate(self, deadline_s: float) -> None:
        """Homes the hand where it does not know its range, which opens and closes the fingers; raises RobotError."""
        if self._range_m is not None:
            return
        self._read()  # raises where it is not connected
        try:
            homed = self._carry_out(self._hand.homing_async(), deadline_s, "homing")
        except self._franky.Exception as error:
            raise RobotError(f"the hand's homing failed: {error}") from error
        self._range_m = self._read_range()
        if not homed or self._range_m is None:
            self._range_m = None
            raise RobotError(
                f"the hand's homing found no range: its widest is {float(self._read().max_width):.4f} m; is something "
                "between the fingers?"
            )

    def move(self, width_m: float, speed_m_s: float, force_n: float, deadline_s: float) -> GripperState:
        """Opens to a width, or closes with a force until the fingers stand; raises RobotError before homing."""
        if self._range_m is None:
            # Every width would be beyond a range of nothing, and opening a grasp with force.
            raise RobotError("the Franka Hand has not been homed and does not know its range; call activate() first")
        speed = min(max(speed_m_s, 0.005), MAX_SPEED_M_S)
        goal = min(max(width_m, 0.0), self._range_m[1])
        closing = goal < float(self._read().width)
        self._moving, self._sensed = True, ObjectSensed.UNKNOWN
        try:
            if closing:
                force = min(max(force_n, MIN_FORCE_N), MAX_FORCE_N)
                future = self._hand.grasp_async(goal, speed, force, EPSILON_M, EPSILON_M)
                self._carry_out(future, deadline_s, "grasp")
            elif not self._carry_out(self._hand.move_async(goal, speed), deadline_s, "move"):
                raise RobotError(f"the hand did not open to {goal:.3f} m; its fingers stay as they are")
        except self._franky.Exception as error:
            raise RobotError(f"the hand failed: {error}") from error
        finally:
            self._moving = False
        self._sensed = self._judge(goal) if closing else ObjectSensed.NO
        return self.state()

    def state(self) -> GripperState:
        """Returns the hand's report; raises RobotError where it is silent."""
        asked_ns = time.monotonic_ns()
        return GripperState(asked_ns, float(self._read().width), self._moving, self._sensed)

    def close(self) -> None:
        """Frees the connection; the fingers go on holding. A second call does nothing."""
        self._hand = None

    def _read_range(self) -> tuple[float, float] | None:
        """Returns the range that the hand tells; None where it was not homed since it was switched on."""
        widest_m = float(self._read().max_width)
        return (0.0, widest_m) if _HOMED_M[0] <= widest_m <= _HOMED_M[1] else None

    def _judge(self, goal_m: float) -> ObjectSensed:
        state = self._read()
        if float(state.width) - goal_m <= self._options.object_m:
            return ObjectSensed.NO
        return ObjectSensed.YES if state.is_grasped else ObjectSensed.UNKNOWN

    def _carry_out(self, future: Any, deadline_s: float, what: str) -> bool:
        if not future.wait(deadline_s):
            self._hand.stop()
            raise RobotError(f"the hand's {what} did not end within {deadline_s:g} s; it was told to stop")
        return bool(future.get())

    def _read(self) -> Any:
        if self._hand is None:
            raise RobotError("the Franka Hand is not connected; call connect() first")
        try:
            return self._hand.state
        except self._franky.Exception as error:
            raise RobotError(f"the Franka Hand gives no report: {error}") from error
