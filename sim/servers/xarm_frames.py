"""Bytes that a UFACTORY controller sends: replies, reports, feedback. Millimetres and radians, little-endian floats."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

FUNCTION_FEEDBACK = 0xFF
VERSION = b"7,3,XI130001A01,AC130001A01,v2.5.0"
AXES, ARM_TYPE = 7, 3
ALL_BITS = 0xFF
_HEADER = struct.Struct(">HHH")


@dataclass(slots=True)
class Snapshot:
    """What a report tells: millimetres, radians, newton metres; and its time, which stays untold."""

    state: int
    mode: int
    waiting: int
    joints_rad: Sequence[float]
    pose: Sequence[float]
    torques_nm: Sequence[float]
    enabled: bool
    error: int
    warning: int
    tcp_offset: Sequence[float]
    load: Sequence[float]
    sensitivity: int
    speed_mm_s: float
    reduced: bool
    boundary_mm: Sequence[int]
    reduced_speed_mm_s: float
    reduced_joint_speed: float
    joint_limits: Sequence[float] = field(default=(-2 * math.pi, 2 * math.pi) * 7)
    fence: bool = False
    rebound: bool = False
    count: int = 0
    time_s: float = 0.0


def floats(values: Sequence[float]) -> bytes:
    """Returns little-endian f32."""
    return struct.pack(f"<{len(values)}f", *values)


def read_floats(data: bytes, count: int, offset: int = 0) -> tuple[float, ...]:
    """Reads ``count`` little-endian f32."""
    return struct.unpack_from(f"<{count}f", data, offset)


def reply(transaction: int, protocol: int, function: int, status: int, data: bytes = b"") -> bytes:
    """Returns a reply frame."""
    return _HEADER.pack(transaction, protocol, len(data) + 2) + bytes([function, status]) + data


def feedback(transaction: int, protocol: int, function: int, kind: int, code: int, time_us: int) -> bytes:
    """Returns the unasked frame that tells of a command's end: code 0 done, 1 failed, 2 discarded."""
    data = struct.pack(">BBHBQ", kind, function, transaction & 0xFFFF, code, time_us)
    return reply(transaction, protocol, FUNCTION_FEEDBACK, 0, data)


def real_time_report(now: Snapshot) -> bytes:
    """Returns a report of port 30003, 135 bytes."""
    return _sized(_common(now) + floats([0.0] * 12))


def normal_report(now: Snapshot) -> bytes:
    """Returns a report of port 30001, 145 bytes."""
    return _sized(_normal(now))


def rich_report(now: Snapshot) -> bytes:
    """Returns a report of port 30002, 587 bytes."""
    return _sized(
        _normal(now)
        + bytes([ARM_TYPE, AXES, 0xAA, 0x55, 0, 0])
        + VERSION[:30].ljust(30, b"\0")
        + floats([1000.0, 1.0, 50000.0, 0.1, 1000.0])  # TCP: jerk, acceleration and speed from and to
        + floats([20.0, 0.01, 20.0, 0.0001, math.pi])  # the same for joints
        + floats([2.3, 2.7])
        + bytes(14)
        + bytes(2)
        + bytes([35] * 7)  # temperatures
        + floats([now.speed_mm_s, *[0.0] * 7])
        + struct.pack(">I", now.count)
        + floats([0.0] * 6)
        + bytes([0, 0, 0, 1, 0])
        + floats([0.0] * 6)
        + struct.pack(">7H", *[4800] * 7)
        + floats([0.0] * 7)
        + bytes(2)
        + struct.pack(">8H", *[0] * 8)
        + bytes(32)
        + floats([0.0] * 12)
        + bytes(1)
        + floats(now.pose[3:6])
        + bytes([now.reduced | now.fence << 1])
        + reduced_block(now)
        + struct.pack(">I", 0)
        + bytes(3)
        + struct.pack(">3h", 0, 0, 0)
    )


def reduced_block(now: Snapshot) -> bytes:
    """Returns the settings of the reduced mode, 79 bytes, as function 53 and the rich report give them."""
    return (
        bytes([now.reduced])
        + struct.pack(">6h", *now.boundary_mm)
        + floats([now.reduced_speed_mm_s, now.reduced_joint_speed, *now.joint_limits])
        + bytes([now.fence, now.rebound])
    )


def _common(now: Snapshot) -> bytes:
    head = struct.pack(">BH", now.state & 0x0F | now.mode << 4, now.waiting)
    return head + floats([*now.joints_rad, *now.pose, *now.torques_nm])


def _normal(now: Snapshot) -> bytes:
    bits = ALL_BITS if now.enabled else 0
    return (
        _common(now)
        + bytes([bits, bits, now.error, now.warning])
        + floats([*now.tcp_offset, *now.load])
        + bytes([now.sensitivity, 3])
        + floats([0.0, 0.0, -1.0])
    )


def _sized(body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 4) + body
