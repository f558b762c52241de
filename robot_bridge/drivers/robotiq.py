"""Robotiq 2F grippers: one gripper over two wires, the text socket of the UR cap and Modbus RTU on a serial port.

Both wires carry the same registers; only how they are read and written differs. The gripper counts its position from 0
(open) to 255 (closed) and touches itself before that, so a cell calibrates two counts to two widths.
"""

import threading
import time
from dataclasses import dataclass, field, replace

from qtopt.config import STRICT
from qtopt.errors import ConfigError, RobotError
from robot_bridge.contracts import Arm, Capability, Gripper, GripperState, ObjectSensed
from robot_bridge.driver import GripperDriver
from robot_bridge.drivers.bounds import PORTS, require_within
from robot_bridge.drivers.robotiq_wires import Registers, RtuWire, SocketWire, Wire

FAULTS = {
    0x05: "the action was delayed: it must be activated first",
    0x07: "the activation bit must be set before it acts",
    0x08: "it is hotter than 85 C; let it cool down",
    0x09: "it heard nothing from its master for a second",
    0x0A: "its supply voltage is too low",
    0x0B: "an automatic release is under way",
    0x0C: "it has an internal fault",
    0x0D: "its activation failed: is something between the fingers?",
    0x0E: "its motor draws too much current",
    0x0F: "an automatic release has ended; activate it again",
}
_TO_ACTIVATE = (0x05, 0x07, 0x0F)
"""Those that activation ends: before it they are no reason to refuse."""
_UNFIT = (0x0A, 0x0B, 0x0C, 0x0D, 0x0E)
"""Those with which no activation succeeds."""
_ACTIVE = 3
_MOVING, _ON_OBJECT_OPENING, _ON_OBJECT_CLOSING = 0, 1, 2
_POLL_S = 0.01
_ECHO_S = 1.0
_BOUNDS = {
    "open_position": (0, 255),
    "closed_position": (0, 255),
    "open_width_m": (0.01, 0.2),
    "closed_width_m": (0.0, 0.19),
    "speed_m_s": (0.005, 0.5),
    "force_n": (1.0, 300.0),
}


@dataclass(frozen=True)
class Calibration:
    """How counts, speeds and forces of a gripper map to metres, metres a second and newtons; as of a 2F-85.

    Attributes:
        open_position: counts where the fingers are ``open_width_m`` apart.
        closed_position: counts where they are ``closed_width_m`` apart.
        open_width_m: widest opening.
        closed_width_m: narrowest opening; 0 where the finger tips touch.
        speed_m_s: slowest and fastest speed of the fingers.
        force_n: weakest and strongest grip.
    """

    __pydantic_config__ = STRICT

    open_position: int = 3
    closed_position: int = 230
    open_width_m: float = 0.085
    closed_width_m: float = 0.0
    speed_m_s: tuple[float, float] = (0.02, 0.15)
    force_n: tuple[float, float] = (20.0, 235.0)

    def __post_init__(self) -> None:
        require_within(self, _BOUNDS)
        if not self.open_position < self.closed_position:
            raise ConfigError(
                f"gripper positions are {self.open_position} (open) and {self.closed_position} (closed), expected two "
                "rising counts from 0 to 255"
            )
        if not self.closed_width_m <= self.open_width_m - 0.01:
            raise ConfigError(
                f"gripper widths are {self.closed_width_m} and {self.open_width_m} m, expected closed below open by "
                "10 mm or more"
            )
        for name, (low, high) in (("speed_m_s", self.speed_m_s), ("force_n", self.force_n)):
            if not low < high:
                raise ConfigError(f"gripper {name} is {low} to {high}, expected two rising numbers")

    def width_m(self, position: int) -> float:
        """Returns the opening at a position, never below 0."""
        share = (self.closed_position - position) / (self.closed_position - self.open_position)
        return max(0.0, self.closed_width_m + share * (self.open_width_m - self.closed_width_m))

    def position(self, width_m: float) -> int:
        """Returns the position to ask for; the ends of the range are asked for with all that the gripper has."""
        if width_m <= self.closed_width_m:
            return 255
        if width_m >= self.open_width_m:
            return 0
        share = (width_m - self.closed_width_m) / (self.open_width_m - self.closed_width_m)
        return round(self.closed_position - share * (self.closed_position - self.open_position))

    def speed(self, speed_m_s: float) -> int:
        """Returns the speed to ask for, 0 to 255."""
        return _byte(speed_m_s, self.speed_m_s)

    def force(self, force_n: float) -> int:
        """Returns the force to ask for, 0 to 255."""
        return _byte(force_n, self.force_n)


def _byte(value: float, limits: tuple[float, float]) -> int:
    low, high = limits
    return round(255 * min(1.0, max(0.0, (value - low) / (high - low))))


@dataclass(frozen=True)
class SocketOptions:
    """The ``[gripper]`` table of driver ``robotiq-ur-socket``: the arm's address, where the cap listens.

    Attributes:
        host: address of the UR controller.
        port: of the cap.
        calibration: counts to metres.
    """

    __pydantic_config__ = STRICT

    host: str
    port: int = 63352
    calibration: Calibration = field(default_factory=Calibration)

    def __post_init__(self) -> None:
        require_within(self, {"port": PORTS})


@dataclass(frozen=True)
class RtuOptions:
    """The ``[gripper]`` table of driver ``robotiq-rtu``.

    Attributes:
        device: serial port, such as ``/dev/serial/by-id/usb-FTDI...``.
        baud: of the port.
        address: Modbus number of the gripper.
        calibration: counts to metres.
    """

    __pydantic_config__ = STRICT

    device: str
    baud: int = 115200
    address: int = 9
    calibration: Calibration = field(default_factory=Calibration)

    def __post_init__(self) -> None:
        require_within(self, {"baud": (9_600, 115_200), "address": (1, 247)})


class RobotiqGripper:
    """A ``Gripper`` over either wire.

    Args:
        wire: the way to its registers.
        calibration: counts to metres.
    """

    def __init__(self, wire: Wire, calibration: Calibration) -> None:
        self._wire, self._calibration = wire, calibration
        self._lock = threading.Lock()
        self._readied = False

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Width, object flag and force."""
        return frozenset({Capability.GRIPPER_WIDTH, Capability.GRIPPER_OBJECT_FLAG, Capability.GRIPPER_FORCE})

    @property
    def width_range_m(self) -> tuple[float, float]:
        """Smallest and largest opening [m]."""
        return self._calibration.closed_width_m, self._calibration.open_width_m

    def connect(self, deadline_s: float) -> None:
        """Connects and reads once, without motion; raises RobotError."""
        with self._lock:
            self._wire.open(deadline_s)
            self._wire.read()

    def activate(self, deadline_s: float) -> None:
        """Activates, which opens and closes the fingers once; does nothing when it is active and sound."""
        registers = self._registers()
        self._readied = True
        if registers.activation == _ACTIVE and not registers.fault:
            return
        deadline = time.monotonic() + deadline_s
        for on in (False, True):
            with self._lock:
                self._wire.activate(on=on)
        while (registers := self._registers()).activation != _ACTIVE:
            if registers.fault in _UNFIT or time.monotonic() > deadline:
                raise RobotError(f"gripper did not activate within {deadline_s:.1f} s: {_words(registers.fault)}")
            time.sleep(_POLL_S)

    def move(self, width_m: float, speed_m_s: float, force_n: float, deadline_s: float) -> GripperState:
        """Moves the fingers and returns when they stand: at ``width_m`` or on an object.

        Raises:
            RobotError: it is silent, at fault, not active, or still moving at the deadline. The fingers stay as they
                are: the gripper itself goes on to where it was sent.
        """
        deadline = time.monotonic() + deadline_s
        position = self._calibration.position(width_m)
        with self._lock:
            self._wire.go(position, self._calibration.speed(speed_m_s), self._calibration.force(force_n))
        echo_due = time.monotonic() + _ECHO_S
        while True:
            registers = self._registers()
            if registers.fault or registers.activation != _ACTIVE:
                reason = _words(registers.fault) if registers.fault else "it is not activated; call activate() first"
                raise RobotError(f"gripper did not go to {width_m * 1000:.1f} mm: {reason}")
            # Until the request is echoed the report is of the motion before.
            if registers.echo == position and registers.motion != _MOVING:
                return self._state(registers)
            now = time.monotonic()
            if now > deadline or (registers.echo != position and now > echo_due):
                raise RobotError(
                    f"gripper did not reach {width_m * 1000:.1f} mm within {deadline_s:.1f} s: it is at "
                    f"{self._calibration.width_m(registers.position) * 1000:.1f} mm and "
                    f"{'still moves' if registers.echo == position else 'does not take the request'}"
                )
            time.sleep(_POLL_S)

    def state(self) -> GripperState:
        """Returns a fresh report; raises RobotError if the gripper is silent or at fault.

        Before ``activate`` was called, a fault that it ends is none.
        """
        registers = self._registers()
        if registers.fault in _TO_ACTIVATE and not self._readied:
            return self._state(replace(registers, fault=0))
        if registers.fault:
            raise RobotError(f"gripper is at fault: {_words(registers.fault)}")
        return self._state(registers)

    def close(self) -> None:
        """Frees the connection; the fingers stay as they are."""
        with self._lock:
            self._wire.close()

    def _registers(self) -> Registers:
        with self._lock:
            return self._wire.read()

    def _state(self, registers: Registers) -> GripperState:
        sensed = {
            _MOVING: ObjectSensed.UNKNOWN,
            _ON_OBJECT_OPENING: ObjectSensed.YES,
            _ON_OBJECT_CLOSING: ObjectSensed.YES,
        }.get(registers.motion, ObjectSensed.NO)
        if registers.motion == _ON_OBJECT_CLOSING and registers.position >= self._calibration.closed_position:
            sensed = ObjectSensed.NO  # the fingers met each other before the count that was asked for
        width_m = self._calibration.width_m(registers.position)
        moving = registers.going and registers.motion == _MOVING
        fault = _words(registers.fault) if registers.fault else ""
        return GripperState(time.monotonic_ns(), width_m, moving, sensed, fault)


def _words(fault: int) -> str:
    """Returns a fault code in words; the code stays visible for the manual's sake."""
    return (
        f"{FAULTS.get(fault, 'it reports an unknown fault')} (code 0x{fault:02X})" if fault else "it reports no fault"
    )


def open_socket(options: SocketOptions, arm: Arm) -> Gripper:
    """Makes an unconnected gripper behind a UR's cap; the arm's own connection is not used."""
    del arm
    return RobotiqGripper(SocketWire(options.host, options.port), options.calibration)


def open_rtu(options: RtuOptions, arm: Arm) -> Gripper:
    """Makes an unconnected gripper on a serial port."""
    del arm
    return RobotiqGripper(RtuWire(options.device, options.baud, options.address), options.calibration)


SOCKET_DRIVER = GripperDriver(options=SocketOptions, open=open_socket, extra="robotiq")
RTU_DRIVER = GripperDriver(options=RtuOptions, open=open_rtu, extra="robotiq")
