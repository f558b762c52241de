"""From an action to a target pose, within every limit. Pure: no arm, no clock, no chance."""

import numpy as np

from qtopt.errors import RobotError
from qtopt.specs import ACTION_SPEC, CLOSE, OPEN, ROTATION_COS, ROTATION_SIN, TERMINATE, WORLD_VECTOR, make_action
from qtopt.types import FloatArray
from robot_bridge.config import MotionLimits
from robot_bridge.robot import ToolPose


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
    if action.shape != ACTION_SPEC.shape or not np.all(np.isfinite(action)):
        raise RobotError(f"action is {action!r}, expected {ACTION_SPEC.shape[0]} finite numbers; the arm was not moved")
    if action[TERMINATE] > 0.5:
        return make_action(terminate=True), tool
    step = np.array([limits.step_xy_m, limits.step_xy_m, limits.step_z_m])
    start = np.array([tool.x_m, tool.y_m, tool.z_m])
    wanted = start + np.clip(action[WORLD_VECTOR].astype(np.float64), -step, step)
    target = np.clip(wanted, limits.low_m, limits.high_m)
    # An arm pushed out of the workspace comes back in steps of the allowed size, too.
    target = start + np.clip(target - start, -step, step)
    turn = float(np.arctan2(action[ROTATION_SIN], action[ROTATION_COS]))
    turn = min(max(turn, -limits.step_yaw_rad), limits.step_yaw_rad)
    close = bool(action[CLOSE] > 0.5)
    executed = make_action(tuple(target - start), turn, close=close, open_=bool(action[OPEN] > 0.5) and not close)
    x_m, y_m, z_m = (float(value) for value in target)
    return executed, ToolPose(x_m, y_m, z_m, fold_yaw(tool.yaw_rad + turn, limits.yaw_rad))


def fold_yaw(yaw_rad: float, limit_rad: float) -> float:
    """Returns ``yaw_rad``, turned by half turns until it lies within plus and minus ``limit_rad`` (at least pi / 2)."""
    while yaw_rad > limit_rad:
        yaw_rad -= np.pi
    while yaw_rad < -limit_rad:
        yaw_rad += np.pi
    return yaw_rad
