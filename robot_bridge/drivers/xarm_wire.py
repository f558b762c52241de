"""The wire protocol of UFACTORY controllers, as much of it as reading and stopping need, without the vendor's library.

Port 502 takes requests: transaction, protocol (2) and length as big-endian u16, a function number, its data. A reply
repeats the function and adds a status byte. Port 30003 sends reports 100 times a second by itself. Floats are
little-endian; lengths are millimetres and angles radians, and end in this file.
"""

import math
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import Final

from qtopt.errors import RobotError
from robot_bridge.contracts import Pose

CONTROL_PORT: Final = 502
REPORT_PORT: Final = 30003
REPORT_PERIOD_S: Final = 0.01
GET_VERSION, SET_STATE, GET_ERROR, SET_COLLISION_SENSITIVITY = 1, 12, 15, 37
STOP, SLOW_STOP = 4, 6
ERROR_BIT, NOT_READY_BIT, INVALID_BIT = 0x40, 0x10, 0x08
_PROTOCOL = 2
_HEADER = struct.Struct(">HHH")
_REPORT_HEAD = struct.Struct(">IBH")
_REPORT_BODY = struct.Struct("<7f6f7f")
_REPORT_SIZES = range(_REPORT_HEAD.size + _REPORT_BODY.size, 2048)
_ERROR_WORDS = {
    1: "emergency stop button",
    2: "emergency stop input",
    3: "emergency stop of the enabling switch",
    18: "no answer from the force sensor",
    19: "no answer from the tool",
    21: "no solution for the joints",
    22: "the arm would hit itself",
    23: "a joint beyond its limit",
    24: "too fast",
    25: "no path",
    28: "no answer from the tool's electronics",
    30: "measured speed beyond the limit",
    31: "collision",
    35: "outside the safety boundary",
}


def error_words(code: int) -> str:
    """Returns an error of the controller in words."""
    if 10 <= code <= 17:
        return f"error {code}: servo motor {code - 10 or 'bus'}"
    return f"error {code}: {_ERROR_WORDS.get(code, 'see the code in UFACTORY Studio')}"


def wire_pose(pose: Pose) -> tuple[float, float, float, float, float, float]:
    """Returns x, y, z [mm] and roll, pitch, yaw [rad] (about fixed axes, roll first) of a pose."""
    x_m, y_m, z_m = pose.position_m
    x, y, z, w = pose.quaternion_xyzw
    roll = math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x))))
    yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return x_m * 1000, y_m * 1000, z_m * 1000, roll, pitch, yaw


def pose_from_wire(values: tuple[float, ...]) -> Pose:
    """Returns the pose of x, y, z [mm] and roll, pitch, yaw [rad]."""
    x_mm, y_mm, z_mm, roll, pitch, yaw = values
    cr, sr = math.cos(roll / 2), math.sin(roll / 2)
    cp, sp = math.cos(pitch / 2), math.sin(pitch / 2)
    cy, sy = math.cos(yaw / 2), math.sin(yaw / 2)
    quaternion = (
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    )
    return Pose((x_mm / 1000, y_mm / 1000, z_mm / 1000), quaternion)


@dataclass(frozen=True, slots=True)
class Report:
    """One report of port 30003: the controller's state and mode numbers, commands waiting, joints [rad], the tool."""

    state: int
    mode: int
    waiting: int
    joints_rad: tuple[float, ...]
    pose: Pose


def parse_report(frame: bytes) -> Report:
    """Reads a whole report frame. Numbers that are none come through as such; RobotError if the frame is too short."""
    if len(frame) < _REPORT_SIZES.start:
        raise RobotError(f"a report of {len(frame)} bytes, expected at least {_REPORT_SIZES.start}")
    _, state_mode, waiting = _REPORT_HEAD.unpack_from(frame)
    numbers = _REPORT_BODY.unpack_from(frame, _REPORT_HEAD.size)
    return Report(state_mode & 0x0F, state_mode >> 4, waiting, numbers[:7], _pose_of(numbers[7:13]))


def _pose_of(values: tuple[float, ...]) -> Pose:
    """Like ``pose_from_wire``, where an angle may be infinite: that is no number, not an exception."""
    return pose_from_wire(tuple(value if math.isfinite(value) else math.nan for value in values))


class Reports:
    """Cuts the bytes of a report stream into frames, however they arrive."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Returns the frames that are whole now. Raises RobotError where the stream makes no sense any more."""
        self._rest += data
        frames: list[bytes] = []
        while len(self._rest) >= 4:
            size = int.from_bytes(self._rest[:4], "big")
            if size not in _REPORT_SIZES:
                raise RobotError(f"a report that claims {size} bytes: the stream is out of step, connect anew")
            if len(self._rest) < size:
                break
            frames.append(self._rest[:size])
            self._rest = self._rest[size:]
        return frames


def request_frame(transaction: int, function: int, data: bytes = b"") -> bytes:
    """Returns the bytes of a request."""
    return _HEADER.pack(transaction, _PROTOCOL, len(data) + 1) + bytes([function]) + data


class ControlLink:
    """A connection to port 502. Thread-safe; one request at a time, each with its deadline."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._transaction = 0

    def connect(self, timeout_s: float) -> None:
        """Connects; raises RobotError."""
        try:
            self._socket = socket.create_connection(self._address, timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            host, port = self._address
            raise RobotError(
                f"no connection to the xArm controller at {host} port {port} ({error}): check its power, the cable and "
                "the address in [arm] host"
            ) from error

    def request(self, function: int, data: bytes = b"", timeout_s: float = 0.3) -> tuple[int, bytes]:
        """Sends a request; returns the status byte and the data of its reply. Raises RobotError."""
        with self._lock:
            if self._socket is None:
                raise RobotError("the connection to the xArm controller is closed; make a new driver")
            self._transaction = self._transaction % 0xFFFF + 1
            try:
                self._socket.settimeout(timeout_s)
                self._socket.sendall(request_frame(self._transaction, function, data))
                return self._reply(self._socket, function, time.monotonic() + timeout_s)
            except OSError as error:
                raise RobotError(f"the xArm controller did not answer function {function}: {error}") from error

    def _reply(self, source: socket.socket, function: int, until_s: float) -> tuple[int, bytes]:
        while True:
            transaction, _, length = _HEADER.unpack(_exactly(source, _HEADER.size, until_s))
            body = _exactly(source, length, until_s)
            if transaction == self._transaction and len(body) >= 2 and body[0] == function:
                return body[1], body[2:]

    def close(self) -> None:
        """Closes the connection; a second call does nothing."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None


def _exactly(source: socket.socket, count: int, until_s: float) -> bytes:
    data = b""
    while len(data) < count:
        source.settimeout(max(0.001, until_s - time.monotonic()))
        piece = source.recv(count - len(data))
        if not piece:
            raise ConnectionResetError("the controller closed the connection")
        data += piece
    return data
