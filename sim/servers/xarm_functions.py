"""What each function number of port 502 does to the controller, and what it answers."""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from sim.plant import Plant
from sim.servers.xarm_controller import DONE, Controller, forward_kinematics, wire_pose
from sim.servers.xarm_frames import VERSION, floats, read_floats, reduced_block
from sim.servers.xarm_gripper import HOST_ID, GripperBus

INVALID: Final = 0x08
_TOOL_BAUD: Final = 0x0A0B
_BAUD_2M: Final = 11
_SERIAL = b"XI130001A01\0AC130001A01\0"
Done = Callable[[int], None]


class Answer(NamedTuple):
    """The data of a reply, and bits to add to its status."""

    data: bytes = b""
    status: int = 0


_REFUSED = Answer(status=INVALID)


class Functions:
    """The controller's functions."""

    def __init__(self, controller: Controller, bus: GripperBus, plant: Plant) -> None:
        self._controller, self._bus, self._plant = controller, bus, plant
        self.gripper_silent = False
        self._table: dict[int, Callable[[bytes, Done], Answer | None]] = {
            1: lambda d, f: Answer(VERSION.ljust(40, b"\0")),
            2: lambda d, f: Answer(_SERIAL.ljust(40, b"\0")),
            11: self._enable,
            12: lambda d, f: Answer() if controller.set_state(d[0]) else _REFUSED,
            13: lambda d, f: Answer(bytes([controller.state])),
            14: lambda d, f: Answer(struct.pack(">H", controller.waiting)),
            15: lambda d, f: Answer(bytes([controller.error, controller.warning])),
            16: self._clear_error,
            17: self._clear_warning,
            18: self._enable,
            19: self._set_mode,
            21: self._move_line,
            23: self._move_joints,
            30: lambda d, f: _taken(controller.servo(read_floats(d, 6))),
            35: self._set_tcp_offset,
            36: self._set_load,
            37: self._set_sensitivity,
            41: lambda d, f: Answer(floats(wire_pose(plant.state().told))),
            42: self._joints,
            44: lambda d, f: Answer(floats(forward_kinematics(read_floats(d, 7)))),
            45: lambda d, f: Answer(b"\0"),
            46: lambda d, f: Answer(b"\0"),
            47: self._set_reduced_speed,
            48: self._set_reduced_joint_speed,
            49: lambda d, f: Answer(bytes([controller.reduced])),
            50: self._set_reduced,
            52: self._set_boundary,
            53: lambda d, f: Answer(reduced_block(controller.snapshot())),
            58: self._set_joint_limits,
            59: self._set_fence,
            60: self._set_rebound,
            82: self._move_at,
            124: self._tool_bus,
            127: lambda d, f: Answer(),
            128: self._read_tool,
            253: self._after_all,
        }

    def call(self, function: int, data: bytes, done: Done) -> Answer | None:
        """Carries out a request; None for no answer at all. ``done`` is told when a queued command has ended."""
        work = self._table.get(function)
        if work is None:
            return _REFUSED
        try:
            return work(data, done)
        except (struct.error, IndexError):
            return _REFUSED

    def _enable(self, data: bytes, done: Done) -> Answer:
        if data[1] and self._controller.e_stop_pressed:
            return _REFUSED
        self._controller.enable(on=bool(data[1]))
        return Answer()

    def _clear_error(self, data: bytes, done: Done) -> Answer:
        self._controller.clear_error()
        return Answer()

    def _clear_warning(self, data: bytes, done: Done) -> Answer:
        self._controller.warning = 0
        return Answer()

    def _set_mode(self, data: bytes, done: Done) -> Answer:
        self._controller.set_mode(data[0])
        return Answer()

    def _move_line(self, data: bytes, done: Done) -> Answer:
        """Takes 9 floats, as it was, or 10 and three bytes: coordinates, axis-angle, check only."""
        if len(data) > 43 or (len(data) >= 43 and any(data[40:43])):
            return _REFUSED
        values = read_floats(data, 9)
        taken = self._controller.move(values[:6], values[6], values[7], done)
        return self._queued(taken=taken)

    def _move_joints(self, data: bytes, done: Done) -> Answer:
        values = read_floats(data, 10)
        return self._queued(taken=self._controller.move_joints(values[:7], values[7], done))

    def _queued(self, *, taken: bool) -> Answer:
        if not taken:
            return Answer(bytes(3), 0x10 if not self._controller.can_move else INVALID)
        return Answer(struct.pack(">HB", self._controller.waiting, 0))

    def _after_all(self, data: bytes, done: Done) -> Answer:
        if self._controller.can_move:
            self._controller.after_all(done)
        return Answer()

    def _move_at(self, data: bytes, done: Done) -> Answer:
        duration_s = read_floats(data, 1, 25)[0] if len(data) >= 29 else 0.0
        if data[24]:
            return _REFUSED
        return _taken(self._controller.move_at(read_floats(data, 6), duration_s))

    def _set_tcp_offset(self, data: bytes, done: Done) -> Answer:
        self._controller.tcp_offset = [*read_floats(data, 6)]
        return Answer()

    def _set_load(self, data: bytes, done: Done) -> Answer:
        self._controller.load = [*read_floats(data, 4)]
        done(DONE)
        return Answer()

    def _set_sensitivity(self, data: bytes, done: Done) -> Answer:
        if data[0] > 5:
            return _REFUSED
        self._controller.sensitivity = data[0]
        return Answer()

    def _joints(self, data: bytes, done: Done) -> Answer:
        blocks = data[0] & 0x0F if data else 1
        return Answer(floats([*self._plant.state().joints_rad, *[0.0] * 7 * (blocks - 1)]))

    def _set_reduced_speed(self, data: bytes, done: Done) -> Answer:
        self._controller.reduced_speed_mm_s = read_floats(data, 1)[0]
        return Answer()

    def _set_reduced_joint_speed(self, data: bytes, done: Done) -> Answer:
        self._controller.reduced_joint_speed = read_floats(data, 1)[0]
        return Answer()

    def _set_reduced(self, data: bytes, done: Done) -> Answer:
        self._controller.reduced = bool(data[0])
        return Answer()

    def _set_boundary(self, data: bytes, done: Done) -> Answer:
        self._controller.boundary_mm = [*struct.unpack_from("<6i", data)]
        return Answer()

    def _set_joint_limits(self, data: bytes, done: Done) -> Answer:
        self._controller.joint_limits = [*read_floats(data, 14)]
        return Answer()

    def _set_fence(self, data: bytes, done: Done) -> Answer:
        self._controller.fence = bool(data[0])
        return Answer()

    def _set_rebound(self, data: bytes, done: Done) -> Answer:
        self._controller.rebound = bool(data[0])
        return Answer()

    def _tool_bus(self, data: bytes, done: Done) -> Answer | None:
        if data[0] != HOST_ID or self.gripper_silent:
            return None
        answer = self._bus.exchange(data[1:])
        return None if answer is None else Answer(bytes([HOST_ID]) + answer)

    def _read_tool(self, data: bytes, done: Done) -> Answer:
        (address,) = struct.unpack_from(">H", data, 1)
        return Answer(struct.pack(">i", _BAUD_2M if address == _TOOL_BAUD else 0))


def _taken(taken: bool) -> Answer:  # noqa: FBT001
    return Answer() if taken else _REFUSED
