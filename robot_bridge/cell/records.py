"""What the processes of a cell write to the board: fixed numbers packed, words behind them as JSON."""

import json
import struct
import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from robot_bridge.cell.shared import RECORD_BYTES
from robot_bridge.contracts import ArmMode, ArmState, GripperState, ObjectSensed, Pose

STILL_M_S: Final = 0.002
"""A tool point that is slower stands."""
_MODES: Final = tuple(ArmMode)
_SENSED: Final = tuple(ObjectSensed)
_ARM: Final = struct.Struct("<qd 3d4d 6d 6d ? B ?d d?")
_GRIPPER: Final = struct.Struct("<qd?B")
_FLAGS: Final = struct.Struct("<???B")
_MOST_WORDS: Final = (600, 150, 30, 0)
"""Letters of each word, fewer where a record would not fit: what locks motion must never fail to be told."""


@dataclass(frozen=True, slots=True)
class Report:
    """The newest of a process: what it measured and what it is doing.

    Attributes:
        arm: the arm's report; None before the first, or where the driver has none.
        gripper: the gripper's; None where there is none.
        ready: the process is connected and does its work.
        moving: a motion that was asked for is under way.
        latch: the rule and the reason that lock motion in this process; empty where none does.
        note: what it last reacted to, in words.
    """

    arm: ArmState | None = None
    gripper: GripperState | None = None
    ready: bool = False
    moving: bool = False
    latch: str = ""
    note: str = ""


def pack_report(report: Report) -> bytes:
    """Returns a report as bytes; words are cut so that it always fits a record."""
    arm, gripper = report.arm, report.gripper
    joints = () if arm is None else arm.joints_rad[:16]
    head = _FLAGS.pack(report.ready, report.moving, gripper is not None, 0 if arm is None else 1 + len(joints))
    numbers = b"" if arm is None else _pack_arm(arm) + struct.pack(f"<{len(joints)}d", *joints)
    if gripper is not None:
        numbers += _GRIPPER.pack(
            gripper.t_host_ns, gripper.width_m, gripper.moving, _SENSED.index(gripper.object_sensed)
        )
    return next(record for most in _MOST_WORDS if len(record := head + numbers + _words(report, most)) <= RECORD_BYTES)


def unpack_report(record: bytes) -> Report:
    """Returns the report that ``pack_report`` made ``record`` of."""
    ready, moving, has_gripper, has_arm = _FLAGS.unpack_from(record)
    place = _FLAGS.size
    place_of_words = place
    if has_arm:
        place_of_words += _ARM.size + 8 * (has_arm - 1)
    gripper_place = place_of_words
    if has_gripper:
        place_of_words += _GRIPPER.size
    words = json.loads(record[place_of_words:])
    arm = _unpack_arm(record, place, has_arm - 1, words["codes"]) if has_arm else None
    gripper = None
    if has_gripper:
        t_host_ns, width_m, turning, sensed = _GRIPPER.unpack_from(record, gripper_place)
        gripper = GripperState(t_host_ns, width_m, turning, _SENSED[sensed], words["fault"])
    return Report(arm, gripper, ready, moving, words["latch"], words["note"])


def speed_m_s(state: ArmState) -> float:
    """Returns the speed of the tool point [m/s]."""
    return float(np.linalg.norm(state.twist[:3]))


def stands(state: ArmState | None, max_age_s: float) -> bool:
    """Returns whether a report, at most so old [s], shows the tool point standing."""
    if state is None:
        return False
    age_s = (time.monotonic_ns() - state.t_host_ns) / 1e9
    return age_s < max_age_s and speed_m_s(state) < STILL_M_S


def _words(report: Report, most: int) -> bytes:
    """Returns the words as JSON, each of at most ``most`` letters."""
    codes = {} if report.arm is None else report.arm.codes
    words = {
        "latch": report.latch[:most],
        "note": report.note[:most],
        "fault": "" if report.gripper is None else report.gripper.fault[:most],
        "codes": {key[:most]: _short(value, most) for key, value in list(codes.items())[: min(most, 16)]},
    }
    return json.dumps(words, ensure_ascii=False).encode("utf-8", "replace")


def _short(value: int | str, most: int) -> int | str:
    return value[:most] if isinstance(value, str) else value


def _pack_arm(arm: ArmState) -> bytes:
    temperature_c = arm.joint_temperature_c
    return _ARM.pack(
        arm.t_host_ns,
        arm.t_controller_s,
        *arm.pose.position_m,
        *arm.pose.quaternion_xyzw,
        *arm.twist,
        *(arm.wrench or (0.0,) * 6),
        arm.wrench is not None,
        _MODES.index(arm.mode),
        arm.program_running,
        arm.speed_scale,
        0.0 if temperature_c is None else temperature_c,
        temperature_c is not None,
    )


def _unpack_arm(record: bytes, place: int, joints: int, codes: dict[str, int | str]) -> ArmState:
    values = _ARM.unpack_from(record, place)
    angles = struct.unpack_from(f"<{joints}d", record, place + _ARM.size)
    has_wrench, mode, running, scale, temperature_c, has_temperature = values[21:]
    return ArmState(
        t_host_ns=values[0],
        t_controller_s=values[1],
        pose=Pose(values[2:5], values[5:9]),
        twist=values[9:15],
        wrench=values[15:21] if has_wrench else None,
        joints_rad=angles,
        mode=_MODES[mode],
        program_running=running,
        speed_scale=scale,
        joint_temperature_c=temperature_c if has_temperature else None,
        codes=codes,
    )
