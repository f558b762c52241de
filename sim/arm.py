"""The KUKA iiwa: joint angles for a tool pose in closed form, where its links then are, and what they look like.

With the third and the fifth joint at zero the arm stays in the vertical plane through its base and its wrist, and a
hand that points down leaves a triangle of upper arm, forearm and the line from shoulder to wrist to be solved. In
physics the hand is driven along the tool's four degrees of freedom by motors of limited force; the arm follows it
joint by joint for the eye of the camera, and a pose that its joint limits forbid is an error.
"""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pybullet_data

from qtopt.errors import RobotError
from robot_bridge.robot import ToolPose

Matrix = npt.NDArray[np.float64]

SHOULDER_Z_M = 0.36
UPPER_ARM_M = 0.42
FOREARM_M = 0.40
WRIST_TO_FLANGE_M = 0.126
HAND_LENGTH_M = 0.14
"""From the flange to the finger tips."""
JOINT_LIMITS_RAD = (2.96706, 2.0944, 2.96706, 2.0944, 2.96706, 2.0944, 3.05433)
_LINK_HEIGHTS_M = (0.0, 0.1575, 0.36, 0.5645, 0.78, 0.9645, 1.18, 1.261)
_LINK_ROLL_YAW = (
    (0.0, 0.0), (0.0, 0.0), (math.pi / 2, -math.pi), (0.0, 0.0),
    (math.pi / 2, 0.0), (0.0, -math.pi), (math.pi / 2, -math.pi), (0.0, 0.0),
)  # fmt: skip


def _rotation_z(angle_rad: float) -> Matrix:
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[c, -s, 0.0, 0.0], [s, c, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]], np.float64)


def _at_zero(height_m: float, roll_rad: float, yaw_rad: float) -> Matrix:
    c, s = math.cos(roll_rad), math.sin(roll_rad)
    tilt = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, c, -s, 0.0], [0.0, s, c, 0.0], [0.0, 0.0, 0.0, 1.0]])
    pose: Matrix = _rotation_z(yaw_rad) @ tilt
    pose[2, 3] = height_m
    return pose


_AT_ZERO = [_at_zero(z, *angles) for z, angles in zip(_LINK_HEIGHTS_M, _LINK_ROLL_YAW, strict=True)]
_STEPS = [np.linalg.inv(before) @ after for before, after in pairwise(_AT_ZERO)]


def joint_angles(tool: ToolPose) -> tuple[float, ...]:
    """Returns the seven joint angles [rad] that hold the tool at ``tool``, pointing down.

    Raises:
        RobotError: the pose is out of reach or beyond a joint limit.
    """
    pan = math.atan2(tool.y_m, tool.x_m)
    reach = math.hypot(tool.x_m, tool.y_m)
    height = tool.z_m + HAND_LENGTH_M + WRIST_TO_FLANGE_M - SHOULDER_Z_M
    distance = math.hypot(reach, height)
    if not abs(UPPER_ARM_M - FOREARM_M) < distance < UPPER_ARM_M + FOREARM_M:
        raise RobotError(f"{tool} is out of the arm's reach: the wrist would be {distance:.3f} m from the shoulder")
    at_shoulder = (UPPER_ARM_M**2 + distance**2 - FOREARM_M**2) / (2 * UPPER_ARM_M * distance)
    at_elbow = (UPPER_ARM_M**2 + FOREARM_M**2 - distance**2) / (2 * UPPER_ARM_M * FOREARM_M)
    lean = math.atan2(reach, height) - math.acos(at_shoulder)
    bend = math.pi - math.acos(at_elbow)
    turn = math.remainder(pan - tool.yaw_rad, 2 * math.pi)
    joints = (pan, lean, 0.0, -bend, 0.0, math.pi - lean - bend, turn)
    for number, (angle, limit) in enumerate(zip(joints, JOINT_LIMITS_RAD, strict=True), 1):
        if abs(angle) > limit:
            raise RobotError(f"{tool} needs joint {number} at {angle:.3f} rad; its limit is {limit:.3f} rad")
    return joints


def link_poses(joints: tuple[float, ...]) -> list[Matrix]:
    """Returns the poses of links 0 to 7 in the base frame, each (4, 4), at seven joint angles [rad]."""
    poses = [_AT_ZERO[0]]
    for step, angle in zip(_STEPS, joints, strict=True):
        poses.append(poses[-1] @ step @ _rotation_z(angle))
    return poses


def link_mesh(number: int, cell_m: float = 0.022) -> tuple[list[list[float]], list[int]]:
    """Returns vertices [m] and triangle indices of a link, thinned to one vertex per cube of ``cell_m``.

    The renderer's cost is per triangle, and at the camera's size the full meshes show nothing more.
    """
    path = Path(pybullet_data.getDataPath()) / "kuka_iiwa" / "meshes" / f"link_{number}.stl"
    raw = path.read_bytes()
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    corners = np.frombuffer(raw, record, offset=84)["corners"].reshape(-1, 3).astype(np.float64)
    cells, member = np.unique(np.floor(corners / cell_m).astype(np.int64), axis=0, return_inverse=True)
    member = member.reshape(-1)
    sums = np.stack([np.bincount(member, corners[:, axis], len(cells)) for axis in range(3)], 1)
    vertices = sums / np.bincount(member, minlength=len(cells))[:, None]
    triangles = member.reshape(-1, 3)
    a, b, c = triangles.T
    triangles = np.unique(triangles[(a != b) & (b != c) & (a != c)], axis=0)
    return vertices.tolist(), triangles.reshape(-1).tolist()
