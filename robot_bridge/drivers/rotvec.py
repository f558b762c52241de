"""Rotation vectors, as Universal Robots writes orientations, and quaternions, as everything else here does."""

import math

from robot_bridge.contracts import Pose
from robot_bridge.displacement import TURN_PER_M

Six = tuple[float, float, float, float, float, float]


def to_rotvec_pose(pose: Pose) -> Six:
    """Returns x, y, z [m] and the rotation vector [rad], its length at most pi."""
    x, y, z, w = pose.quaternion_xyzw
    if w < 0:
        x, y, z, w = -x, -y, -z, -w
    sine = math.sqrt(x * x + y * y + z * z)
    scale = 2 * math.atan2(sine, w) / sine if sine > 1e-12 else 2.0
    return (*pose.position_m, x * scale, y * scale, z * scale)


def from_rotvec_pose(values: Six) -> Pose:
    """Returns the pose of x, y, z [m] and a rotation vector [rad]; not-a-number stays so."""
    x_m, y_m, z_m, rx, ry, rz = values
    angle = math.sqrt(rx * rx + ry * ry + rz * rz)
    scale = math.sin(angle / 2) / angle if angle > 1e-12 else 0.5
    if math.isnan(angle):
        return Pose((x_m, y_m, z_m), (math.nan,) * 4)
    return Pose((x_m, y_m, z_m), (rx * scale, ry * scale, rz * scale, math.cos(angle / 2)))


def speed_within_turn(start: Pose, target: Pose, speed_m_s: float, turn_rad_s: float) -> float:
    """Returns the speed [m/s] of a straight motion, at most ``speed_m_s``, that turns at most at ``turn_rad_s``."""
    along = abs(sum(a * b for a, b in zip(start.quaternion_xyzw, target.quaternion_xyzw, strict=True)))
    turn_rad = 2 * math.acos(min(1.0, along))
    distance_m = math.dist(start.position_m, target.position_m)
    turn_per_m = TURN_PER_M if turn_rad >= TURN_PER_M * distance_m else turn_rad / distance_m
    return speed_m_s if turn_per_m * speed_m_s <= turn_rad_s else turn_rad_s / turn_per_m
