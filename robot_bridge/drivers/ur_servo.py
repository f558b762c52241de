"""Turns targets that come now and then into the steady stream of set points that ``servoL`` wants."""

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from robot_bridge.contracts import ArmState, Pose
from robot_bridge.drivers.rotvec import Six, from_rotvec_pose, to_rotvec_pose
from robot_bridge.drivers.ur_state import UrOptions
from robot_bridge.tracking import Vector, slower, towards

_LOOKAHEAD_S = 0.1
_GAIN = 300.0


class UrServo:
    """A stream, from its first target until targets ran dry or it was ended; then it is used up.

    Args:
        options: limits and rate.
        control: ``ur_rtde``'s control interface.
        lock: held around each of its calls.
        state: the newest report.
    """

    def __init__(self, options: UrOptions, control: Any, lock: Any, state: Callable[[], ArmState]) -> None:
        self._options, self._control, self._lock = options, control, lock
        self._condition = threading.Lock()
        self._pose = state().pose
        self._velocity = np.zeros(3)
        self._target, self._valid_until = self._pose, 0.0
        self._decel_m_s2: float | None = None
        self._over = False
        self._thread: threading.Thread | None = None

    def follow(self, target: Pose, valid_for_s: float) -> bool:
        """Takes a new target; returns False if the stream is over and another must be made."""
        with self._condition:
            if self._over or self._decel_m_s2 is not None:
                return False
            self._target, self._valid_until = target, time.monotonic() + valid_for_s
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ur-servo", daemon=True)
                self._thread.start()
            return True

    def end(self, decel_m_s2: float) -> None:
        """Stops the stream and the arm; returns at once."""
        with self._condition:
            self._decel_m_s2 = decel_m_s2

    def ended(self) -> bool:
        """Waits a moment for the stream's end; returns whether it has ended."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join(2.0 / self._options.frequency_hz)
        return self._over

    def _run(self) -> None:
        step_s = 1.0 / self._options.frequency_hz
        due = time.monotonic()
        try:
            while self._advance(step_s):
                with self._lock:
                    if not self._control.servoL(list(to_rotvec_pose(self._pose)), 0, 0, step_s, _LOOKAHEAD_S, _GAIN):
                        break
                due += step_s
                time.sleep(max(0.0, due - time.monotonic()))
        finally:
            with self._condition:
                self._over = True
            with self._lock:
                decel = self._decel_m_s2
                self._control.servoStop(decel if decel is not None else self._options.hold_decel_m_s2)

    def _advance(self, step_s: float) -> bool:
        """Moves the set point through a step; returns whether the stream goes on."""
        options = self._options
        with self._condition:
            if self._decel_m_s2 is not None:
                return False
            target, dry = self._target, time.monotonic() > self._valid_until
        here = np.array(self._pose.position_m)
        if dry:
            self._velocity = slower(self._velocity, options.hold_decel_m_s2 * step_s)
            if not self._velocity.any():
                return False
        else:
            gap = np.array(target.position_m) - here
            self._velocity = towards(gap, self._velocity, options.servo_speed_m_s, options.servo_accel_m_s2, step_s)
        most_rad = 0.0 if dry else options.servo_turn_rad_s * step_s
        self._pose = _moved(self._pose, here + self._velocity * step_s, target, most_rad)
        return True


def _moved(pose: Pose, position: Vector, target: Pose, most_rad: float) -> Pose:
    """Returns a pose at ``position``, turned from ``pose`` towards ``target`` by at most ``most_rad``."""
    x_m, y_m, z_m = position.tolist()
    gap = _turn(pose.quaternion_xyzw, target.quaternion_xyzw)
    angle = math.hypot(*gap)
    share = min(1.0, most_rad / angle) if angle > 0 else 0.0
    step = from_rotvec_pose((0.0, 0.0, 0.0, gap[0] * share, gap[1] * share, gap[2] * share)).quaternion_xyzw
    return Pose((x_m, y_m, z_m), _product(step, pose.quaternion_xyzw))


Quaternion = tuple[float, float, float, float]


def _turn(first: Quaternion, second: Quaternion) -> tuple[float, float, float]:
    """Returns the rotation vector [rad, base frame] that turns ``first`` into ``second``, the short way."""
    x, y, z, w = first
    values: Six = to_rotvec_pose(Pose((0.0, 0.0, 0.0), _product(second, (-x, -y, -z, w))))
    return values[3], values[4], values[5]


def _product(a: Quaternion, b: Quaternion) -> Quaternion:
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )
