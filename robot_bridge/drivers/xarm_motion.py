"""What an xArm is asked to do, judged before it is sent, and where it is with it."""

import math
from typing import Final

import numpy as np

from robot_bridge.contracts import ArmState, Pose, quaternion_distance_rad
from robot_bridge.drivers.xarm_options import XArmOptions
from robot_bridge.drivers.xarm_stop import rotation_between

NEAR_M, NEAR_RAD = 0.003, 0.03
_THERE_M, _THERE_RAD = 0.0008, 0.004
_STILL_M_S: Final = 0.002
_GAIN_PER_S: Final = 4.0
_TURN_LIMIT_RAD_S: Final = 0.8
_TURN_ACCEL_RAD_S2: Final = 4.0
_APPROACH_PER_S: Final = 6.0
"""The last of the way shrinks by so much of itself in a second: reports and commands are some hundredths old."""
_MOST_ACCEL_M_S2: Final = 10.0


def refusal_of(target: Pose, options: XArmOptions) -> str:
    """Returns why a target must not be sent, in words; empty if it may."""
    position, quaternion = target.position_m, target.quaternion_xyzw
    if not all(map(math.isfinite, (*position, *quaternion))):
        return f"{target} holds what is no number"
    if abs(math.hypot(*quaternion) - 1.0) > 1e-3:
        return f"quaternion {quaternion} is not of length 1"
    low, high = options.box_low_m, options.box_high_m
    if not all(a <= p <= b for a, p, b in zip(low, position, high, strict=True)):
        return f"{position} m is outside the box {low} to {high} m; positions are in metres"
    return ""


def too_fast(speed_m_s: float, accel_m_s2: float, options: XArmOptions) -> str:
    """Returns why a speed must not be sent, in words; empty if it may."""
    if not 0.0 < speed_m_s <= options.speed_limit_m_s:
        return f"speed {speed_m_s} m/s; expected more than 0, at most {options.speed_limit_m_s} m/s"
    if not 0.0 < accel_m_s2 <= _MOST_ACCEL_M_S2:
        return f"acceleration {accel_m_s2} m/s2; expected more than 0, at most {_MOST_ACCEL_M_S2} m/s2"
    return ""


class Approach:
    """The velocities of a straight motion, from where the tool is at each moment: it starts, turns and ends evenly.

    Args:
        target: where it ends.
        speed_m_s, accel_m_s2: of the tool point at most.
    """

    def __init__(self, target: Pose, speed_m_s: float, accel_m_s2: float) -> None:
        self._target, self._top_m_s, self._accel_m_s2 = target, speed_m_s, accel_m_s2
        self._speed_m_s = self._rate_rad_s = 0.0

    def velocity(self, here: Pose, dt_s: float) -> list[float]:
        """Returns what to go on with [mm/s, rad/s], (6,), ``dt_s`` after the last one; zeros at the end."""
        way = np.array(self._target.position_m) - np.array(here.position_m)
        turn = rotation_between(here, self._target)
        left_m, left_rad = float(np.linalg.norm(way)), float(np.linalg.norm(turn))
        if left_m < _THERE_M and left_rad < _THERE_RAD:
            return [0.0] * 6
        speed = _even(self._speed_m_s, self._top_m_s, self._accel_m_s2, left_m, dt_s)
        rate = _even(self._rate_rad_s, _TURN_LIMIT_RAD_S, _TURN_ACCEL_RAD_S2, left_rad, dt_s)
        if left_m > NEAR_M and left_rad > NEAR_RAD:  # both arrive together
            share = min(speed / left_m, rate / left_rad)
            speed, rate = share * left_m, share * left_rad
        self._speed_m_s, self._rate_rad_s = speed, rate
        linear = way * (1000 * speed / max(left_m, 1e-9))
        return [*linear.tolist(), *(turn * (rate / max(left_rad, 1e-9))).tolist()]


def _even(before: float, top: float, accel: float, left: float, dt_s: float) -> float:
    return min(top, before + accel * dt_s, math.sqrt(2 * accel * left), _APPROACH_PER_S * left)


def velocity_towards(here: Pose, target: Pose, valid_for_s: float, options: XArmOptions) -> list[float]:
    """Returns a velocity [mm/s, rad/s], (6,), within the limits, that cannot pass the target within ``valid_for_s``."""
    gain_per_s = min(_GAIN_PER_S, 1.0 / valid_for_s)
    linear = (np.array(target.position_m) - np.array(here.position_m)) * gain_per_s
    linear *= min(1.0, options.speed_limit_m_s / max(float(np.linalg.norm(linear)), 1e-9))
    angular = rotation_between(here, target) * gain_per_s
    angular *= min(1.0, _TURN_LIMIT_RAD_S / max(float(np.linalg.norm(angular)), 1e-9))
    return [*(1000 * linear).tolist(), *angular.tolist()]


def near(pose: Pose, target: Pose) -> bool:
    """Returns whether a motion to ``target`` that ended at ``pose`` has reached it."""
    gap_m = math.dist(pose.position_m, target.position_m)
    return gap_m < NEAR_M and quaternion_distance_rad(pose, target) < NEAR_RAD


def still(state: ArmState) -> bool:
    """Returns whether the tool stands."""
    return math.hypot(*state.twist[:3]) < _STILL_M_S
