"""The JSON of the remote-arm protocol: what goes over the wire for poses, reports and results, checked on arrival.

Host clocks differ, so no host time crosses the wire: a report carries its age, which the reader subtracts from its own.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from qtopt.errors import RobotError
from robot_bridge.contracts import (
    ArmMode,
    ArmState,
    GripperState,
    MotionOutcome,
    MotionResult,
    ObjectSensed,
    Pose,
)

PROTOCOL: Final = 1
"""Version of the protocol; the first part of every path is ``/v1``."""

MIN_DECEL_M_S2: Final = 0.01
MAX_DECEL_M_S2: Final = 10.0
"""Of a stop [m/s2]; the largest is that of ``[limits] stop_decel_m_s2`` in a cell file."""

Json = dict[str, Any]


class BadMessage(RobotError):
    """A message that is not what the protocol says; the text names the field, what was found and what was expected."""


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def parse(body: bytes) -> Json:
    """Returns a JSON object; raises BadMessage for anything else, NaN and infinity included."""
    try:
        value = json.loads(body or b"{}", parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"the message is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadMessage(f"the message is a {type(value).__name__}, expected a JSON object")
    return value


def dump(message: Json) -> bytes:
    """Returns the bytes of ``message``; raises BadMessage if it holds NaN or infinity."""
    try:
        return json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
    except ValueError as error:
        raise BadMessage(f"a number that is not finite cannot be sent: {error}") from error


def number(message: Mapping[str, Any], key: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Returns a finite number within ``low`` and ``high``; raises BadMessage."""
    value = message.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadMessage(f"{key} is {value!r}, expected a finite number")
    if not low <= value <= high:
        raise BadMessage(f"{key} is {value:g}, expected {low:g} to {high:g}")
    return float(value)


def count(message: Mapping[str, Any], key: str) -> int:
    """Returns a whole number of 0 or more; raises BadMessage."""
    value = message.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise BadMessage(f"{key} is {value!r}, expected a whole number of 0 or more")
    return value


def text(message: Mapping[str, Any], key: str) -> str:
    """Returns a string; raises BadMessage."""
    value = message.get(key)
    if not isinstance(value, str):
        raise BadMessage(f"{key} is {value!r}, expected text")
    return value


def numbers(message: Mapping[str, Any], key: str, length: int | None = None) -> tuple[float, ...]:
    """Returns a list of finite numbers, ``length`` long where that is given; raises BadMessage."""
    value = message.get(key)
    if not isinstance(value, list) or (length is not None and len(value) != length) or len(value) > 32:
        raise BadMessage(
            f"{key} is {value!r}, expected a list of {length if length is not None else 'up to 32'} numbers"
        )
    return tuple(number({f"{key}[{index}]": item}, f"{key}[{index}]") for index, item in enumerate(value))


def read_pose(message: Mapping[str, Any], key: str = "pose") -> Pose:
    """Returns a pose whose quaternion has length 1 within 1 %; raises BadMessage."""
    inner = message.get(key)
    if not isinstance(inner, dict):
        raise BadMessage(f"{key} is {inner!r}, expected an object with position_m and quaternion_xyzw")
    x, y, z = numbers(inner, "position_m", 3)
    i, j, k, w = numbers(inner, "quaternion_xyzw", 4)
    length = math.sqrt(i * i + j * j + k * k + w * w)
    if abs(length - 1.0) > 0.01:
        raise BadMessage(f"{key}.quaternion_xyzw has length {length:.4f}, expected 1")
    return Pose((x, y, z), (i / length, j / length, k / length, w / length))


def write_pose(pose: Pose) -> Json:
    """Returns the JSON of a pose: ``position_m`` [m], ``quaternion_xyzw``."""
    return {"position_m": list(pose.position_m), "quaternion_xyzw": list(pose.quaternion_xyzw)}


def write_state(state: ArmState, now_ns: int) -> Json:
    """Returns the JSON of a report, its age at ``now_ns`` [monotonic ns of this host] in place of its time."""
    message = asdict(state)
    del message["t_host_ns"]
    return {
        **message,
        "age_s": max(0.0, (now_ns - state.t_host_ns) / 1e9),
        "mode": state.mode.value,
        "pose": write_pose(state.pose),
        "codes": dict(state.codes),
    }


def _six(message: Mapping[str, Any], key: str) -> tuple[float, float, float, float, float, float]:
    a, b, c, d, e, f = numbers(message, key, 6)
    return a, b, c, d, e, f


def read_state(message: Mapping[str, Any], asked_ns: int) -> ArmState:
    """Returns the report in ``message``, asked for at ``asked_ns`` on this host: its age is never taken too small.

    Raises:
        BadMessage: a field is missing or no number.
    """
    wrench, codes = message.get("wrench"), message.get("codes", {})
    temperature = message.get("joint_temperature_c")
    if not isinstance(codes, dict) or not all(isinstance(code, int | str) for code in codes.values()):
        raise BadMessage(f"codes is {codes!r}, expected an object of whole numbers and texts")
    mode = text(message, "mode")
    if mode not in set(ArmMode):
        raise BadMessage(f"mode is {mode!r}, expected one of {', '.join(ArmMode)}")
    if not isinstance(message.get("program_running"), bool):
        raise BadMessage(f"program_running is {message.get('program_running')!r}, expected true or false")
    return ArmState(
        t_host_ns=asked_ns - int(number(message, "age_s", 0.0, 1e6) * 1e9),
        t_controller_s=number(message, "t_controller_s"),
        pose=read_pose(message),
        twist=_six(message, "twist"),
        wrench=None if wrench is None else _six(message, "wrench"),
        joints_rad=numbers(message, "joints_rad"),
        mode=ArmMode(mode),
        program_running=message["program_running"],
        speed_scale=number(message, "speed_scale", 0.0, 1.0),
        joint_temperature_c=None if temperature is None else number(message, "joint_temperature_c"),
        codes=codes,
    )


def write_result(result: MotionResult) -> Json:
    """Returns the JSON of a motion's end."""
    pose = None if result.pose is None else write_pose(result.pose)
    return {"outcome": result.outcome.value, "reason": result.reason, "pose": pose}


def read_result(message: Mapping[str, Any]) -> MotionResult:
    """Returns how a motion ended; raises BadMessage."""
    outcome = text(message, "outcome")
    if outcome not in set(MotionOutcome):
        raise BadMessage(f"outcome is {outcome!r}, expected one of {', '.join(MotionOutcome)}")
    pose = None if message.get("pose") is None else read_pose(message)
    return MotionResult(MotionOutcome(outcome), text(message, "reason"), pose)


def write_gripper(state: GripperState, now_ns: int) -> Json:
    """Returns the JSON of a gripper's report, its age at ``now_ns`` in place of its time."""
    return {
        "age_s": max(0.0, (now_ns - state.t_host_ns) / 1e9),
        "width_m": state.width_m,
        "moving": state.moving,
        "object_sensed": state.object_sensed.value,
        "fault": state.fault,
    }


def read_gripper(message: Mapping[str, Any], asked_ns: int) -> GripperState:
    """Returns a gripper's report; raises BadMessage."""
    sensed = text(message, "object_sensed")
    if sensed not in set(ObjectSensed):
        raise BadMessage(f"object_sensed is {sensed!r}, expected one of {', '.join(ObjectSensed)}")
    if not isinstance(message.get("moving"), bool):
        raise BadMessage(f"moving is {message.get('moving')!r}, expected true or false")
    return GripperState(
        t_host_ns=asked_ns - int(number(message, "age_s", 0.0, 1e6) * 1e9),
        width_m=number(message, "width_m"),
        moving=message["moving"],
        object_sensed=ObjectSensed(sensed),
        fault=text(message, "fault"),
    )
