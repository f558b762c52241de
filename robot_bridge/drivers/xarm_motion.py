"""What an xArm is asked to do, judged before it is sent, and where it is with it."""

import math
from typing import Final

import numpy as np

from robot_bridge.contracts import ArmState, Pose, quaternion_distance_rad
from robot_bridge.drivers.xarm_options import XArmOptions
from robot_bridge.drivers.xarm_stop import rotation_between

NEAR_M, NEAR_RAD = 0.003, 0.03
_STILL_M_S: Final = 0.002
_GAIN_PER_S: Final = 4.0
_TURN_LIMIT_RAD_S: Final = 0.8
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
