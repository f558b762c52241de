"""What the program does that ``ur_rtde`` sends to the controller: takes commands from registers and moves the arm.

The program itself is not interpreted. Its way of talking is: command number in the first integer register, arguments
in the double registers, and an answer in the first output register: 1 ready, 2 done; the client then writes 0.
"""

import math
import time
from typing import Protocol

import numpy as np

from qtopt.errors import RobotError
from robot_bridge.displacement import TURN_PER_M
from robot_bridge.robot import ToolPose

READY, DONE = 1, 2
_MOVE_J, _MOVE_L, _ZERO_FT, _SPEED_J, _SPEED_L, _SPEED_STOP, _SERVO_STOP = 1, 3, 8, 9, 10, 15, 16
_SET_PAYLOAD, _SERVO_L, _SET_TCP, _PROTECTIVE, _STOP_L, _STOP_J, _WATCHDOG = 17, 24, 29, 31, 33, 34, 35
_IS_STEADY, _STOP_SCRIPT = 47, 255
_STREAMED = (_SPEED_L, _SERVO_L)
_TURN_RAD_S = 0.8
_SERVO_SPEED_M_S, _SERVO_ACCEL_M_S2 = 0.5, 5.0
_AHEAD_S = 0.5


class Machine(Protocol):
    """What a program needs of the controller it runs on."""

    def number(self, register: int) -> int:
        """Returns an integer input register."""
        ...

    def values(self, first: int, count: int) -> tuple[float, ...]:
        """Returns double input registers."""
        ...

    def answer(self, register: int, value: int) -> None:
        """Writes an integer output register."""
        ...

    def tool_now(self) -> ToolPose: ...  # noqa: D102
    def tool_of_pose(self, values: tuple[float, ...]) -> ToolPose: ...  # noqa: D102
    def tool_of_joints(self, values: tuple[float, ...]) -> tuple[ToolPose, float]: ...  # noqa: D102
    def go(self, target: ToolPose, speed: float, accel: float, turn: float, *, stream: bool) -> None: ...  # noqa: D102
    def brake(self, decel: float) -> None: ...  # noqa: D102
    def busy(self) -> bool: ...  # noqa: D102
    def zero_force(self) -> None: ...  # noqa: D102
    def set_payload(self, mass_kg: float, centre_m: tuple[float, ...]) -> None: ...  # noqa: D102
    def set_tcp(self, values: tuple[float, ...]) -> None: ...  # noqa: D102
    def protective_stop(self, reason: str) -> None: ...  # noqa: D102


class Program:
    """The running control program.

    Args:
        machine: the controller.
        float_offset: of the double registers it uses.
        int_offset: of the integer registers.
    """

    def __init__(self, machine: Machine, float_offset: int, int_offset: int) -> None:
        self._machine, self._floats, self._ints = machine, float_offset, int_offset
        self._waiting_for_end = False
        self._waiting_for_zero = False
        self._asynchronous = False
        self._operation = self._writes = 0
        self._speed_until = 0.0
        self.watchdog_hz = 0.0
        self.ended = ""
        self._say(0, READY)
        self._progress(running=False)

    @property
    def watched_register(self) -> str:
        """The input variable whose updates feed the watchdog."""
        return f"input_int_register_{self._ints}"

    def step(self) -> None:
        """Runs through one cycle of the controller; ``ended`` says why the program is over, if it is."""
        busy = self._machine.busy()
        if self._asynchronous and not busy:
            self._asynchronous = False
            self._progress(running=False)
        if self._speed_until and time.monotonic() > self._speed_until:
            self._speed_until = 0.0
            self._machine.brake(2.0)
        command = self._machine.number(self._ints)
        if self._waiting_for_end:
            if not busy:
                self._waiting_for_end = False
                self._done()
        elif self._waiting_for_zero:
            if command == 0:
                self._waiting_for_zero = False
                self._say(0, READY)
        elif command:
            try:
                self._obey(command)
            except RobotError as error:
                self.ended = str(error)

    def _obey(self, command: int) -> None:
        if command == _STOP_SCRIPT:
            self.ended = "stopped by its client"
        elif command in _STREAMED:
            self._stream(command)
        else:
            self._waiting_for_end = self._start(command)
            if not self._waiting_for_end:
                self._done()

    def _start(self, command: int) -> bool:
        """Starts a command; returns whether its end must be waited for."""
        machine = self._machine
        if command in (_MOVE_J, _MOVE_L):
            speed, accel = self._values(6, 2)
            self._move(command, speed, accel)
            self._asynchronous = machine.number(self._ints + 1) != 0
            if self._asynchronous:
                self._operation = (self._operation + 1) % 128
                self._progress(running=True)
            return not self._asynchronous
        if command in (_STOP_L, _STOP_J, _SERVO_STOP, _SPEED_STOP):
            self._speed_until = 0.0
            machine.brake(self._values(0, 1)[0])
            return command in (_SERVO_STOP, _SPEED_STOP) or machine.number(self._ints + 1) == 0
        if command == _ZERO_FT:
            machine.zero_force()
        elif command == _SET_PAYLOAD:
            mass_kg, *centre_m = self._values(0, 4)
            machine.set_payload(mass_kg, tuple(centre_m))
        elif command == _SET_TCP:
            machine.set_tcp(self._values(0, 6))
        elif command == _PROTECTIVE:
            machine.protective_stop("asked for by the program")
        elif command == _WATCHDOG:
            self.watchdog_hz = self._values(0, 1)[0]
        elif command == _IS_STEADY:
            self._say(1, int(not machine.busy()))
        else:
            raise RobotError(f"the simulated controller does not know command {command} of the program")
        return False

    def _move(self, command: int, speed: float, accel: float) -> None:
        if speed <= 0 or accel <= 0:
            raise RobotError(f"a motion with speed {speed} and acceleration {accel}, expected more than 0")
        here = self._machine.tool_now()
        if command == _MOVE_L:
            # Way and turn begin and end together; the one waits for the other.
            target = self._machine.tool_of_pose(self._values(0, 6))
            way_m = _distance(here, target)
            longest_m = max(way_m, abs(target.yaw_rad - here.yaw_rad) / TURN_PER_M, 1e-6)
            seconds = longest_m / speed + speed / accel
            speed = max(speed * way_m / longest_m, 1e-3)
        else:
            # Of a joint motion only its end and duration are simulated: the hand knows straight lines alone.
            target, angle = self._machine.tool_of_joints(self._values(0, 6))
            seconds = angle / speed + speed / accel
            speed, accel = max(_distance(here, target) / max(seconds, 0.1), 0.01) * 1.2, 0.8
        turn = abs(target.yaw_rad - here.yaw_rad) / max(seconds, 0.05)
        self._machine.go(target, speed, accel, min(max(turn, 0.05), _TURN_RAD_S), stream=False)

    def _stream(self, command: int) -> None:
        machine, values = self._machine, self._values(0, 9)
        if command == _SERVO_L:
            machine.go(
                machine.tool_of_pose(values[:6]), _SERVO_SPEED_M_S, _SERVO_ACCEL_M_S2, _TURN_RAD_S * 2, stream=True
            )
            return
        here, speed = machine.tool_now(), math.hypot(*values[:3])
        if speed < 1e-4 and abs(values[5]) < 1e-4:
            machine.brake(values[6])
            return
        x, y, z = (a + _AHEAD_S * b for a, b in zip((here.x_m, here.y_m, here.z_m), values[:3], strict=True))
        target = ToolPose(x, y, z, here.yaw_rad + _AHEAD_S * values[5])
        machine.go(target, max(speed, 1e-3), values[6], max(abs(values[5]), 1e-3), stream=True)
        self._speed_until = time.monotonic() + values[7] if values[7] > 0 else 0.0

    def _done(self) -> None:
        self._say(0, DONE)
        self._waiting_for_zero = True

    def _values(self, first: int, count: int) -> tuple[float, ...]:
        return self._machine.values(self._floats + first, count)

    def _say(self, register: int, value: int) -> None:
        self._machine.answer(self._ints + register, value)

    def _progress(self, *, running: bool) -> None:
        """Writes the register from which the client reads how an asynchronous motion fares."""
        self._writes = (self._writes + 1) % 128
        self._say(2, (self._operation << 24) | (self._writes << 16) | (int(running) << 15))


def _distance(first: ToolPose, second: ToolPose) -> float:
    return float(np.linalg.norm(first.array()[:3] - second.array()[:3]))
