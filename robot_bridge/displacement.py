"""From an action to a target pose, within every limit. Pure: no arm, no clock, no chance.

The safety monitor applies the same functions to the commands that reach it, so that each limit is written once.
"""

import math
from collections.abc import Iterator

import numpy as np

from qtopt.errors import RobotError
from qtopt.specs import ACTION_SPEC, CLOSE, OPEN, ROTATION_COS, ROTATION_SIN, TERMINATE, make_action
from qtopt.types import FloatArray
from robot_bridge.config import MotionLimits
from robot_bridge.contracts import Pose
from robot_bridge.robot import ToolPose

TURN_PER_M = 4.0
"""A UR's straight motion turns at most at so many radians for each metre of its speed, and is slowed down where that is
not enough (https://forum.universal-robots.com/t/movel-tool-angular-speed/15912)."""


def limit_action(action: FloatArray, tool: ToolPose, limits: MotionLimits) -> tuple[FloatArray, ToolPose]:
    """Returns the action that will be executed, float32 (8,), and the target pose it leads to.

    The displacement is cut to the step limits, then to the workspace; the change of azimuth to its step limit. Where
    the azimuth would leave its range the target is half a turn away from it, which is the same grasp for two fingers.
    Closing wins over opening. Ending the episode wins over everything: nothing else is then executed.

    Args:
        action: float32 (8,), as in ``qtopt.specs.ACTION_SPEC``.
        tool: where the tool is.
        limits: what is allowed.

    Raises:
        RobotError: the action has another shape or holds something that is not a number.
    """
    values: list[float] = action.tolist() if action.shape == ACTION_SPEC.shape else []
    if not values or not all(map(math.isfinite, values)):
        found = values or f"of shape {action.shape}"
        raise RobotError(f"action is {found}, expected {ACTION_SPEC.shape[0]} finite numbers; the arm was not moved")
    if values[TERMINATE] > 0.5:
        return make_action(terminate=True), tool
    x_m, y_m, z_m = limit_position((tool.x_m + values[0], tool.y_m + values[1], tool.z_m + values[2]), tool, limits)
    turn = math.atan2(values[ROTATION_SIN], values[ROTATION_COS])
    turn = min(max(turn, -limits.step_yaw_rad), limits.step_yaw_rad)
    close = values[CLOSE] > 0.5
    moved = (x_m - tool.x_m, y_m - tool.y_m, z_m - tool.z_m)
    executed = make_action(moved, turn, close=close, open_=values[OPEN] > 0.5 and not close)
    yaw_rad = limits.home_yaw_rad + fold_yaw(tool.yaw_rad + turn - limits.home_yaw_rad, limits.yaw_rad)
    return executed, ToolPose(x_m, y_m, z_m, yaw_rad)


def limit_position(
    wanted_m: tuple[float, float, float], tool: ToolPose, limits: MotionLimits
) -> tuple[float, float, float]:
    """Returns ``wanted_m``, cut to the step limits around ``tool`` and to the workspace.

    An arm pushed out of the workspace comes back in steps of the allowed size, too.
    """
    (low_x, low_y, low_z), (high_x, high_y, high_z) = limits.low_m, limits.high_m
    return (
        _limit(wanted_m[0], tool.x_m, limits.step_xy_m, low_x, high_x),
        _limit(wanted_m[1], tool.y_m, limits.step_xy_m, low_y, high_y),
        _limit(wanted_m[2], tool.z_m, limits.step_z_m, low_z, high_z),
    )


def fold_yaw(yaw_rad: float, limit_rad: float) -> float:
    """Returns ``yaw_rad``, turned by half turns until it lies within plus and minus ``limit_rad`` (at least pi / 2)."""
    while yaw_rad > limit_rad:
        yaw_rad -= np.pi
    while yaw_rad < -limit_rad:
        yaw_rad += np.pi
    return yaw_rad


def to_pose(tool: ToolPose) -> Pose:
    """Returns the pose of a tool that points straight down: its z axis down, its x axis along the fingers' opening."""
    half = tool.yaw_rad / 2
    return Pose((tool.x_m, tool.y_m, tool.z_m), (math.cos(half), math.sin(half), 0.0, 0.0))


def to_tool(pose: Pose, near_yaw_rad: float = 0.0) -> ToolPose:
    """Returns position and azimuth of a pose, the azimuth within half a turn of ``near_yaw_rad``; see ``tilt_rad``."""
    x, y, z, w = pose.quaternion_xyzw
    yaw_rad = math.atan2(2 * (x * y + z * w), 1 - 2 * (y * y + z * z))
    return ToolPose(*pose.position_m, near_yaw_rad + math.remainder(yaw_rad - near_yaw_rad, 2 * math.pi))


def tilt_rad(pose: Pose) -> float:
    """Returns the angle [rad] between the tool's axis and straight down."""
    x, y, _, _ = pose.quaternion_xyzw
    return math.acos(_clip(2 * (x * x + y * y) - 1, -1.0, 1.0))


def waypoints(start: ToolPose, target: ToolPose, slow_z_m: float, turn_rad: float) -> Iterator[ToolPose]:
    """Yields the targets of a straight motion, ``target`` last, such that each leg can have one speed.

    A leg lies wholly above or wholly below ``slow_z_m``, and turns by at most ``turn_rad``: a controller asked for
    half a turn at once might take the other way round, beyond the limit of the wrist.
    """
    crosses = (start.z_m - slow_z_m) * (target.z_m - slow_z_m) < 0
    legs = math.ceil(abs(target.yaw_rad - start.yaw_rad) / turn_rad - 1e-9)
    if not crosses and legs <= 1:
        yield target
        return
    shares = {1.0}
    if crosses:
        shares.add((slow_z_m - start.z_m) / (target.z_m - start.z_m))
    shares.update(number / legs for number in range(1, legs))
    for share in sorted(shares):
        if share == 1.0:
            yield target
            return
        yield ToolPose(
            start.x_m + share * (target.x_m - start.x_m),
            start.y_m + share * (target.y_m - start.y_m),
            start.z_m + share * (target.z_m - start.z_m),
            start.yaw_rad + share * (target.yaw_rad - start.yaw_rad),
        )


def _limit(value: float, start: float, step: float, low: float, high: float) -> float:
    least, most = start - step, start + step
    if least <= value <= most and low <= value <= high:  # nearly always
        return value
    return min(max(min(max(min(max(value, least), most), low), high), least), most)


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
