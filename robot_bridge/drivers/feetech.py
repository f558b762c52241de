"""The serial bus of Feetech STS servos: packets, checksums, and the five instructions that an arm needs.

A packet is ``FF FF id length instruction parameters... checksum``; length counts instruction, parameters and checksum,
the checksum is the inverted low byte of the sum of all before it but the two FF. A reply has the servo's fault bits in
the place of the instruction. Words are little-endian; signed ones are sign and magnitude.
"""

import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, Final

from qtopt.errors import RobotError

BROADCAST: Final = 0xFE
STEPS_PER_TURN: Final = 4096
STS3215_MODEL: Final = 777


class Register(IntEnum):
    """Addresses in an STS3215's memory; ``TORQUE_ENABLE`` to ``TORQUE_LIMIT`` are written, the rest is read."""

    MODEL = 3
    TORQUE_ENABLE = 40
    GOAL_POSITION = 42
    TORQUE_LIMIT = 48
    PRESENT_POSITION = 56


class Fault(IntFlag):
    """The fault bits of a reply."""

    VOLTAGE = 1
    SENSOR = 2
    TEMPERATURE = 4
    CURRENT = 8
    ANGLE = 16
    OVERLOAD = 32


class BusError(RobotError):
    """A servo did not answer, or what it answered was damaged."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a servo answered: its fault bits and the bytes asked for."""

    servo: int
    faults: Fault
    data: bytes


def checksum(body: bytes) -> int:
    """Returns the checksum of a packet without its two FF and without the checksum itself."""
    return ~sum(body) & 0xFF


def packet(servo: int, instruction: int, parameters: bytes = b"") -> bytes:
    """Returns the bytes of an instruction."""
    body = bytes((servo, len(parameters) + 2, instruction)) + parameters
    return b"\xff\xff" + body + bytes((checksum(body),))


def to_word(value: int) -> bytes:
    """Returns two bytes: the magnitude, low byte first, the sign in bit 15."""
    if abs(value) > 0x7FFF:
        raise BusError(f"{value} does not fit a servo's register")
    return (abs(value) | (0x8000 if value < 0 else 0)).to_bytes(2, "little")


def from_word(data: bytes, sign_bit: int = 15) -> int:
    """Returns the signed number in two bytes; the load of a servo has its sign in bit 10."""
    raw = int.from_bytes(data[:2], "little")
    magnitude = raw & ((1 << sign_bit) - 1)
    return -magnitude if raw >> sign_bit & 1 else magnitude


class ServoBus:
    """The only user of a serial port with servos on it; not for several threads at once.

    Args:
        port: device, as ``/dev/serial/by-id/...``.
        baud_hz: 1,000,000 as the servos come.
        timeout_s: how long a servo may take to answer [s]; they need 1 ms.
    """

    def __init__(self, port: str, baud_hz: int = 1_000_000, timeout_s: float = 0.02) -> None:
        import serial  # part of an extra

        self._timeout_s = timeout_s
        # An unplugged port is flushed by termios, whose error is neither of the others.
        self._errors: tuple[type[Exception], ...] = (serial.SerialException, OSError, termios.error)
        try:
            self._serial: Any = serial.Serial(port, baud_hz, timeout=timeout_s, write_timeout=0.1, exclusive=True)
        except self._errors as error:
            raise BusError(f"the serial port {port} cannot be used: {error}. Is it plugged in and free?") from error

    def ping(self, servo: int) -> Reply:
        """Asks whether a servo is there; raises BusError."""
        return self._ask(servo, 1)

    def read(self, servo: int, address: int, length: int) -> Reply:
        """Reads ``length`` bytes of a servo's memory; raises BusError."""
        return self._ask(servo, 2, bytes((address, length)), length)

    def write(self, servo: int, address: int, data: bytes) -> Reply:
        """Writes into a servo's memory and waits for its answer; raises BusError."""
        return self._ask(servo, 3, bytes((address,)) + data)

    def sync_read(self, servos: Sequence[int], address: int, length: int) -> dict[int, Reply]:
        """Reads the same bytes of several servos; raises BusError unless every one answered."""
        self._send(packet(BROADCAST, 0x82, bytes((address, length, *servos))))
        replies = {}
        for servo in servos:
            replies[servo] = self._receive(servo, length)
        return replies

    def sync_write(self, address: int, data: Mapping[int, bytes]) -> None:
        """Writes to several servos at once; nobody answers. Raises BusError."""
        length = len(next(iter(data.values())))
        parameters = b"".join(bytes((servo,)) + values for servo, values in data.items())
        self._send(packet(BROADCAST, 0x83, bytes((address, length)) + parameters))

    def close(self) -> None:
        """Frees the port; the servos keep their goals."""
        self._serial.close()

    def _ask(self, servo: int, instruction: int, parameters: bytes = b"", length: int = 0) -> Reply:
        self._send(packet(servo, instruction, parameters))
        return self._receive(servo, length)

    def _send(self, message: bytes) -> None:
        try:
            self._serial.reset_input_buffer()  # a late answer to an earlier question is no answer to this one
            self._serial.write(message)
        except self._errors as error:
            raise BusError(f"the serial port {self._serial.port} failed: {error}") from error

    def _receive(self, servo: int, length: int) -> Reply:
        end_s = time.monotonic() + self._timeout_s
        head = self._take(servo, 2, end_s)
        while head != b"\xff\xff":
            head = head[1:] + self._take(servo, 1, end_s)
        found, size = self._take(servo, 2, end_s)
        if found == 0xFF or size != length + 2:
            raise BusError(f"servo {servo}: a reply of id {found} and length {size}, expected length {length + 2}")
        rest = self._take(servo, size, end_s)
        if rest[-1] != checksum(bytes((found, size)) + rest[:-1]):
            raise BusError(f"servo {servo}: a reply with a wrong checksum; look at the cable and its screen")
        if found != servo:
            raise BusError(f"servo {found} answered in place of servo {servo}; do two have the same id?")
        return Reply(servo, Fault(rest[0]), bytes(rest[1:-1]))

    def _take(self, servo: int, size: int, end_s: float) -> bytes:
        try:
            data = bytes(self._serial.read(size))
        except self._errors as error:
            raise BusError(f"the serial port {self._serial.port} failed: {error}") from error
        if len(data) < size or time.monotonic() > end_s + self._timeout_s:
            raise BusError(
                f"servo {servo} did not answer within {self._timeout_s:g} s; is it powered, is its id right?"
            )
        return data
