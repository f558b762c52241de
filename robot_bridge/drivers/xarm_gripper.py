"""The xArm gripper: it hangs on the arm's tool, and its words go through the arm's connection."""

import threading
import time
from typing import Any, Final, Protocol

from qtopt.errors import RobotError
from robot_bridge.contracts import Capability, GripperState, ObjectSensed
from robot_bridge.drivers.xarm_options import XArmGripperOptions
from robot_bridge.drivers.xarm_sdk import code_words

PULSES: Final = 850
TOP_RPM: Final = 5000
TOP_SPEED_M_S: Final = 0.12
"""Of the opening at 5000 r/min, about."""
_STOPPED, _MOVING, _HOLDING = 0, 1, 2
_POLL_S: Final = 0.03
_START_S: Final = 0.15
_NEAR_M: Final = 0.0015
_ABSURD_M: Final = 0.5
"""No hand opens so far: somebody means millimetres. What is merely beyond its range goes to the end of that."""


class HasSdk(Protocol):
    """What the gripper needs of the arm."""

    @property
    def sdk(self) -> Any:
        """The vendor's connected library."""
        ...


class XArmGripper:
    """Satisfies ``robot_bridge.contracts.Gripper``. Its force is fixed, so ``force_n`` changes nothing."""

    def __init__(self, options: XArmGripperOptions, arm: HasSdk) -> None:
        self._options, self._arm = options, arm
        self._lock = threading.Lock()
        self._closed = False

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Width, and an object flag of its own."""
        return frozenset({Capability.GRIPPER_WIDTH, Capability.GRIPPER_OBJECT_FLAG})

    @property
    def width_range_m(self) -> tuple[float, float]:
        """Closed, and fully open [m]."""
        return 0.0, self._options.full_width_m

    def connect(self, deadline_s: float) -> None:
        """Asks the gripper for its version; raises RobotError where it is silent or too old to tell what it holds."""
        with self._lock:
            code, version = self._arm.sdk.get_gripper_version()
            self._check(code, "its version")
            if not all(part.isdigit() for part in version.split(".")):
                raise RobotError(f"the xArm gripper's version reads {version!r}, expected numbers: check its cable")
            if tuple(map(int, version.split("."))) < (3, 4, 3):
                raise RobotError(f"the xArm gripper has firmware {version}, expected 3.4.3 or newer: update it")

    def activate(self, deadline_s: float) -> None:
        """Switches it on, in position mode; the fingers do not move."""
        with self._lock:
            self._check(self._arm.sdk.set_gripper_mode(0), "position mode")
            self._check(self._arm.sdk.set_gripper_enable(enable=True), "being switched on")

    def move(self, width_m: float, speed_m_s: float, force_n: float, deadline_s: float) -> GripperState:
        """Moves the fingers; returns when they stand at ``width_m`` or on an object. RobotError where they stick."""
        low, high = self.width_range_m
        if not abs(width_m) <= _ABSURD_M:
            raise RobotError(f"gripper width {width_m} m, expected {low} to {high} m; widths are in metres")
        width_m = min(max(width_m, low), high)
        if not 0.0 < speed_m_s <= 1.0:
            raise RobotError(f"gripper speed {speed_m_s} m/s, expected more than 0, at most 1 m/s")
        rpm = max(1, min(TOP_RPM, round(speed_m_s / TOP_SPEED_M_S * TOP_RPM)))
        pulses = round(width_m / self._options.full_width_m * PULSES)
        start_s = time.monotonic()
        with self._lock:
            self._check(self._arm.sdk.set_gripper_speed(rpm), "a speed")
            self._check(self._arm.sdk.set_gripper_position(pulses, wait=False, wait_motion=False), "a motion")
        while True:
            state = self.state()
            waited_s = time.monotonic() - start_s
            if not state.moving and (waited_s > _START_S or abs(state.width_m - width_m) < _NEAR_M):
                return self._arrived(state, width_m)
            if waited_s > deadline_s:
                raise RobotError(f"the xArm gripper still moves after {deadline_s} s, at {state.width_m:.4f} m")
            time.sleep(_POLL_S)

    def state(self) -> GripperState:
        """Asks the gripper; raises RobotError if it is silent or at fault."""
        with self._lock:
            code, status = self._arm.sdk.get_gripper_status()
            self._check(code, "its status")
            code, pulses = self._arm.sdk.get_gripper_position()
            self._check(code, "its position")
        if pulses is None:
            raise RobotError("the xArm gripper gave no position: check its cable")
        moving, held = status & 3 == _MOVING, status & 3 == _HOLDING
        sensed = ObjectSensed.UNKNOWN if moving else ObjectSensed.YES if held else ObjectSensed.NO
        width_m = max(0.0, pulses / PULSES * self._options.full_width_m)
        return GripperState(time.monotonic_ns(), width_m, moving, sensed)

    def close(self) -> None:
        """Does nothing but refuse further use: the connection is the arm's."""
        self._closed = True

    def _arrived(self, state: GripperState, width_m: float) -> GripperState:
        if state.object_sensed is ObjectSensed.NO and abs(state.width_m - width_m) > _NEAR_M:
            raise RobotError(
                f"the xArm gripper stands at {state.width_m:.4f} m, asked for {width_m:.4f} m, and feels no object: "
                "jammed, or its power is too low"
            )
        return state

    def _check(self, code: Any, what: str) -> None:
        if self._closed:
            raise RobotError("the xArm gripper was closed; make a new one")
        if code != 0:
            error = self._arm.sdk.get_gripper_err_code()[1] if code == 102 else 0
            words = f"its error {error}, see the gripper's manual" if error else code_words(int(code))
            raise RobotError(f"the xArm gripper failed at {what}: {words}")
