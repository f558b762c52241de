"""Where an SO-101's tool point is for given joints, and the other way round in closed form.

Five joints: pan about the vertical, then lift, elbow and flex in the vertical plane that pan turns, then roll about the
tool. With the tool straight down they are exactly x, y, z and azimuth. Angles of the model:

* pan, 0 along the base's x axis, positive to the left;
* lift, of the upper arm above the horizontal: 90 degrees points up;
* elbow, of the forearm relative to the upper arm; negative bends it down, the only branch that is used;
* flex, of the tool relative to the forearm; the tool is vertical where lift + elbow + flex is -90 degrees;
* roll, such that the azimuth of the vertical tool is pan + roll.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qtopt.config import STRICT
from robot_bridge.contracts import Pose
from robot_bridge.drivers.bounds import require_within

Joints = tuple[float, float, float, float, float]
_BOUNDS = {
    **dict.fromkeys(("pan_x_m", "shoulder_r_m", "shoulder_z_m"), (-0.3, 0.3)),
    **dict.fromkeys(("upper_m", "fore_m", "tool_m"), (0.02, 0.5)),
}


@dataclass(frozen=True)
class Geometry:
    """Lengths [m] of the arm in its vertical plane; the defaults are those of the published description of the SO-101.

    Attributes:
        pan_x_m: the pan axis, in front of the base's origin.
        shoulder_r_m: the lift axis, in front of the pan axis.
        shoulder_z_m: the lift axis, above the base's origin.
        upper_m: lift axis to elbow axis.
        fore_m: elbow axis to flex axis.
        tool_m: flex axis to the point between the finger tips. Measure it: it depends on the printed jaws.
    """

    __pydantic_config__ = STRICT

    pan_x_m: float = 0.0388
    shoulder_r_m: float = 0.0304
    shoulder_z_m: float = 0.1166
    upper_m: float = 0.1160
    fore_m: float = 0.1350
    tool_m: float = 0.1592

    def __post_init__(self) -> None:
        require_within(self, _BOUNDS)


@dataclass(frozen=True, slots=True)
class Tool:
    """The vertical tool: position [m] in the base frame and azimuth [rad]."""

    x_m: float
    y_m: float
    z_m: float
    yaw_rad: float


def forward(geometry: Geometry, joints: Joints) -> Pose:
    """Returns the pose of the tool point, vertical or not."""
    pan, lift, elbow, flex, roll = joints
    pitch = lift + elbow + flex
    radius = (
        geometry.shoulder_r_m
        + geometry.upper_m * math.cos(lift)
        + geometry.fore_m * math.cos(lift + elbow)
        + geometry.tool_m * math.cos(pitch)
    )
    z_m = (
        geometry.shoulder_z_m
        + geometry.upper_m * math.sin(lift)
        + geometry.fore_m * math.sin(lift + elbow)
        + geometry.tool_m * math.sin(pitch)
    )
    position = (geometry.pan_x_m + radius * math.cos(pan), radius * math.sin(pan), z_m)
    rotation = _about_z(pan) @ _about_y(-(pitch + math.pi / 2)) @ _about_z(roll) @ np.diag((1.0, -1.0, -1.0))
    return Pose(position, _quaternion(rotation))


def inverse(geometry: Geometry, tool: Tool, near_roll_rad: float = 0.0) -> Joints | None:
    """Returns the joints that put the vertical tool there, elbow up; None where the arm does not reach.

    ``near_roll_rad``: of all rolls that give the azimuth, the one within half a turn of this.
    """
    forward_m, left_m = tool.x_m - geometry.pan_x_m, tool.y_m
    pan = math.atan2(left_m, forward_m)
    r = math.hypot(forward_m, left_m) - geometry.shoulder_r_m
    z = tool.z_m + geometry.tool_m - geometry.shoulder_z_m
    square = r * r + z * z
    bend = (square - geometry.upper_m**2 - geometry.fore_m**2) / (2 * geometry.upper_m * geometry.fore_m)
    if not -1.0 <= bend <= 1.0 or r <= 0.0:
        return None
    elbow = -math.acos(bend)
    lift = math.atan2(z, r) - math.atan2(
        geometry.fore_m * math.sin(elbow), geometry.upper_m + geometry.fore_m * math.cos(elbow)
    )
    roll = near_roll_rad + math.remainder(tool.yaw_rad - pan - near_roll_rad, 2 * math.pi)
    return pan, lift, elbow, -math.pi / 2 - lift - elbow, roll


def to_tool(pose: Pose) -> Tool:
    """Returns position and azimuth of a pose; its tilt is another matter, see ``tilt_rad``."""
    x, y, z, w = pose.quaternion_xyzw
    return Tool(*pose.position_m, math.atan2(2 * (x * y + z * w), 1 - 2 * (y * y + z * z)))


def tilt_rad(pose: Pose) -> float:
    """Returns the angle [rad] between the tool and straight down."""
    x, y, _, _ = pose.quaternion_xyzw
    return math.acos(max(-1.0, min(1.0, 2 * (x * x + y * y) - 1)))


def _about_z(angle: float) -> npt.NDArray[np.float64]:
    c, s = math.cos(angle), math.sin(angle)
    return np.array(((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0)))


def _about_y(angle: float) -> npt.NDArray[np.float64]:
    c, s = math.cos(angle), math.sin(angle)
    return np.array(((c, 0.0, s), (0.0, 1.0, 0.0), (-s, 0.0, c)))


def _quaternion(m: npt.NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Returns x, y, z, w of a rotation matrix, from its largest component, so no small number divides."""
    squares = (1 + m[0, 0] - m[1, 1] - m[2, 2], 1 - m[0, 0] + m[1, 1] - m[2, 2], 1 - m[0, 0] - m[1, 1] + m[2, 2])
    trace = 1 + m[0, 0] + m[1, 1] + m[2, 2]
    rows = (
        (squares[0], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]),
        (m[0, 1] + m[1, 0], squares[1], m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]),
        (m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], squares[2], m[1, 0] - m[0, 1]),
        (m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], trace),
    )
    best = np.array(rows[int(np.argmax((*squares, trace)))])
    x, y, z, w = best / np.linalg.norm(best)
    return float(x), float(y), float(z), float(w)
