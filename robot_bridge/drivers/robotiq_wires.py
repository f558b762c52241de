"""The two wires to a Robotiq 2F's registers: the text socket of the UR cap, and Modbus RTU on a serial port."""

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from qtopt.errors import RobotError

_REPLY_S = 0.5
_TAIL_S = 0.1
_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Registers:
    """What the gripper reports.

    Attributes:
        activation: 3 when active (gSTA).
        going: it was told to go somewhere (gGTO); without that ``motion`` means nothing.
        motion: 0 moving, 1 stopped by an object while opening, 2 while closing, 3 at the request (gOBJ).
        fault: gFLT.
        echo: the position asked for (gPR).
        position: where the fingers are (gPO).
    """

    activation: int
    going: bool
    motion: int
    fault: int
    echo: int
    position: int


class Wire(Protocol):
    """One of the two ways to the registers; raises RobotError on silence and nonsense."""

    def open(self, deadline_s: float) -> None:
        """Connects."""
        ...

    def read(self) -> Registers:
        """Returns the registers as they are now."""
        ...

    def activate(self, *, on: bool) -> None:
        """Sets or clears the activation bit, all else zero."""
        ...

    def go(self, position: int, speed: int, force: int) -> None:
        """Sends the fingers off."""
        ...

    def close(self) -> None:
        """Frees the connection; a second call does nothing."""
        ...


class SocketWire:
    """The text protocol: ``GET VAR`` is answered ``VAR value``, ``SET VAR value ...`` is answered ``ack``.

    A connection that broke, or is silent, is made anew by the next ``read``: reading moves nothing, and until it has
    answered the gripper is at fault.
    """

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._socket: socket.socket | None = None
        self._broke_s: float | None = None

    def open(self, deadline_s: float) -> None:
        """Connects; raises RobotError."""
        try:
            self._socket = socket.create_connection(self._address, deadline_s)
        except OSError as error:
            raise RobotError(
                f"gripper at {self._address[0]}:{self._address[1]} cannot be reached: {error}; is the Robotiq URCap "
                "installed and the controller on?"
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._broke_s = None

    def read(self) -> Registers:
        """Returns the registers; six questions."""
        if self._broke_s is not None and time.monotonic() - self._broke_s > _AGAIN_S:
            self._broke_s = time.monotonic()
            self.open(_REPLY_S)
        names = ("STA", "GTO", "OBJ", "FLT", "PRE", "POS")
        activation, going, motion, fault, echo, position = (self._get(name) for name in names)
        return Registers(activation, going == 1, motion, fault, echo, position)

    def activate(self, *, on: bool) -> None:
        """Sets or clears the activation bit."""
        self._set(f"ACT {int(on)}")

    def go(self, position: int, speed: int, force: int) -> None:
        """Sends the fingers off."""
        self._set(f"POS {position} SPE {speed} FOR {force} GTO 1")

    def close(self) -> None:
        """Closes the socket."""
        self._broke_s = None
        self._drop()

    def _lose(self) -> None:
        self._broke_s = time.monotonic()
        self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _get(self, name: str) -> int:
        answer = self._ask(f"GET {name}", lambda text: text.endswith("\n"))
        words = answer.split()
        if len(words) != 2 or words[0] != name or not words[1].isdigit():
            raise RobotError(f"gripper answered {answer!r} to GET {name}, expected {name!r} and a number")
        return int(words[1])

    def _set(self, assignments: str) -> None:
        answer = self._ask(f"SET {assignments}", lambda text: text.startswith(("ack", "?")))
        if answer.strip() != "ack":
            raise RobotError(f"gripper answered {answer!r} to SET {assignments}, expected 'ack'")

    def _ask(self, line: str, whole: Callable[[str], bool]) -> str:
        """Sends a line and gathers the answer; after a number the newline is waited for only a little."""
        if self._socket is None:
            broke = self._broke_s is not None
            raise RobotError(f"gripper is not connected{', and is again soon' if broke else '; call connect() first'}")
        answer = ""
        try:
            self._socket.settimeout(_REPLY_S)
            self._socket.sendall(line.encode() + b"\n")
            while not whole(answer):
                received = self._socket.recv(1024)
                if not received:
                    raise OSError("closed by the other side")
                answer = (answer + received.decode("ascii", "replace")).lstrip()
                self._socket.settimeout(_TAIL_S if answer[-1:].isdigit() else _REPLY_S)
        except TimeoutError:
            if not answer:
                # A late answer would be taken for that of the next question.
                self._lose()
                raise RobotError(f"gripper is silent: no answer to {line!r} within {_REPLY_S} s") from None
        except OSError as error:
            self._lose()
            raise RobotError(f"gripper's connection broke at {line!r}: {error}") from error
        return answer


class RtuWire:
    """Modbus RTU: three registers written from 0x03E8 on, three read from 0x07D0 on."""

    _OUT, _IN = 0x03E8, 0x07D0

    def __init__(self, device: str, baud: int, address: int) -> None:
        self._device, self._baud, self._address = device, baud, address
        self._client: Any = None

    def open(self, deadline_s: float) -> None:
        """Opens the serial port; raises RobotError."""
        try:
            from pymodbus.client import ModbusSerialClient
        except ImportError as error:
            raise RobotError(f"pymodbus cannot be loaded: {error}; pip install '.[robotiq]'") from error
        timeout_s = min(deadline_s, _REPLY_S)
        client: Any = ModbusSerialClient(self._device, baudrate=self._baud, timeout=timeout_s, retries=0)
        if not client.connect():
            raise RobotError(f"gripper's port {self._device} cannot be opened; is it plugged in and yours to use?")
        self._client = client

    def read(self) -> Registers:
        """Returns the registers; one exchange."""
        first, second, third = self._exchange("read_input_registers", self._IN, count=3).registers
        status = first >> 8
        return Registers(status >> 4 & 3, bool(status & 8), status >> 6, second >> 8 & 0x0F, second & 255, third >> 8)

    def activate(self, *, on: bool) -> None:
        """Sets or clears the activation bit."""
        self._exchange("write_registers", self._OUT, [0x0100 if on else 0, 0, 0])

    def go(self, position: int, speed: int, force: int) -> None:
        """Sends the fingers off."""
        self._exchange("write_registers", self._OUT, [0x0900, position, speed << 8 | force])

    def close(self) -> None:
        """Frees the port."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _exchange(self, call: str, *arguments: Any, **named: Any) -> Any:
        from pymodbus.exceptions import ModbusException

        if self._client is None:
            raise RobotError("gripper is not connected; call connect() first")
        try:
            answer = getattr(self._client, call)(*arguments, **named, device_id=self._address)
        except (ModbusException, OSError) as error:
            raise RobotError(f"gripper {self._address} on {self._device} is silent or garbled: {error}") from error
        if answer.isError():
            raise RobotError(f"gripper {self._address} on {self._device} refused {call}: {answer}")
        return answer
