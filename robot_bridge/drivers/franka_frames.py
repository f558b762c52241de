"""Franka's frames and types on one side, ours on the other. ``franky`` is passed in, so nothing is imported here.

The hand's fingers open along its y axis; our tool's open along x. So the tool is the hand turned by a quarter about z.
"""

import math
import time
from typing import Any, Final

from robot_bridge.contracts import ArmMode, ArmState, Pose, quaternion_distance_rad

Quaternion = tuple[float, float, float, float]

SHOULDER_M: Final = (0.0, 0.0, 0.333)
REACH_M: Final = 0.855
"""Of flange from shoulder, as the data sheet has it."""
QUARTER: Final = (0.0, 0.0, math.sin(math.pi / 4), math.cos(math.pi / 4))
QUARTER_BACK: Final = (0.0, 0.0, -math.sin(math.pi / 4), math.cos(math.pi / 4))
_PLACED_M, _PLACED_RAD = 0.001, 0.01

MODES: Final = {
    "Other": ArmMode.OFF,  # brakes shut, or Desk holds the arm
    "Idle": ArmMode.READY,
    "Move": ArmMode.MOVING,
    "Guiding": ArmMode.MANUAL,
    "Reflex": ArmMode.REFLEX,
    "UserStopped": ArmMode.SAFEGUARD_STOP,
    "AutomaticErrorRecovery": ArmMode.IDLE,
}


def times(p: Quaternion, q: Quaternion) -> Quaternion:
    """Returns the product of two quaternions (x, y, z, w): first ``q``, then ``p``."""
    a, b, c, d = p
    e, f, g, h = q
    return (
        d * e + a * h + b * g - c * f,
        d * f - a * g + b * h + c * e,
        d * g + a * f - b * e + c * h,
        d * h - a * e - b * f - c * g,
    )


def to_pose(affine: Any) -> Pose:
    """Returns our tool's pose for the hand's."""
    x, y, z = (float(value) for value in affine.translation)
    i, j, k, w = (float(value) for value in affine.quaternion)
    return Pose((x, y, z), times((i, j, k, w), QUARTER))


def to_affine(franky: Any, pose: Pose) -> Any:
    """Returns the hand's pose for our tool's."""
    return franky.Affine(list(pose.position_m), list(times(pose.quaternion_xyzw, QUARTER_BACK)))


def steepest_share(here: Pose, target: Pose) -> float:
    """Returns the largest part that one axis of the base has in a way: franky limits each axis, not the tool."""
    way = [abs(b - a) for a, b in zip(here.position_m, target.position_m, strict=True)]
    length = math.hypot(*way)
    return max(way) / length if length > 0.0 else 1.0


def out_of_reach(target: Pose, flange_to_tip_m: float) -> bool:
    """Returns whether the flange would be further from the shoulder than the arm is long; the tool points anywhere."""
    return math.dist(target.position_m, SHOULDER_M) > REACH_M + flange_to_tip_m


def misplaced(end_effector: Any, flange_to_tip_m: float, flange_to_tip_rad: float) -> str:
    """Returns in words that Desk's end effector is not where the options have it, seen from the flange; else ''."""
    x, y, z = (float(value) for value in end_effector.translation)
    i, j, k, w = (float(value) for value in end_effector.quaternion)
    half_rad = flange_to_tip_rad / 2
    found = Pose((x, y, z), (i, j, k, w))
    expected = Pose((0.0, 0.0, flange_to_tip_m), (0.0, 0.0, math.sin(half_rad), math.cos(half_rad)))
    if math.isfinite(i + j + k + w) and same_pose(found, expected, _PLACED_M, _PLACED_RAD):
        return ""
    return (
        f"Desk has the end effector at [{x:.4f}, {y:.4f}, {z:.4f}] m from the flange and turned by the quaternion "
        f"[{i:.3f}, {j:.3f}, {k:.3f}, {w:.3f}], expected [0, 0, {flange_to_tip_m:.4f}] (flange_to_tip_m) and a turn by "
        f"{math.degrees(flange_to_tip_rad):.1f} degrees about z alone (flange_to_tip_rad)"
    )


def line_motion(franky: Any, target: Pose) -> Any:
    """Returns a straight motion to ``target``."""
    return franky.CartesianMotion(to_affine(franky, target))


def joint_motion(franky: Any, target_rad: tuple[float, ...], part: float) -> Any:
    """Returns a motion in joint space at ``part`` of the joints' speed."""
    factor = franky.RelativeDynamicsFactor(part, max(part, 0.05), 0.2)
    return franky.JointMotion(franky.JointState(list(target_rad)), relative_dynamics_factor=factor)


def stop_motion(franky: Any, *, cartesian: bool = True) -> Any:
    """Returns a smooth end of a motion of the same kind."""
    return franky.CartesianStopMotion() if cartesian else franky.JointStopMotion()


def force_condition(franky: Any, zero: tuple[float, ...], limits_n: tuple[float, float, float]) -> Any:
    """Returns what a motion ends on: a force along a base axis that is further from ``zero`` than that axis' limit."""
    measures = (franky.Measure.FORCE_X, franky.Measure.FORCE_Y, franky.Measure.FORCE_Z)
    sides = [
        side
        for at, force, limit_n in zip(zero[:3], measures, limits_n, strict=True)
        for side in (force > at + limit_n, force < at - limit_n)
    ]
    condition = sides[0]
    for side in sides[1:]:
        condition = condition | side
    return condition


def report(robot: Any, franky: Any, zero: tuple[float, ...]) -> ArmState:
    """Returns what the controller says now; may take a millisecond, or raise a NetworkException after a second."""
    state = robot.state
    received_ns = time.monotonic_ns()
    twist = robot.current_cartesian_velocity.end_effector_twist
    v, w = [float(value) for value in twist.linear], [float(value) for value in twist.angular]
    f = [float(value) - at for value, at in zip(state.O_F_ext_hat_K, zero, strict=True)]
    faulty = bool(robot.has_errors) and state.robot_mode is franky.RobotMode.Idle
    return ArmState(
        t_host_ns=received_ns,
        t_controller_s=float(state.time.to_sec()),
        pose=to_pose(state.O_T_EE),
        twist=(v[0], v[1], v[2], w[0], w[1], w[2]),
        wrench=(f[0], f[1], f[2], f[3], f[4], f[5]),
        joints_rad=tuple(float(value) for value in state.q),
        mode=ArmMode.FAULT if faulty else MODES.get(state.robot_mode.name, ArmMode.FAULT),
        codes={"robot_mode": state.robot_mode.name, "errors": str(state.current_errors)},
    )


def same_pose(first: Pose, second: Pose, near_m: float, near_rad: float) -> bool:
    """Whether two poses agree within ``near_m`` and ``near_rad``."""
    apart_m = math.dist(first.position_m, second.position_m)
    return apart_m <= near_m and quaternion_distance_rad(first, second) <= near_rad
